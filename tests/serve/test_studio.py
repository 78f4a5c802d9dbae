"""The queue and the thread that draws: what shares UNet calls, whose turn it is, and what failing or stopping does."""

from __future__ import annotations

import gc
import os
import shutil
import time
import weakref

import pytest
from PIL import Image
from tests.serve.conftest import until

from nano_runtime import DrawOptions, open_picture
from nano_serve import gallery, worker
from nano_serve.errors import NotFoundError
from nano_serve.jobs import Wish
from nano_serve.journal import Journal


def submit(served, prompt="owl", client="me", bundle=None, **options):
    """Let a job wait."""
    shelved = served.studio.shelf.chosen(bundle)
    return served.studio.submit(DrawOptions(prompt=prompt, **options), shelved, Wish(client, {}))


@pytest.fixture
def held(served):
    """A server that is busy: its UNet waits in the first call of a job that shares with none."""
    served.gate.open = False
    served.first = submit(served, num_inference_steps=7)
    until(lambda: served.first.status == "generating")
    return served


def done(*jobs):
    """Wait until jobs have ended."""
    until(lambda: all(job.ended for job in jobs))


def test_jobs_that_agree_in_all_but_prompt_and_seed_share_calls(held):
    """They take four UNet calls together, and each draws what it draws alone."""
    shared = [submit(held, f"a red {word}", word, seed=seed) for seed, word in enumerate(("fox", "owl", "sea"))]
    other = submit(held, guidance_scale=1.5)
    held.gate.open = True
    done(held.first, *shared, other)
    assert held.gate.calls == 7 + 4 + 4
    pipe = held.studio.shelf.at(held.studio.shelf.default).pipeline
    for job in shared:
        alone = pipe(job.options).images[0]
        assert _pixels(held, job) == alone.tobytes()


def test_cancelling_one_leaves_the_others_as_they_are(held):
    jobs = [submit(held, seed=seed) for seed in range(3)]
    held.gate.left = 7
    until(lambda: all(job.status == "generating" for job in jobs) and held.gate.left == 0)
    held.studio.cancel(jobs[1])
    held.gate.open = True
    done(*jobs)
    assert [job.status for job in jobs] == ["completed", "cancelled", "completed"]
    assert jobs[1].pictures == ()
    pipe = held.studio.shelf.at(held.studio.shelf.default).pipeline
    for job in (jobs[0], jobs[2]):
        assert _pixels(held, job) == pipe(job.options).images[0].tobytes()


def test_clients_take_turns_of_four_pictures(held):
    many = submit(held, num_images_per_prompt=12, client="greedy", num_inference_steps=2)
    few = submit(held, client="modest", num_inference_steps=3)
    held.gate.open = True
    done(few)
    assert len(many.pictures) <= 4
    done(many)
    assert [picture.place for picture in many.pictures] == list(range(12))


def test_a_job_that_fails_takes_no_other_with_it(served, monkeypatch):
    """A round that fails is drawn again job by job."""
    pipe = served.studio.shelf.at(served.studio.shelf.default).pipeline
    real = pipe.stream

    def stream(options):
        if "fox" in options.prompt:
            raise ValueError("a bug of an engine, in /home/somebody")
        return real(options)

    monkeypatch.setattr(pipe, "stream", stream)
    served.gate.open = False
    first = submit(served, num_inference_steps=7)
    until(lambda: first.status == "generating")
    good, bad = submit(served, "owl"), submit(served, "fox")
    served.gate.open = True
    done(good, bad)
    assert (good.status, bad.status) == ("completed", "failed")
    assert (bad.failure.status, bad.failure.code) == (500, "internal")
    assert "somebody" not in bad.failure.message


def test_one_bundle_is_loaded_at_a_time(served, bundles):
    for name in ("one", "two", "one"):
        job = submit(served, bundle=name)
        done(job)
        assert job.pictures[0].parameters.bundle == name
    assert [one.state for one in served.studio.shelf] == ["loaded", "idle"]
    assert not served.graphs[bundles[1]].loaded


