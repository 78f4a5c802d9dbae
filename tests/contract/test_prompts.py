"""Weighted and long prompts against A1111's arithmetic in torch: what the UNet attends to, and whole pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tests.results import arrays

from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.bundle.folder import Bundle
from nano_runtime.cli import generate
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import LongPromptError
from nano_runtime.networks.conditioning import Conditioner, UNetInputs
from nano_runtime.networks.tokenizer import Reading
from nano_runtime.pictures.png import read_parameters
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.processors import usable_cores
from nano_runtime.system.timing import Stopwatch

# Of the largest number. Engines sum in another order than torch; in pictures, guidance magnifies that in every call.
TOLERANCE, PICTURE_TOLERANCE = 1e-5, 1e-4
# What every deliberate mistake must exceed.
MISTAKE, PICTURE_MISTAKE = 100 * TOLERANCE, 100 * PICTURE_TOLERANCE
ROOM = 75
STEPS, SEED, NEGATIVE = 6, 7, "blurry"
Sections = list[list[tuple[str, float]]]

# The small tokenizer has hardly more than letters: these are two chunks.
LONG = (
    "an otter with a hat in the rain at night beside the harbour of an old town in the north, and a red fox in the "
    "snow under the lantern of a lighthouse"
)
BOTH = Reading(weighted=True, long=True)
# The prompt, and by hand what A1111 makes of it.
CASES: dict[str, Sections] = {
    "a (red:1.5) fox, [snow]": [[("a ", 1.0), ("red", 1.5), (" fox, ", 1.0), ("snow", 1 / 1.1)]],
    "a ((red)) fox:(0.5)": [[("a ", 1.0), ("red", 1.1 * 1.1), (" fox:", 1.0), ("0.5", 1.1)]],
    LONG: [[(LONG, 1.0)]],
    f"a [fox] BREAK ({LONG}:1.2) at sea": [[("a ", 1.0), ("fox", 1 / 1.1)], [(LONG, 1.2), (" at sea", 1.0)]],
}
LAST = list(CASES)[-1]


@dataclass
class Original:
    """Diffusers' pipeline with prompts as A1111 encodes them."""

    pipeline: StableDiffusionPipeline

    @torch.no_grad()
    def chunk(self, words: list[tuple[int, float]], *, restored: bool = True) -> torch.Tensor:
        """Hidden states [1, 77, D] of up to 75 tokens with their weights, the mean of the whole restored."""
        tokenizer, filling = self.pipeline.tokenizer, ROOM - len(words)
        ids = [tokenizer.bos_token_id, *(word for word, _ in words), tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * filling
        hidden = self.pipeline.text_encoder(torch.tensor([ids])).last_hidden_state
        weights = torch.tensor([1.0, *(weight for _, weight in words), 1.0, *[1.0] * filling])
        weighted = hidden * weights[None, :, None]
        return weighted * (hidden.mean() / weighted.mean()) if restored else weighted

    def chunks(self, sections: Sections, *, restored: bool = True) -> list[torch.Tensor]:
        """The hidden states of a prompt, 75 tokens at a time; each section starts anew."""
        found = []
        for section in sections:
            words = [
                (token, weight)
                for text, weight in section
                for token in self.pipeline.tokenizer(text, add_special_tokens=False).input_ids
            ]
            found += [self.chunk(words[at : at + ROOM], restored=restored) for at in range(0, len(words), ROOM)]
        return found

    def draw(self, prompt: list[torch.Tensor], negative: list[torch.Tensor]) -> np.ndarray:
        """Final latents of the checkpoint's own sampler."""
        return self.pipeline(
            prompt_embeds=torch.cat(prompt, 1),
            negative_prompt_embeds=torch.cat(negative, 1),
            height=128,
            width=128,
            num_inference_steps=STEPS,
            guidance_scale=7.5,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="latent",
        ).images.numpy()


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


ENGINES = ("onnxruntime", pytest.param("openvino", marks=pytest.mark.slow))  # it compiles each graph for seconds


@pytest.fixture(scope="module")
def sd1_original(sd1_checkpoint) -> Original:
    pipeline = StableDiffusionPipeline.from_pretrained(sd1_checkpoint, safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return Original(pipeline)


@pytest.fixture(scope="module")
def tiny_original() -> Original:
    return Original(diffusers_pipeline(builtin.build("tiny")))


@pytest.fixture(scope="module", params=ENGINES)
def backend(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def conditioned(sd1, backend) -> Iterator[Conditioned]:
    stages = LoadedGraphs(Bundle.open(sd1), backend, EngineOptions(threads=usable_cores(), precision="f32"))
    yield Conditioned(Conditioner(stages.bundle), stages)
    stages.close()


@dataclass(frozen=True)
class Conditioned:
    """A conditioner and the graphs it runs."""

    conditioner: Conditioner
    graphs: LoadedGraphs

    def texts(self, prompts: list[str], reading: Reading, watch: Stopwatch | None = None) -> dict[str, UNetInputs]:
        runner = self.graphs.timed(Stopwatch() if watch is None else watch)
        encoded = self.conditioner.encode(runner, self.conditioner.read(prompts, reading))
        return self.conditioner.project(runner, encoded, 1.0)

    def hidden_states(self, prompt: str, reading: Reading) -> np.ndarray:
        """In the standard form, the UNet's input of a prompt is the hidden states themselves."""
        return self.texts([prompt], reading)[prompt]["encoder_hidden_states"]


@pytest.mark.parametrize("prompt", CASES)
def test_the_unet_attends_to_what_a1111_computes(conditioned, sd1_original, prompt):
    chunks = sd1_original.chunks(CASES[prompt])
    actual = conditioned.hidden_states(prompt, BOTH)
    assert distance(actual, torch.cat(chunks, 1).numpy()) < TOLERANCE
    assert len(chunks) == {LONG: 2, LAST: 3}.get(prompt, 1)
    if len(chunks) > 1:  # negative controls
        assert distance(actual, torch.cat(chunks[::-1], 1).numpy()) > MISTAKE
        assert distance(actual[:, : ROOM + 2], chunks[0].numpy()) < TOLERANCE
    if any(weight != 1 for section in CASES[prompt] for _, weight in section):
        off = sd1_original.chunks(CASES[prompt], restored=False)
        assert distance(actual, torch.cat(off, 1).numpy()) > MISTAKE
        plain = [[(text, 1.0) for text, _ in section] for section in CASES[prompt]]
        assert distance(actual, torch.cat(sd1_original.chunks(plain), 1).numpy()) > MISTAKE


def test_shorter_prompts_go_on_with_the_empty_text(conditioned, sd1_original):
    known = conditioned.texts([LAST, NEGATIVE], BOTH)
    chunks = len(sd1_original.chunks(CASES[LAST]))
    expected = [*sd1_original.chunks([[(NEGATIVE, 1.0)]]), *[sd1_original.chunk([])] * (chunks - 1)]
    actual = known[NEGATIVE]["encoder_hidden_states"]
    assert distance(actual, torch.cat(expected, 1).numpy()) < TOLERANCE
    repeated = [expected[0]] * chunks
    assert distance(actual, torch.cat(repeated, 1).numpy()) > MISTAKE


def test_what_is_remembered_depends_on_how_it_was_read(conditioned):
    """The same text, read in four ways and back: only chunks that were not computed yet run the text encoder."""
    prompt = f"a (fox) {LONG}"
    readings = [Reading(weighted=weighted, long=long) for weighted in (False, True) for long in (False, True)]
    first = [conditioned.hidden_states(prompt, reading) for reading in readings]
    for index, (reading, expected) in enumerate(zip(readings, first, strict=True)):
        watch = Stopwatch()
        again = conditioned.texts([prompt], reading, watch)[prompt]["encoder_hidden_states"]
        np.testing.assert_array_equal(again, expected)
        assert "text_encoder" not in watch.timings().run_ms
        others = [other for other in first[:index] if other.shape == again.shape]
        assert all(distance(again, other) > MISTAKE for other in others)
    np.testing.assert_array_equal(first[1][:, : ROOM + 2], first[0])  # the first chunk of the long one


@pytest.mark.parametrize("model", ["tiny", "sd1"])
def test_pictures_of_long_prompts_are_those_of_diffusers(model, backend, request):
    """Keys and values in a row (``tiny``, hoisted), and hidden states (``sd1``, standard)."""
    original: Original = request.getfixturevalue(f"{model}_original")
    bundle = request.getfixturevalue({"tiny": "fp32", "sd1": "sd1"}[model])
    prompt, weighted = (LONG, False) if model == "tiny" else (LAST, True)  # tiny has no mean
    pipe = Pipeline.from_pretrained(bundle, backend)

    def draw(*, long_prompts: bool) -> np.ndarray:
        options: dict[str, Any] = {"negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": 7.5}
        options |= {"seed": SEED, "scheduler": "pndm", "output_type": "latent"}
        return arrays(pipe(prompt, prompt_weighting=weighted, long_prompts=long_prompts, **options))

    cond = original.chunks(CASES[prompt], restored=weighted)
    uncond = original.chunks([[(NEGATIVE, 1.0)]], restored=weighted)
    uncond += [original.chunk([], restored=weighted)] * (len(cond) - 1)
    expected = original.draw(cond, uncond)
    assert np.isfinite(expected).all()
    assert distance(draw(long_prompts=True), expected) < PICTURE_TOLERANCE
    assert distance(draw(long_prompts=False), expected) > PICTURE_MISTAKE
    assert distance(draw(long_prompts=False), original.draw(cond[:1], uncond[:1])) < PICTURE_TOLERANCE
    assert distance(original.draw(cond, [uncond[0]] * len(cond)), expected) > PICTURE_MISTAKE
    pipe.close()


def test_a_short_prompt_is_the_same_picture_with_long_ones_allowed(int8):
    pipe = Pipeline.from_pretrained(int8, "onnxruntime")
    options: dict[str, Any] = {"seed": SEED, "num_inference_steps": 2, "output_type": "latent"}
    plain = arrays(pipe("a fox", **options))
    np.testing.assert_array_equal(pipe("a fox", long_prompts=True, **options).images, plain)
    assert distance(arrays(pipe(f"a fox {LONG}", long_prompts=True, **options)), plain) > PICTURE_MISTAKE
    pipe.close()


@pytest.fixture
def older(fp32, tmp_path) -> Path:
    """A bundle as earlier exporters described it: the UNet attends to one chunk."""
    copy = Path(shutil.copytree(fp32, tmp_path / "older"))
    text = (copy / "manifest.json").read_text().replace('"tokens"', "77")
    (copy / "manifest.json").unlink()  # it is a link
    (copy / "manifest.json").write_text(json.dumps({**json.loads(text), "format_version": 1}))
    return copy


def test_a_bundle_of_one_chunk_says_so(older, fp32):
    pipe = Pipeline.from_pretrained(older, "onnxruntime")
    with pytest.raises(LongPromptError, match=r"fills 2 chunks, and the graphs in .*older take one"):
        pipe(LONG, long_prompts=True)
    assert Pipeline.from_pretrained(fp32, "onnxruntime")(
        LONG, long_prompts=True, num_inference_steps=1, output_type="latent"
    ).seeds  # negative control


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder, and the current one."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def run(capsys, *arguments: object) -> tuple[int, str, list[str]]:
    """``nano-generate`` in this process: exit code, stdout, and stderr without the plan."""
    code = generate.main([*map(str, arguments), "--backend", "onnxruntime", "--no-cache"])
    captured = capsys.readouterr()
    return code, captured.out, [line for line in captured.err.splitlines() if "UNet calls" not in line]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a BREAK b", "--weights", "--long-prompt"], "fills 2 chunks"),
        ([LONG, "--long-prompt"], "fills 2 chunks"),
        (["fox " * 1000, "--long-prompt"], "more than 16"),
        (["a (fox:1e5:1" + "0" * 50 + ")", "--weights"], "weights are too large"),
    ],
)
def test_prompts_that_cannot_be_drawn_leave_nothing(older, arguments, words, place, capsys):
    code, out, error = run(capsys, *arguments, "--bundle", older, "--steps", 1)
    assert (code, out) == (2, "")
    assert error[0].startswith("nano-generate: ")
    assert words in error[0]
    assert len(error) == 2
    assert list(place.iterdir()) == []


def test_tokens_are_counted_without_drawing(fp32, place, capsys):
    prompt = "a " * 74 + "(b):2 [d]"
    cases = {
        (): (82, 75, 75, 1, "b):2 [d]"),
        ("--weights",): (78, 75, 75, 1, ":2 d"),
        ("--weights", "--long-prompt"): (78, 78, 150, 2, ""),
    }
    for options, expected in cases.items():
        code, out, error = run(capsys, prompt, "--bundle", fp32, "--count-tokens", "--json", *options)
        assert (code, error) == (0, [])
        assert tuple(json.loads(out).values()) == expected
    code, out, _ = run(capsys, prompt, "--bundle", fp32, "--count-tokens")
    assert (code, out) == (0, "82 tokens, room for 75 in 1 chunk\nnot used: b):2 [d]\n")
    assert list(place.iterdir()) == []


def test_a_picture_is_drawn_again_from_its_metadata(fp32, place, capsys):
    few = ["--bundle", fp32, "--steps", 2, "--seed", 3, "-o", place / "a.png"]
    code, _, error = run(capsys, LAST, *few, "--weights", "--long-prompt")
    assert (code, len(error)) == (0, 1)
    found = read_parameters(place / "a.png").options
    assert (found.prompt, found.prompt_weighting, found.long_prompts) == (LAST, True, True)
    with Image.open(place / "a.png") as image:
        drawn = np.asarray(image.convert("RGB")).astype(int)
    pipe = Pipeline.from_pretrained(fp32, "onnxruntime")

    def again(*, weighted: bool, long: bool) -> np.ndarray:
        (image,) = pipe(
            found.prompt,
            seed=found.seed,
            num_inference_steps=found.num_inference_steps,
            guidance_scale=found.guidance_scale,
            prompt_weighting=weighted,
            long_prompts=long,
        ).images
        return np.asarray(image).astype(int)

    assert np.abs(again(weighted=found.prompt_weighting, long=found.long_prompts) - drawn).max() <= 1
    for weighted, long in ((False, True), (True, False), (False, False)):
        assert np.abs(again(weighted=weighted, long=long) - drawn).max() > 5


def test_what_was_cut_is_told_with_its_words(fp32, place, capsys):
    few = ["--bundle", fp32, "--steps", 1, "-o", place / "a.png", "--force"]
    code, _, error = run(capsys, "a " * 74 + "b c d", *few)
    assert code == 0
    assert error[0] == "nano-generate: warning: of 77 tokens in the prompt, the last 2 were not used: c d"
    code, _, error = run(capsys, "a " * 74 + "b c d", *few, "--long-prompt")
    assert (code, [line for line in error if "warning" in line]) == (0, [])
