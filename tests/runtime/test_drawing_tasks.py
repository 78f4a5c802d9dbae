"""Drawing with UNets that see a picture, with formulas for graphs: inpainting and instruct-pix2pix, against by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runtime.by_hand import SHARES, Seen, conditions, draw_by_hand, timesteps_by_hand
from tests.runtime.fakes import FORMULAS, IMAGE, LATENTS, FakeGraphs, make_bundle, pipeline_of

from nano_runtime.benchmark.records import Case, Settings
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import TensorSpec
from nano_runtime.bundle.reading import write_manifest
from nano_runtime.cli import generate
from nano_runtime.cli.bundle_info import print_info
from nano_runtime.drawing.neutral import with_plain_pictures
from nano_runtime.errors import (
    ConflictError,
    ImageGuidanceError,
    ManifestError,
    NoPictureError,
    OtherTaskError,
    StrengthError,
    UsageError,
)
from nano_runtime.options import DrawOptions
from nano_runtime.pictures.png import read_parameters
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.noise import TorchGenerator

SHAPE = (1, *LATENTS)
FOX, BLURRY = conditions(["a", "red", "fox"]), conditions(["blurry"])
TOLERANCE, MISTAKE = 1e-5, 1e-2  # as in test_drawing
PIXELS = np.random.default_rng(0).integers(0, 256, (IMAGE, IMAGE, 3), dtype=np.uint8)
PHOTO = Image.fromarray(PIXELS)
WHITE = np.zeros((IMAGE, IMAGE), bool)
WHITE[3:20, :13] = True  # which ends inside of latents: they cover 8 pixels each
MASK = Image.fromarray(WHITE)
LATENT_MASK = WHITE[np.newaxis, np.newaxis, ::8, ::8].astype(np.float64)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Bundle]:
    """The formulas with more channels; see ``fakes``."""
    folder = tmp_path_factory.mktemp("tasks")
    return {task: make_bundle(folder / task, task=task) for task in ("inpainting", "instruct-pix2pix")}


@pytest.fixture
def inpainting(bundles) -> FakeGraphs:
    return FakeGraphs(bundles["inpainting"])


@pytest.fixture
def instructed(bundles) -> FakeGraphs:
    return FakeGraphs(bundles["instruct-pix2pix"])


def draw(graphs: FakeGraphs, prompt: str = "a red fox", **options: Any) -> np.ndarray:
    """The final latents of a call with a picture, and for inpainting a mask."""
    asked: dict[str, Any] = {"seed": 7, "output_type": "latent", "image": PHOTO, "negative_prompt": "blurry"}
    if graphs.bundle.manifest.task == "inpainting":
        asked["mask_image"] = MASK
    return np.asarray(pipeline_of(graphs)(prompt, **{**asked, **options}).images)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


def moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a picture's latents, which are not scaled."""
    mean, logvar = np.split(FORMULAS["hoisted"]["vae_encoder"](pixels)["latent_parameters"], 2, axis=1)
    return mean, np.exp(logvar / 2)