def test_graphs_are_freed_when_nothing_comes(serving, bundles):
    served = serving(keep_seconds=0.05)
    done(submit(served))
    until(lambda: not served.graphs[bundles[0]].loaded)
    assert served.studio.shelf.loaded is None
    done(submit(served))  # and loaded again


def test_the_oldest_pictures_make_room(serving, monkeypatch, tmp_path):
    """Those of a job that is not finished stay, and so do those of the last minute."""
    old = serving()
    job = submit(old, num_images_per_prompt=3)
    done(job)
    names = [picture.id for picture in job.pictures]
    size = sum((tmp_path / "pictures" / f"{name}.png").stat().st_size for name in names)
    served = serving(history_bytes=size - 1)
    done(submit(served))
    assert {picture.id for picture in served.studio.gallery.page(None, 9)[0]} > set(names)  # all are young
    monkeypatch.setattr(gallery, "_YOUNG_SECONDS", -1.0)
    many = submit(served, num_images_per_prompt=8)
    done(many)
    left = {picture.id for picture in served.studio.gallery.page(None, 20)[0]}
    assert left.isdisjoint(names)
    assert {path.stem for path in (tmp_path / "pictures").glob("*.png")} == left
    assert {picture.id for picture in many.pictures} <= left  # it was open when they were drawn
    done(submit(served))
    assert 0 < len(served.studio.gallery.page(None, 20)[0]) <= 3


def test_pictures_to_start_from_do_not_stay_in_memory(served):
    """Of the jobs that have ended 200 stay listed, and a thousand pictures: they once kept each photograph, decoded."""
    photo = Image.new("RGB", (64, 64))
    gone = weakref.ref(photo)
    job = submit(served, image=photo, mask_image=Image.new("L", (64, 64), 255), strength=0.5)
    del photo
    done(job)
    assert len(served.studio.gallery.page(None, 9)[0]) == 1
    assert served.studio.described(job).pictures[0].drawn_by["masked"]
    until(lambda: gc.collect() >= 0 and gone() is None)


def test_pictures_of_a_clock_that_was_ahead_make_room_too(serving, tmp_path):
    """Once they passed for young until the clock was there again, and with them all that came after."""
    old = serving()
    job = submit(old, num_images_per_prompt=2)
    done(job)
    names = {picture.id for picture in job.pictures}
    for name in names:
        os.utime(tmp_path / "pictures" / f"{name}.png", (time.time() + 1e6,) * 2)
    served = serving(history_bytes=1)
    done(submit(served))
    left = {picture.id for picture in served.studio.gallery.page(None, 20)[0]}
    assert (len(left), left & names) == (1, set())  # the new one is young


def test_pipes_links_and_huge_files_among_pictures_and_requests_are_left_alone(tmp_path):
    pictures, waiting = tmp_path / "pictures", tmp_path / "pictures" / "waiting"
    waiting.mkdir(parents=True)
    os.mkfifo(pictures / f"{'0' * 32}.png")
    os.mkfifo(waiting / f"{'0' * 32}.json")
    (pictures / f"{'1' * 32}.png").symlink_to(tmp_path / "nowhere")
    with (pictures / f"{'2' * 32}.png").open("wb") as file:
        file.truncate(5 << 30)  # once it was read whole, for a list of pictures
    found = gallery.Gallery(pictures, 1 << 20)
    assert found.page(None, 10) == ([], None)
    for digit in "012":
        with pytest.raises(NotFoundError):
            found.content(digit * 32)
    requests = Journal(waiting)
    assert requests.left() == {}
    requests.close()
    (waiting / "lock").unlink()
    os.mkfifo(waiting / "lock")
    with pytest.raises(OSError, match="lock"):
        Journal(waiting)


def test_a_bundle_that_is_chosen_by_its_digest(served):
    two = served.studio.shelf.chosen("two")
    assert served.studio.shelf.named(two.bundle.digest[:10]) == [two]
    assert served.studio.shelf.named(two.title.upper()) == [two]
    assert served.studio.shelf.named(two.bundle.digest[:4]) == []


