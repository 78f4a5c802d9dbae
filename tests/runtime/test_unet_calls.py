"""Cheaper steps as a plan: which calls are whole and guided, what presets mean, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.cli import generate
from nano_runtime.drawing.plan import shortcuts_of
from nano_runtime.errors import IntervalError, ManifestError, NoShortcutError, OptionError
from nano_runtime.networks.unet_calls import EXACT, Shortcuts, plan_calls
from nano_runtime.options import DrawOptions
from nano_runtime.sampling.forecast import Forecast

BALANCED = {"cache_interval": 2, "guidance_interval": [0.0, 0.9], "work": 0.5, "fidelity": {"image_psnr_db": 30.0}}


def edit(folder: Path, change) -> None:
    """Change the manifest as JSON."""
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    change(document)
    (folder / MANIFEST_NAME).write_text(json.dumps(document))


def add_shallow(document) -> None:
    """Give the bundle a shallow UNet over the whole one's files, and a preset."""
    unet = document["components"]["unet"]
    feature = {"name": "deep_feature", "dtype": "float32", "shape": ["batch", 4]}
    unet["outputs"].append(feature)
    inputs = [unet["inputs"][0], feature]
    document["components"]["unet_shallow"] = {**unet, "inputs": inputs, "outputs": [unet["outputs"][0]]}
    document["presets"] = {"balanced": dict(BALANCED)}


@pytest.fixture
def caching(folder) -> Path:
    edit(folder, add_shallow)
    return folder


def resolve(bundle: Bundle, quality, cache_interval, guidance_interval) -> Shortcuts:
    """What the options of a call leave out."""
    options = DrawOptions(quality=quality, cache_interval=cache_interval, guidance_interval=guidance_interval)
    return shortcuts_of(options, bundle)


def drawn(shortcuts: Shortcuts, calls: int, *, guided: bool = True) -> str:
    """One letter for each call: w and s for whole and shallow, in capitals with guidance."""
    letters = ["w" if call.whole else "s" for call in plan_calls(calls, shortcuts, guided=guided)]
    return "".join(
        letter.upper() if call.guided else letter
        for letter, call in zip(letters, plan_calls(calls, shortcuts, guided=guided), strict=True)
    )


@pytest.mark.parametrize(
    ("interval", "guidance", "expected"),
    [
        (1, (0, 1), "WWWWWWWWWW"),
        (2, (0, 1), "WSWSWSWSWS"),
        (4, (0, 1), "WSSSWSSSWS"),
        (99, (0, 1), "WSSSSSSSSS"),
        (1, (0, 0.5), "WWWWWwwwww"),
        (1, (0.25, 0.79), "wwWWWWWwww"),  # 2.5 and 7.9 rounded down
        (1, (0.5, 0.5), "wwwwwwwwww"),
        (3, (0, 0.5), "WSSWSswssw"),
        (3, (0.2, 1), "wsWWSSWSSW"),  # the third call begins guidance: of the negative prompt nothing is known yet
    ],
)
def test_calls_are_planned(interval, guidance, expected):
    assert drawn(Shortcuts(interval, guidance), 10) == expected
    assert drawn(Shortcuts(interval, (0, 1)), 10, guided=False).isupper() is False


def test_a_forecast_goes_on_in_a_straight_line():
    """Against the line itself; a bent curve is the control."""
    slope = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
    straight, bent = Forecast(), Forecast()
    for timestep in (900.0, 700.0):
        straight.learn(timestep, slope * np.float32(timestep))
        bent.learn(timestep, slope * np.float32(timestep**2))
    np.testing.assert_allclose(straight.at(600.0, 2), slope * 600, rtol=1e-6)
    np.testing.assert_allclose(straight.at(600.0, 1), slope[1:] * 600, rtol=1e-6)
    assert not np.allclose(bent.at(600.0, 2), slope * 600**2, rtol=1e-2)


