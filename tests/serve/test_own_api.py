"""Our own API: jobs, pictures, parameters, tokens, and the events that tell of them."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from typing import Any

import msgspec
import pytest
from PIL import Image
from tests.serve.conftest import until

from nano_runtime import DrawOptions, open_picture
from nano_serve import cli
from nano_serve.http.events import stream_of
from nano_serve.shapes import BundlesShape, ErrorShape, JobRequest, JobShape, PicturesShape


def test_a_job_draws_what_python_draws(served):
    asked = {"prompt": "a red fox", "num_images_per_prompt": 3, "seed": "5", "num_inference_steps": 3}
    answer = served.ask("POST", "/api/v1/jobs", json=asked)
    assert answer.status_code == 202
    job = msgspec.convert(answer.json(), JobShape)
    assert answer.headers["location"] == f"/api/v1/jobs/{job.id}"
    assert job.seeds == ["5", "6", "7"]
    ended = served.ended(job.id)
    assert (ended["status"], ended["progress"]["call"], ended["progress"]["calls"]) == ("completed", 9, 9)
    pipe = served.studio.shelf.at(served.studio.shelf.default).pipeline
    wanted = pipe("a red fox", seed=5, num_images_per_prompt=3, num_inference_steps=3)
    for picture, image in zip(ended["pictures"], wanted.images, strict=True):
        file = served.ask("GET", picture["url"])
        assert file.headers["content-type"] == "image/png"
        assert open_picture(file.content).tobytes() == image.tobytes()
        again = served.post("/api/v1/jobs", picture["options"])
        assert again["seeds"] == [picture["seed"]]  # what a picture says can be sent again


@pytest.mark.parametrize(("scale", "told"), [(1, True), (0.5, True), (1.5, False), (None, False)])
def test_a_negative_prompt_that_changes_nothing_is_told(served, scale, told):
    body = {"prompt": "owl", "negative_prompt": "snow", "guidance_scale": scale, "num_inference_steps": 1}
    notes = served.post("/api/v1/jobs", body)["notes"]
    assert notes == (["the negative prompt changes nothing without guidance"] if told else [])


def test_a_picture_that_is_cropped_is_told(served):
    """It covers the bundle's size, as everywhere."""
    for size, told in (((64, 32), True), ((33, 32), True), ((320, 321), False), ((4, 4), False)):
        file = BytesIO()
        Image.new("RGB", size).save(file, "PNG")
        body = {"prompt": "owl", "image": base64.b64encode(file.getvalue()).decode()}
        notes = served.post("/api/v1/jobs", body)["notes"]
        assert notes == (["the picture was cropped to the shape of 32x32"] if told else [])


def test_every_option_is_a_key_of_a_request():
    """But for those that an answer cannot show: arrays, and a size, which is the bundle's."""
    options = set(DrawOptions.__dataclass_fields__) - {"latents", "output_type", "height", "width"}
    assert set(JobRequest.__struct_fields__) == options | {"bundle"}


def test_what_is_not_drawn_as_it_was_written_is_told_and_not_logged(served, caplog):
    """The log of a server is no place for prompts; the commands say the same on standard error."""
    body = {"prompt": "a red fox {at|by} night, and so on and on", "num_inference_steps": 1}
    with cli._without_prompts():  # noqa: SLF001 - the part under test
        job = served.post("/api/v1/jobs", body)
        assert served.ended(job["id"])["notes"] == job["notes"]
    choice, rest = job["notes"]
    assert choice.startswith("{at|by} in the prompt is read as words: ")
    assert rest.startswith("of ")
    assert rest.endswith("tokens in the prompt, the last 22 are not read: |by} night, and so on and on")
    assert caplog.messages == []
    served.ended(served.post("/api/v1/jobs", body)["id"])
    assert len(caplog.messages) == 2  # negative control
    assert served.post("/api/v1/jobs", {"prompt": "owl"})["notes"] == []


