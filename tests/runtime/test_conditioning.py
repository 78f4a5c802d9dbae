"""Prompts on their way to the UNet: in chunks, weighed, computed once, and kept for the next process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.results import arrays
from tests.runtime.by_hand import conditions
from tests.runtime.fakes import FORMULAS, LENGTH, WORDS, FakeGraphs, make_bundle, pipeline_of

from nano_runtime.bundle.folder import Bundle
from nano_runtime.errors import LongPromptError, PromptError, TamperedFileError
from nano_runtime.networks.conditioning import _shown

TEN = ["a", "red", "fox", ",", "a", "blue", "owl", ",", "snow", "sea"]  # six fit a chunk
PROMPTS = ("text_encoder", "unet_prompt", "unet_time")


@pytest.fixture
def graphs(hoisted) -> FakeGraphs:
    return FakeGraphs(hoisted)


def told(graphs: FakeGraphs) -> dict[str, np.ndarray]:
    """What the UNet was told of the prompts in its last call."""
    feeds = graphs.ran("unet")[-1].feeds
    return {name: feeds[name] for name in ("key_0", "value_0")}


def ids_of(graphs: FakeGraphs) -> list[list[int]]:
    return [run.feeds["input_ids"][0].tolist() for run in graphs.ran("text_encoder")]


def assert_told(graphs: FakeGraphs, *rows: dict[str, np.ndarray]) -> None:
    """Compare with rows by hand, of which no two are alike: a row in another's place would be seen."""
    for name, values in told(graphs).items():
        expected = np.concatenate([row[name] for row in rows])
        np.testing.assert_allclose(values, expected, atol=1e-6)
        assert all(np.abs(one - other).max() > 0.1 for i, one in enumerate(expected) for other in expected[:i])


def test_a_prompt_becomes_ids_between_bos_and_eos_and_padding(graphs):
    pipeline_of(graphs)("a red 7", guidance_scale=1, output_type="latent")
    assert ids_of(graphs) == [[1, WORDS["a"], WORDS["red"], WORDS["?"], 2, 0, 0, 0]]


def test_chunks_of_a_long_prompt_lie_in_a_row_and_a_short_one_is_filled_up_with_the_empty_text(graphs):
    pipe = pipeline_of(graphs)
    pipe(" ".join(TEN), negative_prompt="blurry", long_prompts=True, output_type="latent")
    assert_told(graphs, conditions(["blurry"], []), conditions(TEN[:6], TEN[6:]))
    assert {values.shape for values in told(graphs).values()} == {(2, 5, 16), (2, 16, 5)}
    assert ("ahead", "unet", 2, 2 * LENGTH) in graphs.log
    assert len(ids_of(graphs)) == 4  # the empty chunk among them
    pipe("a red fox", negative_prompt="blurry", long_prompts=True, output_type="latent")
    assert_told(graphs, conditions(["blurry"]), conditions(["a", "red", "fox"]))


def test_pictures_of_long_prompts_in_a_group_equal_those_drawn_alone(graphs):
    pipe = pipeline_of(graphs)
    prompts = [" ".join(TEN), " ".join(reversed(TEN))]
    together = arrays(pipe(prompts, seed=7, long_prompts=True, output_type="latent"))
    for picture, prompt in enumerate(prompts):
        alone = arrays(pipe(prompt, seed=7 + picture, long_prompts=True, output_type="latent"))
        np.testing.assert_array_equal(together[picture], alone[0])
    cut = arrays(pipe(prompts[0], seed=7, output_type="latent"))
    assert np.abs(cut[0] - together[0]).max() > 0.01


def test_what_does_not_fit_is_cut_and_named_in_the_log(graphs, caplog):
    with caplog.at_level(logging.WARNING):
        pipeline_of(graphs)(" ".join(TEN), negative_prompt="blurry", output_type="latent")
    assert "of 10 tokens in the prompt, the last 4 were not used: owl , snow sea" in caplog.text
    assert_told(graphs, conditions(["blurry"]), conditions(TEN[:6]))


def test_what_was_cut_is_shown_in_whole_words_and_not_for_ever():
    prompt = "an otter in a magnificent hat"
    assert _shown(prompt, "magnificent hat") == "magnificent hat"
    assert _shown(prompt, "gnificent hat") == "…gnificent hat"
    assert _shown(prompt, prompt) == prompt
    assert _shown(prompt * 20, (prompt * 20)[2:]).endswith(" in a magnificent…")