def sample(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A sample of a picture's latents; 0.25 is the bundle's scaling factor."""
    mean, deviation = moments(pixels)
    return 0.25 * (mean + deviation * noise)


PLAIN = PIXELS.transpose(2, 0, 1)[np.newaxis] / 255 * 2 - 1
HIDDEN = np.where(WHITE, 0, PLAIN)


def inpainted(letters: str = "WWWW", seed: int = 7, *, shift: int = 0) -> np.ndarray:
    """Inpainting by hand; from fewer than four calls on, the picture is in the start. ``shift`` makes a mistake: it
    moves the order of the channels by as many."""
    generator, steps = TorchGenerator(seed), 4
    clean = sample(PLAIN, generator.randn(SHAPE)) if len(letters) < steps else None
    noise = generator.randn(SHAPE).astype(np.float64)
    behind = np.concatenate([LATENT_MASK, sample(HIDDEN, generator.randn(SHAPE))], axis=1)
    start = noise
    if clean is not None:
        share = SHARES[timesteps_by_hand(steps)[-len(letters)]]
        start = share**0.5 * clean + (1 - share) ** 0.5 * noise
    seen = Seen(np.roll(behind, shift, axis=1))
    return draw_by_hand(start, FOX, BLURRY, scale=3.0, letters=letters, steps=steps, seen=seen)


def instructed_by_hand(letters: str = "WWWW", seed: int = 7, nearness: float = 1.5, **changes: Any) -> np.ndarray:
    """A change by an instruction, by hand: pure noise, and the mode of the picture's latents, which is not scaled."""
    start = TorchGenerator(seed).randn(SHAPE).astype(np.float64)
    arguments: dict[str, Any] = {
        "scale": 3.0,
        "letters": letters,
        "steps": 4,
        "seen": Seen(moments(PLAIN)[0], nearness),
    }
    return draw_by_hand(start, FOX, BLURRY, **{**arguments, **changes})


@pytest.mark.parametrize(("strength", "calls"), [(None, 4), (1.0, 4), (0.75, 3), (0.5, 2)])
def test_inpainting_sees_the_mask_and_the_masked_picture(inpainting, strength, calls):
    expected = inpainted("W" * calls)
    assert distance(draw(inpainting, strength=strength), expected) < TOLERANCE
    assert len(inpainting.ran("unet")) == calls
    assert len(inpainting.ran("vae_encoder")) == (1 if calls == 4 else 2)
    assert distance(inpainted("W" * calls, shift=1), expected) > MISTAKE  # channels swapped
    assert distance(draw(inpainting, strength=strength, mask_image=Image.fromarray(~WHITE)), expected) > MISTAKE


def test_the_picture_is_hidden_to_the_pixel_and_the_mask_is_seen_to_the_latent(inpainting):
    """A pixel of the mask inside of a latent hides a pixel of the picture, though the latents' mask stays the same."""
    nearly = WHITE.copy()
    nearly[1:3, 1:13] = True
    assert distance(draw(inpainting), draw(inpainting, mask_image=Image.fromarray(nearly))) > 1e-4
    np.testing.assert_array_equal(*(run.feeds["sample"][:, 4] for run in inpainting.ran("unet")[3:5]))


def test_nothing_is_put_back_where_the_mask_is_black(inpainting, hoisted):
    black = Image.new("L", (IMAGE, IMAGE))
    drawn = draw(inpainting, mask_image=black, strength=0.75)
    kept = draw(FakeGraphs(hoisted), mask_image=black, strength=0.75)  # four channels: the picture itself
    assert distance(drawn, kept) > MISTAKE


def test_an_instruction_is_guided_by_the_prompt_and_by_the_picture(instructed):
    expected = instructed_by_hand()
    assert distance(draw(instructed), expected) < TOLERANCE
    assert {len(run.feeds["sample"]) for run in instructed.ran("unet")} == {3}
    assert distance(draw(instructed, image_guidance_scale=2.5), instructed_by_hand(nearness=2.5)) < TOLERANCE
    assert distance(instructed_by_hand(nearness=2.5), expected) > MISTAKE
    mistakes = [Seen(0.25 * moments(PLAIN)[0], 1.5), Seen(moments(PLAIN)[0])]  # scaled; guided by the prompt alone
    for mistake in mistakes:
        assert distance(instructed_by_hand(seen=mistake), expected) > MISTAKE


@pytest.mark.parametrize("options", [{"guidance_scale": 1.0}, {"image_guidance_scale": 0.9}, {"guidance_scale": 0.5}])
def test_without_guidance_the_picture_is_still_seen(instructed, options):
    """Either scale turns both off, as in diffusers."""
    assert distance(draw(instructed, **options), instructed_by_hand("wwww")) < TOLERANCE
    assert {len(run.feeds["sample"]) for run in instructed.ran("unet")} == {1}


@pytest.mark.parametrize("count", [1, 3])
def test_shortcuts_draw_what_they_draw_by_hand(instructed, inpainting, count):
    asked = {"cache_interval": 2, "guidance_interval": (0, 0.5), "num_images_per_prompt": count}
    for index, picture in enumerate(draw(instructed, **asked)):
        assert distance(picture[np.newaxis], instructed_by_hand("WSws", 7 + index)) < TOLERANCE
    for index, picture in enumerate(draw(inpainting, **asked)):
        assert distance(picture[np.newaxis], inpainted("WSws", 7 + index)) < TOLERANCE
    assert distance(instructed_by_hand("WSws"), instructed_by_hand()) > MISTAKE
    late = draw(instructed, cache_interval=2, guidance_interval=(0.25, 1))
    assert distance(late, instructed_by_hand("wWWS")) < TOLERANCE


@pytest.mark.parametrize("form", ["hoisted", "standard"])
@pytest.mark.parametrize("task", ["inpainting", "instruct-pix2pix"])
def test_pictures_of_a_call_are_those_drawn_alone_also_where_memory_runs_out(tmp_path, task, form):
    bundle = make_bundle(tmp_path / "bundle", form, task=task)
    small = FakeGraphs(bundle, most_rows=4)
    together = draw(small, num_images_per_prompt=4)
    for index, picture in enumerate(together):
        assert distance(picture[np.newaxis], draw(FakeGraphs(bundle), seed=7 + index)) < TOLERANCE
    assert max(len(run.feeds["sample"]) for run in small.ran("unet")) <= 4
    assert distance(together[:1], together[1:2]) > MISTAKE


def test_latents_of_the_caller_replace_the_noise_and_no_draw_of_it(inpainting, instructed):
    mine = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    drawn = draw(instructed, latents=mine)
    by_hand = draw_by_hand(mine, FOX, BLURRY, scale=3.0, letters="WWWW", steps=4, seen=Seen(moments(PLAIN)[0], 1.5))
    assert distance(drawn, by_hand) < TOLERANCE
    first = TorchGenerator(7).randn(SHAPE)
    behind = np.concatenate([LATENT_MASK, sample(HIDDEN, first)], axis=1)
    by_hand = draw_by_hand(mine, FOX, BLURRY, scale=3.0, letters="WWWW", steps=4, seen=Seen(behind))
    assert distance(draw(inpainting, latents=mine), by_hand) < TOLERANCE
    with pytest.raises(ConflictError, match="latents and image"):
        draw(inpainting, latents=mine, strength=0.5)


def test_variations_and_noisy_samplers_follow_the_draws_of_the_picture(inpainting):
    """Noise of the sampler comes after all other draws, picture by picture."""
    one = draw(inpainting, scheduler="euler_a", strength=0.5)
    assert distance(one, draw(inpainting, scheduler="euler_a", strength=0.5, num_images_per_prompt=2)[:1]) < TOLERANCE
    varied = draw(inpainting, variation_seed=9, variation_strength=0.2)
    assert distance(varied, draw(inpainting)) > 1e-3


def test_an_encoder_without_a_variance_draws_nothing(tmp_path):
    """TAESD: its latents are the sample and the mode, and the seed's stream is one draw shorter for each."""
    bundle = make_bundle(tmp_path / "bundle", task="inpainting")
    manifest = bundle.manifest
    encoder = manifest.components["vae_encoder"]
    encoder.outputs[0] = TensorSpec(name="latents", dtype="float32", shape=["batch", *LATENTS])
    write_manifest(bundle.path, manifest)
    formulas = {"vae_encoder": lambda sample: {"latents": moments(sample)[0]}}
    graphs = FakeGraphs(Bundle.open(bundle.path), instead=formulas)
    behind = np.concatenate([LATENT_MASK, 0.25 * moments(HIDDEN)[0]], axis=1)
    noise = TorchGenerator(7).randn(SHAPE).astype(np.float64)
    by_hand = draw_by_hand(noise, FOX, BLURRY, scale=3.0, letters="WWWW", steps=4, seen=Seen(behind))
    assert distance(draw(graphs), by_hand) < TOLERANCE
    share = SHARES[timesteps_by_hand(4)[-2]]
    start = share**0.5 * 0.25 * moments(PLAIN)[0] + (1 - share) ** 0.5 * noise
    by_hand = draw_by_hand(start, FOX, BLURRY, scale=3.0, letters="WW", steps=4, seen=Seen(behind))
    drawn = draw(graphs, strength=0.5, num_images_per_prompt=2)
    assert distance(drawn[:1], by_hand) < TOLERANCE
    assert distance(drawn[:1], drawn[1:]) > MISTAKE


@pytest.mark.parametrize(
    ("task", "changes", "error", "words"),
    [
        ("inpainting", {"image": None}, NoPictureError, "for inpainting, and there is no image"),
        ("inpainting", {"mask_image": None}, NoPictureError, "there is no mask_image"),
        ("inpainting", {"image": None, "mask_image": None}, NoPictureError, "no image and no mask_image"),
        ("inpainting", {"strength": 0.1}, StrengthError, "strength 0.1 cannot be used"),
        ("inpainting", {"image_guidance_scale": 2.0}, OtherTaskError, "nothing to a bundle for inpainting"),
        ("instruct-pix2pix", {"image": None}, NoPictureError, "for instruct-pix2pix, and there is no image"),
        ("instruct-pix2pix", {"strength": 0.5}, OtherTaskError, "strength means nothing to a bundle for instruct"),
        ("instruct-pix2pix", {"mask_image": MASK}, OtherTaskError, "mask_image means nothing to a bundle for instruct"),
        ("instruct-pix2pix", {"image_guidance_scale": -0.1}, ImageGuidanceError, "scale -0.1 cannot be used"),
        ("instruct-pix2pix", {"image_guidance_scale": float("nan")}, ImageGuidanceError, "nan cannot be used"),
    ],
)
def test_what_a_bundle_cannot_draw_is_refused_in_words_before_anything_runs(bundles, task, changes, error, words):
    graphs = FakeGraphs(bundles[task])
    with pytest.raises(error, match=words) as caught:
        draw(graphs, **changes)
    assert isinstance(caught.value, UsageError)
    assert re.search(r"image|mask_image|strength|Choose a number", caught.value.hint)
    assert (graphs.runs, graphs.log) == ([], [])


def test_guidance_by_a_picture_means_nothing_to_other_bundles(hoisted):
    with pytest.raises(OtherTaskError, match="for text-to-image") as caught:
        pipeline_of(FakeGraphs(hoisted))("a red fox", image_guidance_scale=1.5)
    assert "image_guidance_scale" in caught.value.hint


@pytest.mark.parametrize("channels", [4, 8, 10])
def test_a_manifest_whose_task_has_other_channels_is_refused(tmp_path, channels):
    bundle = make_bundle(tmp_path / "bundle", task="inpainting")
    manifest = bundle.manifest
    for name in ("unet", "unet_shallow"):
        for index, spec in enumerate(manifest.components[name].inputs):
            if spec.name == "sample":
                shape = ["batch", channels, *LATENTS[1:]]
                manifest.components[name].inputs[index] = TensorSpec(name="sample", dtype="float32", shape=shape)
    write_manifest(bundle.path, manifest)
    with pytest.raises(ManifestError, match="sample"):
        Bundle.open(bundle.path)


def test_info_says_what_a_bundle_is_for(bundles, hoisted, capsys):
    for bundle, words in (
        (bundles["inpainting"], "inpainting (a prompt, --image and --mask)"),
        (bundles["instruct-pix2pix"], "and --image)"),
        (hoisted, "text-to-image"),
    ):
        print_info(bundle)
        assert words in capsys.readouterr().out


def test_benchmarks_and_trials_draw_with_plain_pictures(bundles, hoisted):
    settings = Settings("a fox", None, None, None, 1, 0, profile=False)
    for bundle in bundles.values():
        case = Case(bundle.path, "onnxruntime", "f32", 1, 2, "exact")
        result = pipeline_of(FakeGraphs(bundle))(settings.options(case, 0, bundle.manifest))
        assert len(result.seeds) == 2
    assert with_plain_pictures(DrawOptions(prompt="a fox"), hoisted.manifest) == DrawOptions(prompt="a fox")


@pytest.fixture
def run(tmp_path, monkeypatch, bundles, hoisted):
    """``nano-generate`` in a folder with a photo and a mask; its bundle is named by task."""
    PHOTO.save(tmp_path / "photo.png")
    MASK.save(tmp_path / "mask.png")
    known = {**bundles, "plain": hoisted}

    def from_pretrained(bundle: Path, *_engine: object, **_options: object) -> Pipeline:
        return pipeline_of(FakeGraphs(known[str(bundle)]))

    monkeypatch.setattr(Pipeline, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: generate.main([*map(str, arguments), "--no-cache"])


def test_a_picture_is_repeated_from_its_file_with_the_pictures_it_does_not_hold(run, capsys):
    on = ["--bundle", "instruct-pix2pix"]
    assert run("a fox", *on, "--image", "photo.png", "--image-guidance", 1.2, "-o", "a.png") == 0
    stored = read_parameters("a.png")
    assert (stored.options.image_guidance_scale, stored.options.strength) == (1.2, None)
    assert "Image CFG scale: 1.2, " in stored.as_text()
    assert run("--from", "a.png", *on, "--image", "photo.png", "-o", "b.png") == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    capsys.readouterr()
    assert run("--from", "a.png", *on, "-o", "c.png") == 2
    assert "drawn from another picture, which it does not hold" in capsys.readouterr().err


def test_a_picture_of_another_kind_of_bundle_leaves_its_own_options_behind(run, capsys):
    assert run("a fox", "--bundle", "instruct-pix2pix", "--image", "photo.png", "-o", "a.png") == 0
    assert run("--from", "a.png", "--bundle", "plain", "--image", "photo.png", "-o", "b.png") == 0
    assert "drawn with image_guidance_scale, which means nothing" in capsys.readouterr().err
    assert run("--from", "b.png", "--bundle", "instruct-pix2pix", "--image", "photo.png", "-o", "c.png") == 0
    assert "drawn with strength, which means nothing" in capsys.readouterr().err
    assert run("--from", "b.png", "--bundle", "instruct-pix2pix", "--image", "photo.png", "--strength", 0.5) == 2
    assert "strength means nothing to a bundle for instruct-pix2pix" in capsys.readouterr().err


def test_a_mask_that_hides_another_pixel_is_another_picture_to_repeat(run, capsys):
    with_mask = ["--bundle", "inpainting", "--image", "photo.png", "--mask"]
    assert run("a fox", *with_mask, "mask.png", "-o", "a.png") == 0
    nearly = WHITE.copy()
    nearly[1, 1] = True
    Image.fromarray(nearly).save("nearly.png")
    capsys.readouterr()
    assert run("--from", "a.png", *with_mask, "mask.png", "-o", "b.png") == 0
    assert "another picture or mask" not in capsys.readouterr().err
    assert run("--from", "a.png", *with_mask, "nearly.png", "-o", "c.png") == 0
    assert "another picture or mask" in capsys.readouterr().err


def test_sheets_vary_the_guidance_by_the_picture(run):
    grid = ["--grid", "image-guidance=1,1.5,2", "--grid", "guidance=1,4"]
    assert run("a fox", "--bundle", "instruct-pix2pix", "--image", "photo.png", *grid, "-o", "sheet.png") == 0
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 3 * IMAGE