def test_seeds_are_text_because_javascript_rounds(served):
    largest = str(2**64 - 1)
    job = served.post("/api/v1/jobs", {"prompt": "owl", "seed": largest})
    assert job["seeds"] == [largest]
    assert served.post("/api/v1/jobs", {"prompt": "owl", "seed": 7})["seeds"] == ["7"]
    random = served.post("/api/v1/jobs", {"prompt": "owl"})["seeds"]
    assert 0 <= int(random[0]) < 2**32


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "owl", "stepz": 7}, "stepz"),
        ({"prompt": "owl", "num_inference_steps": 0}, "step"),
        ({"prompt": "owl", "num_inference_steps": 7.5}, "num_inference_steps"),
        ({"prompt": "owl", "seed": "-1"}, "seed"),
        ({"prompt": "owl", "seed": "seven"}, "seed"),
        ({"prompt": "owl", "num_images_per_prompt": 101}, "101"),
        ({"prompt": "owl", "scheduler": "magic"}, "magic"),
        ({"prompt": "owl", "strength": 0.5}, "strength"),
        ({"prompt": "owl" * 4000}, "prompt"),
        ({"prompt": "owl", "image": "http://127.0.0.1/x.png"}, "link"),
        ({"prompt": "owl", "image": "file:///etc/passwd"}, "link"),
        ({"prompt": "owl", "image": "%%%"}, "base64"),
        ({"prompt": "owl", "image": base64.b64encode(b"GIF89a").decode()}, "picture"),
        ([], "object"),
    ],
)
def test_bad_requests_are_400_and_name_the_value(served, body, named):
    answer = served.ask("POST", "/api/v1/jobs", json=body)
    assert answer.status_code == 400, answer.text
    error = msgspec.convert(answer.json(), ErrorShape).error
    assert named in error.message
    assert error.type == "invalid_request_error"
    assert served.get("/api/v1/jobs") == {"jobs": []}


def test_an_unknown_bundle_job_or_picture_is_404(served):
    nobody = "0" * 32
    assert served.ask("POST", "/api/v1/jobs", json={"prompt": "owl", "bundle": "three"}).status_code == 404
    for path in (f"/api/v1/jobs/{nobody}", f"/api/v1/pictures/{nobody}", "/api/v1/pictures/..%2f..%2fetc", "/nowhere"):
        answer = served.ask("GET", path)
        assert answer.status_code == 404
        msgspec.convert(answer.json(), ErrorShape)
    assert served.ask("DELETE", f"/api/v1/pictures/{nobody}").status_code == 404


def test_a_job_is_cancelled_after_the_call_under_way_or_before_it_began(served):
    served.gate.open = False
    asked = {"prompt": "owl", "num_images_per_prompt": 8}
    first, second = (served.post("/api/v1/jobs", asked)["id"] for _ in range(2))
    until(lambda: served.get(f"/api/v1/jobs/{first}")["status"] == "generating")
    assert served.get(f"/api/v1/jobs/{second}")["queue_position"] == 1
    assert served.ask("DELETE", f"/api/v1/jobs/{second}").json()["status"] == "cancelled"
    served.ask("DELETE", f"/api/v1/jobs/{first}")
    served.gate.left = 1
    assert served.ended(first)["status"] == "cancelled"
    assert served.gate.calls == 1
    assert served.ask("DELETE", f"/api/v1/jobs/{first}").json()["status"] == "cancelled"  # does nothing
    assert served.get("/api/v1/pictures") == {"pictures": [], "next": None}


def test_cancelling_keeps_what_is_drawn(served):
    served.gate.open = False
    job = served.post("/api/v1/jobs", {"prompt": "owl", "num_images_per_prompt": 8, "seed": 1})["id"]
    served.gate.left = 4 + 1  # four calls draw four pictures
    until(lambda: len(served.get(f"/api/v1/jobs/{job}")["pictures"]) == 4 and served.gate.left == 0)
    served.ask("DELETE", f"/api/v1/jobs/{job}")
    served.gate.left = 1
    ended = served.ended(job)
    assert ended["status"] == "cancelled"
    assert [picture["seed"] for picture in ended["pictures"]] == ["1", "2", "3", "4"]


def test_pictures_are_paged_and_deleted(served):
    job = served.post("/api/v1/jobs", {"prompt": "owl", "num_images_per_prompt": 5})["id"]
    drawn = [picture["id"] for picture in served.ended(job)["pictures"]]
    page = served.get("/api/v1/pictures?limit=3")
    msgspec.convert(page, PicturesShape)
    rest = served.get(f"/api/v1/pictures?limit=3&before={page['next']}")
    assert [one["id"] for one in page["pictures"] + rest["pictures"]] == drawn[::-1]
    assert rest["next"] is None
    assert served.ask("DELETE", f"/api/v1/pictures/{drawn[0]}").status_code == 204
    assert not (served.studio.gallery.folder / f"{drawn[0]}.png").exists()
    assert served.ask("GET", f"/api/v1/pictures/{drawn[0]}").status_code == 404
    assert served.ask("GET", "/api/v1/pictures?limit=0").status_code == 400