@pytest.mark.parametrize("form", ["hoisted", "standard"])
def test_weights_multiply_hidden_states_and_keep_their_mean(form, request):
    graphs = FakeGraphs(request.getfixturevalue(form))
    pipe = pipeline_of(graphs)
    pipe("a (red:2.0) fox", prompt_weighting=True, guidance_scale=1, output_type="latent")
    ids = np.array([[1, WORDS["a"], WORDS["red"], WORDS["fox"], 2, 0, 0, 0]])
    hidden = FORMULAS["hoisted"]["text_encoder"](ids)["last_hidden_state"]
    weighed = hidden * np.array([1, 1, 2, 1, 1, 1, 1, 1])[:, np.newaxis]
    weighed *= hidden.mean() / weighed.mean()
    run = graphs.ran("unet_prompt" if form == "hoisted" else "unet")[-1]
    np.testing.assert_allclose(run.feeds["encoder_hidden_states"], weighed, rtol=1e-4, atol=1e-5)
    assert ids_of(graphs) == ids.tolist()
    pipe("a (red:2.0) fox", guidance_scale=1, output_type="latent")  # without the option the brackets are words
    assert ids_of(graphs)[-1] != ids.tolist()[0]


def test_words_that_weigh_different_are_other_prompts(graphs):
    pipe = pipeline_of(graphs)
    texts = ("a red fox", "a (red:1.5) fox", "a (red:2.0) fox")
    pictures = [
        arrays(pipe(text, seed=7, prompt_weighting=True, guidance_scale=1, output_type="latent")) for text in texts
    ]
    assert min(np.abs(pictures[i] - pictures[j]).max() for i, j in ((0, 1), (1, 2), (0, 2))) > 1e-3


def test_a_prompt_and_a_schedule_that_were_computed_are_remembered(graphs):
    pipe = pipeline_of(graphs)
    first = pipe("a red fox", seed=7, output_type="latent").images
    counted = {name: len(graphs.ran(name)) for name in PROMPTS}
    assert counted == {"text_encoder": 2, "unet_prompt": 2, "unet_time": 1}
    np.testing.assert_array_equal(pipe("a red fox", seed=7, output_type="latent").images, first)
    assert {name: len(graphs.ran(name)) for name in PROMPTS} == counted
    pipe("an owl", seed=7, output_type="latent", num_inference_steps=3)  # the empty prompt is still known
    assert {name: len(graphs.ran(name)) for name in PROMPTS} == {"text_encoder": 3, "unet_prompt": 3, "unet_time": 2}


def test_the_prompt_that_was_unused_for_longest_is_forgotten_first(graphs):
    pipe = pipeline_of(graphs)
    words = ["a", "red", "blue", "fox", "owl", "sea", "snow", "blurry"]  # as many as are remembered
    asked: dict[str, Any] = {"guidance_scale": 1, "output_type": "latent", "num_inference_steps": 1}
    for word in (*words, "a", "one", "a"):
        pipe(word, **asked)
    assert len(ids_of(graphs)) == 9
    pipe("red", **asked)
    assert len(ids_of(graphs)) == 10


def test_every_timestep_is_told_to_its_own_call(graphs):
    pipeline_of(graphs)("a red fox", output_type="latent", num_inference_steps=5)
    (table,) = graphs.ran("unet_time")
    np.testing.assert_array_equal(table.feeds["timestep"], [801, 601, 401, 201, 1])
    assert table.batch == 5
    for run, row in zip(graphs.ran("unet"), table.outputs["time_0"], strict=True):
        np.testing.assert_array_equal(run.feeds["time_0"], row[np.newaxis])


def test_the_standard_form_gets_hidden_states_and_whole_timesteps(standard):
    graphs = FakeGraphs(standard)
    pipeline_of(graphs)("a red fox", output_type="latent", scheduler="euler", num_inference_steps=3)
    assert [run.component for run in graphs.runs] == ["text_encoder"] * 2 + ["unet"] * 3
    assert [run.feeds["timestep"].tolist() for run in graphs.ran("unet")] == [[999], [499], [0]]  # of 999, 499.5 and 0


def test_the_next_process_runs_no_text_encoder_and_draws_the_same_bits(hoisted, tmp_path):
    first, second = FakeGraphs(hoisted, cache=tmp_path), FakeGraphs(hoisted, cache=tmp_path)
    drawn, again = (pipeline_of(graphs)("a red fox", seed=7, output_type="latent") for graphs in (first, second))
    np.testing.assert_array_equal(drawn.images, again.images)
    assert {run.component for run in first.runs} > set(PROMPTS)
    assert {run.component for run in second.runs} == {"unet"}
    for name, values in told(first).items():
        assert values.tobytes() == told(second)[name].tobytes()
    assert len(kept_in(tmp_path)) == 5  # hidden states, keys and values of two prompts, and a schedule


