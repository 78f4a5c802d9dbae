"""A1111's progress, interrupt and skip: what is there is decoded and returned, and says so."""

from __future__ import annotations

import json
import threading
from typing import Any

from tests.serve.conftest import picture_of, until

API = "/sdapi/v1"


def test_progress_and_interrupt(served):
    """Interrupted, what is there is decoded and returned; SillyTavern sends no body."""
    idle = served.get(f"{API}/progress")
    assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0, 0, None)
    served.gate.open = False
    answers = []
    body = {"prompt": "owl", "seed": 7, "steps": 6, "width": 64, "height": 64, "batch_size": 6}
    thread = threading.Thread(target=lambda: answers.append(served.post(f"{API}/txt2img", body)))
    thread.start()
    until(lambda: served.get(f"{API}/progress")["state"]["job_count"] == 1)
    served.gate.left = 2
    running = until(lambda: one if (one := served.get(f"{API}/progress"))["state"]["sampling_step"] == 2 else None)
    assert 0 < running["progress"] < 1
    assert picture_of(running["current_image"]).size == (32, 32)
    assert served.get(f"{API}/progress?skip_current_image=true")["current_image"] is None
    until(lambda: served.gate.waiting)  # in its third call, after which it stops
    assert served.ask("POST", f"{API}/interrupt", content=b"").json() == {}
    served.gate.left = 1
    thread.join(20)
    assert len(answers[0]["images"]) == 4
    assert served.gate.calls == 3
    note = json.loads(answers[0]["info"])["extra_generation_params"]["Note"]
    assert note == "stopped after 3 UNet calls; 4 of 6 pictures were begun"
    parameters = served.post("/api/v1/parameters", {"image": answers[0]["images"][0]})
    assert parameters["left_out"] == ["stopped after 3 UNet calls"]


def test_skipping_goes_on_with_the_next_pictures(served):
    served.gate.open = False
    answers = []
    body = {"prompt": "owl", "steps": 6, "batch_size": 5}
    thread = threading.Thread(target=lambda: answers.append(served.post(f"{API}/txt2img", body)))
    thread.start()
    until(lambda: served.get(f"{API}/progress")["state"]["job_count"] == 1)
    assert served.ask("POST", f"{API}/skip").json() is None
    served.gate.left = 1
    until(lambda: served.gate.left == 0)
    served.gate.open = True
    thread.join(20)
    assert (len(answers[0]["images"]), served.gate.calls) == (5, 1 + 6)


def test_what_had_not_begun_when_others_were_skipped_is_drawn_after_them(served):
    """A longer prompt begins after the shorter ones that share its round: its program once waited without end."""
    served.gate.open = False
    answers: dict[str, Any] = {}

    def ask(prompt):
        body = {"prompt": prompt, "seed": 3, "steps": 4}
        answers[prompt] = served.post(f"{API}/txt2img", body)

    first, short, long = "snow", "owl", "a red fox on the grass near a river"
    threads = [threading.Thread(target=ask, args=(one,)) for one in (first, short, long)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: len(served.studio.jobs()) == number)  # type: ignore[misc]
    served.gate.left = 4
    until(lambda: len(served.studio.worker.current) == 2)
    served.ask("POST", f"{API}/skip")
    served.gate.open = True
    for thread in threads:
        thread.join(20)
    notes = {one: json.loads(answers[one]["info"])["extra_generation_params"] for one in (first, short, long)}
    assert notes == {first: {}, short: {"Note": "stopped after 1 UNet call"}, long: {}}
    wanted = served.pipe(long, seed=3, num_inference_steps=4, long_prompts=True).images[0]
    assert picture_of(answers[long]["images"][0]).tobytes() == wanted.tobytes()


def test_requests_of_one_program_share_calls_and_are_interrupted_together(served):
    """Those of another wait: whoever interrupts stops no picture of theirs."""
    served.gate.open = False
    answers = {}

    def ask(name, seed):
        headers = {"user-agent": name}
        body = {"prompt": "owl", "steps": 6, "seed": seed}
        answers[name, seed] = served.post(f"{API}/txt2img", body, headers=headers)

    asked = [("first", 0), ("bot", 1), ("bot", 2), ("other", 3)]
    threads = [threading.Thread(target=ask, args=one) for one in asked]
    for thread in threads:
        before = len(served.studio.jobs())
        thread.start()
        until(lambda before=before: len(served.studio.jobs()) > before)  # type: ignore[misc]
    served.gate.left = 6
    until(lambda: len(served.studio.worker.current) == 2)
    served.ask("POST", f"{API}/interrupt")
    served.gate.left = 1
    until(lambda: ("bot", 2) in answers and ("bot", 1) in answers)
    served.gate.open = True
    for thread in threads:
        thread.join(20)
    assert served.gate.calls == 6 + 1 + 6
    left = {one: served.post("/api/v1/parameters", {"image": answers[one]["images"][0]})["left_out"] for one in asked}
    stopped = ["stopped after 1 UNet call"]
    assert left == {asked[0]: [], asked[1]: stopped, asked[2]: stopped, asked[3]: []}