def test_a_job_lists_no_picture_that_was_deleted(served):
    """Neither while it is drawn nor afterwards: a page would show a picture that is gone."""
    served.gate.open = False
    job = served.post("/api/v1/jobs", {"prompt": "owl", "num_images_per_prompt": 8, "seed": 1})["id"]
    served.gate.left = 4  # calls draw four pictures
    gone = until(lambda: served.get(f"/api/v1/jobs/{job}")["pictures"])[0]
    served.ask("DELETE", gone["url"])
    assert gone not in served.get(f"/api/v1/jobs/{job}")["pictures"]
    served.gate.open = True
    assert [one["seed"] for one in served.ended(job)["pictures"]] == [str(seed) for seed in range(2, 9)]


def test_pictures_survive_the_server(serving):
    first = serving()
    job = first.ended(first.post("/api/v1/jobs", {"prompt": "owl"})["id"])
    (first.studio.gallery.folder / "notes.png").write_bytes(b"of somebody else")
    picture = job["pictures"][0]
    found = serving().get("/api/v1/pictures")["pictures"]
    assert [(one["id"], one["options"]) for one in found] == [(picture["id"], picture["options"])]


def test_a_picture_that_another_server_deleted_is_not_listed(serving):
    """Two may share a folder of pictures."""
    first = serving()
    picture = first.ended(first.post("/api/v1/jobs", {"prompt": "owl"})["id"])["pictures"][0]
    assert serving().ask("DELETE", picture["url"]).status_code == 204
    assert first.get("/api/v1/pictures")["pictures"] == []
    assert first.ask("GET", picture["url"]).status_code == 404


def test_parameters_are_read_from_a_picture(served):
    picture = served.ended(served.post("/api/v1/jobs", {"prompt": "an owl", "seed": "7"})["id"])["pictures"][0]
    file = served.ask("GET", picture["url"]).content
    found = served.post("/api/v1/parameters", {"image": base64.b64encode(file).decode()})
    assert found["options"] == {**picture["options"], "num_images_per_prompt": 1}
    assert (found["bundle"], found["edited"]) == ("one", False)
    plain = base64.b64encode(_plain_png()).decode()
    assert served.ask("POST", "/api/v1/parameters", json={"image": plain}).status_code == 404


def test_tokens_are_counted(served):
    found = served.post("/api/v1/tokens", {"prompt": "a red fox " * 3})
    assert found == {"count": 9, "limit": 6, "used": 6, "cut": "a red fox "}


def test_bundles_are_described(served):
    found = msgspec.convert(served.get("/api/v1/bundles"), BundlesShape)
    assert [(one.name, one.width, one.scheduler, one.num_inference_steps) for one in found.bundles] == [
        ("one", 32, "ddim", 4),
        ("two", 32, "ddim", 4),
    ]
    assert {"euler_karras": "Euler Karras"}.items() <= {one.name: one.label for one in found.samplers}.items()


def test_events_begin_with_everything_and_tell_the_rest(served):
    """Every job's last state, every picture, and the newest progress arrive; ``bye`` ends the stream."""

    async def listen():
        stream = stream_of(served.studio, lambda: {"jobs": []})
        events = aiter(stream.events)
        first = await anext(events)
        job = await asyncio.to_thread(served.post, "/api/v1/jobs", {"prompt": "owl"})
        seen = [first]
        async for event in events:
            seen.append(event)
            if b"event: job" in event and b'"status":"completed"' in event:
                await asyncio.to_thread(served.studio.stop, 20)
        return job, [_parsed(event) for event in seen]

    job, seen = asyncio.run(listen())
    names = [name for name, _ in seen]
    assert names[0] == "hello"
    assert names[-1] == "bye"
    assert {"job", "progress", "preview", "picture", "bundle"} <= set(names)
    last = [data for name, data in seen if name == "job"][-1]
    assert (last["id"], last["status"], len(last["pictures"])) == (job["id"], "completed", 1)


def _parsed(event: Any) -> tuple[str, Any]:
    name, data = event.decode().strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def _plain_png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()