def test_without_a_direction_the_last_feature_is_taken():
    one, two = np.ones((4, 3), np.float32), np.full((4, 3), 2, np.float32)
    forecast = Forecast()
    forecast.learn(900.0, one[2:])
    np.testing.assert_array_equal(forecast.at(800.0, 2), one[2:])
    forecast.learn(700.0, two)
    np.testing.assert_array_equal(forecast.at(500.0, 4), two)  # only half of the rows were known before
    np.testing.assert_array_equal(forecast.at(500.0, 2), np.full((2, 3), 3))
    forecast.learn(700.0, one)
    np.testing.assert_array_equal(forecast.at(500.0, 4), one)  # two calls at one timestep


def test_presets_mean_what_the_manifest_says(caching):
    bundle = Bundle.open(caching)
    assert resolve(bundle, None, None, None) == resolve(bundle, "exact", None, None) == EXACT
    assert resolve(bundle, "balanced", None, None) == Shortcuts(2, (0.0, 0.9))
    assert resolve(bundle, "balanced", 5, None) == Shortcuts(5, (0.0, 0.9))
    assert resolve(bundle, "balanced", None, (0, 1)) == Shortcuts(2, (0.0, 1.0))
    assert resolve(bundle, None, 3, [0.5, 0.75]) == Shortcuts(3, (0.5, 0.75))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("best", None, None), OptionError),
        (("fast", None, None), NoShortcutError),  # this bundle has balanced only
        ((None, 0, None), OptionError),
        ((None, 2.5, None), OptionError),
        ((None, None, (0.8, 0.1)), IntervalError),
        ((None, None, (-0.1, 1)), IntervalError),
        ((None, None, (0, 1.1)), IntervalError),
        ((None, None, (0, float("nan"))), IntervalError),
        ((None, None, (0.5,)), IntervalError),
        ((None, None, ("a", "b")), IntervalError),
        ((None, None, 0.5), IntervalError),
    ],
)
def test_what_cannot_be_used_is_refused(caching, arguments, error):
    with pytest.raises(error):
        resolve(Bundle.open(caching), *arguments)


def test_a_bundle_without_a_shallow_unet_draws_exactly_or_says_so(folder):
    bundle = Bundle.open(folder)
    assert resolve(bundle, "exact", 1, (0.2, 0.8)) == Shortcuts(1, (0.2, 0.8))
    for quality, interval in ((None, 2), ("balanced", None)):
        with pytest.raises(NoShortcutError, match="bundle"):
            resolve(bundle, quality, interval, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["components"].pop("unet_shallow"),
        lambda document: document["components"]["unet_shallow"]["graphs"].pop("openvino"),
        lambda document: document["components"]["unet_shallow"]["inputs"][1].update(name="other"),
        lambda document: document["presets"]["balanced"].update(cache_interval=0),
        lambda document: document["presets"]["balanced"].update(guidance_interval=[0.9, 0.1]),
        lambda document: document["presets"]["balanced"].update(guidance_interval=[0.0, 1.5]),
        lambda document: document["presets"].update(sloppy=BALANCED),
    ],
    ids=["no-graph", "not-for-an-engine", "unfed-input", "never-whole", "backwards", "beyond", "unknown-name"],
)
def test_a_manifest_whose_presets_cannot_be_drawn_is_refused(caching, change):
    Bundle.open(caching)
    edit(caching, change)
    with pytest.raises(ManifestError):
        Bundle.open(caching)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quality", "fast"], "preset 'fast'"),
        (["--cache-interval", "0"], "--cache-interval 0"),
        (["--guidance-interval", "0.8:0.1"], "(0.8, 0.1)"),
        (["--guidance-interval", "half"], "'half'"),
        (["--guidance-interval", "0:1:2"], "'0:1:2'"),
    ],
)
def test_the_command_says_what_is_wrong_and_writes_nothing(caching, tmp_path, capsys, options, words):
    place = tmp_path / "place"
    place.mkdir()
    assert generate.main(["a fox", "--bundle", str(caching), "-o", str(place), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, list(place.iterdir())) == ("", [])
    assert words in err
    assert len(err.splitlines()) == 2