def test_the_engine_rests_when_somebody_sees_the_first_preview(served, monkeypatch):
    """Once a round: on its processors a browser shows what came."""
    rests: list[float] = []
    monkeypatch.setattr(served.studio.worker._stopping, "wait", rests.append)  # noqa: SLF001 - it is what it waits with
    done(submit(served))
    assert rests == []
    shelved = served.studio.shelf.chosen(None)
    options = DrawOptions(prompt="owl", num_images_per_prompt=6)
    seen = served.studio.submit(options, shelved, Wish("me", {}, watched=True))
    done(seen)
    assert (len(seen.pictures), rests) == (6, [worker._REST_SECONDS] * 2)  # noqa: SLF001 - see above


def test_stopping_does_not_wait_for_an_engine_that_hangs(held):
    """The call under way is given its time; waiting jobs are cancelled at once."""
    waiting = submit(held)
    began = time.monotonic()
    assert not held.studio.stop(0.2)
    assert time.monotonic() - began < 2
    assert waiting.status == "cancelled"
    held.gate.open = True
    done(held.first)
    assert held.first.status == "cancelled"


def test_nothing_is_begun_while_stopping(served):
    served.studio.stop(20)
    assert served.ask("POST", "/api/v1/jobs", json={"prompt": "owl"}).status_code == 503
    assert served.ask("GET", "/health").status_code == 503


def test_metrics_count(served):
    done(submit(served))
    served.ask("POST", "/api/v1/jobs", json={"prompt": 7})
    text = served.ask("GET", "/metrics").text
    assert 'nano_jobs_total{outcome="completed"} 1' in text
    assert 'nano_http_requests_total{route="/api/v1/jobs",code="400"} 1' in text
    assert "nano_queue_depth 0" in text


def _pixels(served, job) -> bytes:
    return open_picture(served.studio.gallery.content(job.pictures[0].id)).tobytes()


@pytest.fixture
def isolated(held, monkeypatch):
    """A server that is busy, as if its engine were in a process of its own: killed, it raises a MachineError."""
    pipe = held.studio.shelf.at(held.studio.shelf.default).pipeline

    def kill():
        held.gate.full = held.gate.open = True

    monkeypatch.setattr(pipe, "kill", kill)
    return held


def test_an_engine_that_hangs_is_ended_with_its_job(isolated, monkeypatch):
    """While it loads at once, later after a while; the job is cancelled and did not fail."""
    assert isolated.studio.shelf.loaded.state == "loading"
    isolated.studio.cancel(isolated.first)
    done(isolated.first)
    assert (isolated.first.status, isolated.first.failure) == ("cancelled", None)
    isolated.gate.full = isolated.gate.open = False
    monkeypatch.setattr(worker, "_CALL_SECONDS", 0.05)
    second = submit(isolated)
    isolated.gate.left = 1
    until(lambda: second.call == 1)
    isolated.studio.cancel(second)
    done(second)
    isolated.gate.full = False
    third = submit(isolated)
    done(third)
    assert third.status == "completed"  # the engine is started again


def test_an_engine_that_hangs_is_ended_with_the_server(isolated):
    assert isolated.studio.stop(0.2)
    assert isolated.first.status == "cancelled"


def test_others_that_share_the_engine_keep_it(isolated):
    jobs = [submit(isolated, seed=seed) for seed in (1, 2)]
    isolated.gate.left = 7
    until(lambda: all(job.status == "generating" for job in jobs))
    isolated.studio.cancel(jobs[0])
    isolated.gate.open = True
    done(*jobs)
    assert jobs[1].status == "completed"


def test_a_copy_of_a_bundle_is_offered_once(serving, bundles, tmp_path):
    copy = shutil.copytree(bundles[0], tmp_path / "copy")
    shelf = serving(bundles=(*bundles, copy)).studio.shelf
    assert [one.bundle.path for one in shelf] == [*bundles]
    assert shelf.copies == [copy]