def test_what_was_not_finished_is_listed_by_the_next_start_and_drawn_on_request(serving):
    """Stopped while it draws, or killed: nothing is drawn again by itself."""
    first = serving()
    first.gate.open = False
    image = base64.b64encode(_plain_png()).decode()
    lost = [first.post("/api/v1/jobs", {"prompt": "owl", "image": image, "seed": seed}) for seed in (None, "8")]
    done = first.studio.journal
    until(lambda: first.get(f"/api/v1/jobs/{lost[0]['id']}")["status"] == "generating")
    assert not first.studio.stop(0.05)  # the engine hangs, as in a process that is killed
    waiting = first.studio.gallery.folder / "waiting"
    (waiting / f"{'0' * 32}.json").write_bytes(b"half a requ")
    (waiting / f"{'1' * 32}.json").write_bytes(
        b'{"prompt": "owl", "num_images_per_prompt": 99999999999}'
    )  # none of ours
    second = serving()
    told = []
    second.studio.hub.publish = lambda name, _key, data, _job=None: told.append((name, data))
    listed = second.get("/api/v1/jobs")["jobs"]
    assert {job["id"]: (job["status"], job["seeds"]) for job in listed} == {
        job["id"]: ("interrupted", job["seeds"]) for job in lost
    }
    again = second.ask("POST", f"/api/v1/jobs/{lost[0]['id']}/retry").json()
    assert again["seeds"] == lost[0]["seeds"]
    assert (lost[0]["id"], "cancelled") in {
        (data.id, data.status) for name, data in told if name == "job"
    }  # off all pages
    assert second.ended(again["id"])["pictures"][0]["drawn_by"]["edited"] is not None
    assert second.ask("DELETE", f"/api/v1/jobs/{lost[1]['id']}").json()["status"] == "cancelled"
    assert second.ask("POST", f"/api/v1/jobs/{lost[1]['id']}/retry").status_code == 404
    until(lambda: set(done.left()) <= {"0" * 32, "1" * 32})
    second.studio.stop(20)
    assert serving().get("/api/v1/jobs") == {"jobs": []}


def test_what_two_tabs_draw_again_at_once_is_drawn_once(serving):
    first = serving()
    first.gate.open = False
    lost = first.post("/api/v1/jobs", {"prompt": "owl"})["id"]
    until(lambda: first.studio.worker.current)
    assert not first.studio.stop(0.05)
    second = serving(queue=1)
    second.gate.open = False
    fillers = [second.post("/api/v1/jobs", {"prompt": "owl"})["id"]]
    until(lambda: second.studio.worker.current)
    fillers.append(second.post("/api/v1/jobs", {"prompt": "owl"})["id"])
    assert second.ask("POST", f"/api/v1/jobs/{lost}/retry").status_code == 429
    assert second.get(f"/api/v1/jobs/{lost}")["status"] == "interrupted"  # it can be asked for later
    second.gate.open = True
    for job in fillers:
        second.ended(job)
    together = threading.Barrier(2)
    submit = second.studio.submit

    def slow(*arguments):
        with suppress(threading.BrokenBarrierError):
            together.wait(0.3)
        return submit(*arguments)

    second.studio.submit = slow
    with ThreadPoolExecutor(2) as tabs:
        answers = tabs.map(lambda _: second.ask("POST", f"/api/v1/jobs/{lost}/retry").status_code, range(2))
        assert sorted(answers) == [202, 404]


def test_servers_that_share_a_folder_leave_each_others_jobs_alone(serving):
    """Two of them list each other's pictures after a restart, and no job that the other still draws."""
    first = serving()
    first.gate.open = False
    job = first.post("/api/v1/jobs", {"prompt": "owl"})["id"]
    second = serving()
    assert second.get("/api/v1/jobs") == {"jobs": []}
    second.gate.open = False
    other = second.post("/api/v1/jobs", {"prompt": "owl"})["id"]
    for server in (first, second):
        until(lambda server=server: server.studio.worker.current)  # type: ignore[misc]
        assert not server.studio.stop(0.05)
    assert {one["id"] for one in serving().get("/api/v1/jobs")["jobs"]} == {job, other}
    assert not (first.studio.gallery.folder / "waiting-2").exists()


def test_a_folder_that_is_deleted_is_made_again(served):
    shutil.rmtree(served.studio.gallery.folder)
    job = served.post("/api/v1/jobs", {"prompt": "owl"})
    ended = served.ended(job["id"])
    assert ended["status"] == "completed"
    assert served.ask("GET", ended["pictures"][0]["url"]).status_code == 200