def test_nothing_is_kept_if_so_asked(hoisted, tmp_path):
    for graphs in (FakeGraphs(hoisted, cache=tmp_path), FakeGraphs(hoisted, cache=tmp_path)):
        pipeline_of(graphs, keep_prompts=False)("a red fox", output_type="latent")
        assert len(graphs.ran("text_encoder")) == 2
    assert kept_in(tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: raw[:20], lambda _: b""],
    ids=["one bit", "cut", "empty"],
)
def test_a_damaged_cache_is_computed_anew_and_mended(hoisted, tmp_path, damage):
    expected = pipeline_of(FakeGraphs(hoisted, cache=tmp_path))("a red fox", seed=7, output_type="latent").images
    for path in kept_in(tmp_path):
        path.write_bytes(damage(path.read_bytes()))
    second, third = FakeGraphs(hoisted, cache=tmp_path), FakeGraphs(hoisted, cache=tmp_path)
    for graphs in (second, third):
        drawn = pipeline_of(graphs)("a red fox", seed=7, output_type="latent").images
        np.testing.assert_array_equal(drawn, expected)
    assert {name: len(second.ran(name)) for name in PROMPTS} == {"text_encoder": 2, "unet_prompt": 2, "unet_time": 1}
    assert third.ran(*PROMPTS) == []


def test_another_bundle_or_prompt_finds_nothing_of_this_one(hoisted, tmp_path):
    cache = tmp_path / "cache"
    pipeline_of(FakeGraphs(hoisted, cache=cache))("a red fox", output_type="latent")
    other = FakeGraphs(make_bundle(tmp_path / "other", name="another"), cache=cache)
    pipeline_of(other)("a red fox", output_type="latent")
    assert len(other.ran("text_encoder")) == 2
    same = FakeGraphs(hoisted, cache=cache)
    pipeline_of(same)("a blue fox", output_type="latent")
    assert len(same.ran("text_encoder")) == 1  # the empty prompt was kept


def kept_in(cache: Path) -> list[Path]:
    return sorted((cache / "conditioning").glob("*"))


def fixed_length(bundle: Bundle, folder: Path) -> Bundle:
    """The same bundle with a UNet for one chunk, as format 1 had it."""
    components = dict(bundle.manifest.components)
    inputs = [
        msgspec.structs.replace(spec, shape=[LENGTH if size == "tokens" else size for size in spec.shape])
        for spec in components["unet"].inputs
    ]
    components["unet"] = msgspec.structs.replace(components["unet"], inputs=inputs)
    return make_bundle(folder, bundle.manifest.graph, components=components)


@pytest.mark.parametrize("form", ["hoisted", "standard"])
def test_a_bundle_of_fixed_length_takes_one_chunk(form, request, tmp_path):
    bundle = request.getfixturevalue(form)
    graphs = FakeGraphs(fixed_length(bundle, tmp_path / "fixed"))
    pipe = pipeline_of(graphs)
    asked: dict[str, Any] = {"seed": 7, "output_type": "latent", "long_prompts": True}
    expected = pipeline_of(FakeGraphs(bundle))("a red fox", **asked).images
    np.testing.assert_array_equal(pipe("a red fox", **asked).images, expected)
    assert ("ahead", "unet", 2, 1) in graphs.log  # it has no free length
    with pytest.raises(LongPromptError, match="fills 2 chunks"):
        pipe(" ".join(TEN), **asked)


def test_a_prompt_that_cannot_be_tokenized_is_refused_before_anything_loads(graphs):
    pipe = pipeline_of(graphs)
    with pytest.raises(PromptError, match="half of a pair"):
        pipe("a \ud83d fox")
    with pytest.raises(PromptError, match="17 chunks"):
        pipe(" ".join(["a"] * (16 * 6 + 1)), long_prompts=True)
    assert graphs.runs == []


def test_tokens_are_counted_without_running_anything(graphs):
    pipe = pipeline_of(graphs)
    tokens = pipe.tokenize(" ".join(TEN))
    assert (tokens.count, tokens.used, tokens.cut, tokens.ids.shape) == (10, 6, "owl , snow sea", (1, LENGTH))
    tokens = pipe.tokenize("a (red:1.5) BREAK fox", prompt_weighting=True, long_prompts=True)
    assert (tokens.count, tokens.cut, tokens.ids.shape) == (3, "", (2, LENGTH))
    assert tokens.weights[0, :4].tolist() == [1, 1, 1.5, 1]
    assert (graphs.runs, graphs.log) == ([], [])


def test_a_tokenizer_that_was_changed_is_not_used(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.path / bundle.manifest.tokenizer.file
    path.write_text(path.read_text().replace("fox", "owl", 1))
    with pytest.raises(TamperedFileError, match=r"tokenizer\.json"):
        pipeline_of(FakeGraphs(bundle))("a red fox")
