"""Every option, from Python and from a shell, given odd values: an error that names it, or the picture that was meant.

The options are those of the records and parsers themselves, so a new one is tested when it is made.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from functools import partial
from io import BytesIO, StringIO
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import IMAGE, LATENTS, FakeGraphs, pipeline_of

import nano_runtime
from nano_runtime import benchmark, save_png
from nano_runtime.cli import bench, bundle, generate
from nano_runtime.cli.grid import GRID_OPTIONS
from nano_runtime.errors import (
    MachineError,
    NanoError,
    NetworkError,
    UnknownOptionError,
    UnknownSchedulerError,
    UsageError,
)
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.sampler_names import full_name, sampler_names, split_name


class Rude:
    """A stranger's object, none of whose methods work."""

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __float__(self) -> float:
        raise ZeroDivisionError


VALUES: dict[str, Any] = {
    "true": True,
    "numpy's false": np.False_,
    "minus one": -1,
    "zero": 0,
    "a fraction": 1.9,
    "a whole float": 2.0,
    "nan": float("nan"),
    "infinite": float("inf"),
    "huge": 10**5000,
    "hugely negative": -(10**400),
    "2 to the 64": 2**64,
    "empty": "",
    "digits": "7",
    "words": "a nonsense of words",
    "Chinese": "红狐狸",
    "a text with a NUL": "a\0b",
    "half a pair": "\ud83e",
    "very long": "x" * 200_000,
    "bytes": b"7",
    "a list": [],
    "numbers": [0.25, 0.75],
    "a dictionary": {"a": 1},
    "an object": object(),
    "a rude object": Rude(),
    "a function": len,
    "a class": int,
    "a path": Path("nowhere"),
    "numpy's integer": np.int64(2),
    "numpy's float": np.float32(0.5),
    "an array": np.zeros((2, 2)),
    "an array of one": np.array(2),
    "complex": 1j,
    "a decimal": Decimal(2),
    "a share": Fraction(1, 2),
    "not a number, as Decimal has it": Decimal("sNaN"),
}
OPTIONS = [field.name for field in fields(DrawOptions)]


NAMED = {"num_inference_steps": "steps", "guidance_scale": "guidance.scale", "image_guidance_scale": "image.guidance"}
"""What messages call an option, if not by its name; a dot stands for a space or an underscore."""


def told(error: NanoError) -> str:
    """Its two lines, which have to be short and plain."""
    assert len(str(error).splitlines()) == 2
    assert len(error.what) < 1100
    assert "\0" not in str(error)
    return str(error)


def refused(call: Callable[[], object]) -> str | None:
    """Return the two lines of our error, in small letters; None if there was none."""
    try:
        call()
    except NanoError as error:
        return told(error).lower()
    return None


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_python_says_what_is_wrong_with_it_or_takes_it_for_what_it_is(hoisted, name):
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    named = NAMED.get(name, name.replace("_", "."))
    for case, value in VALUES.items():
        call = {"prompt": "a red fox", name: value}
        if (words := refused(partial(pipe.plan, **call))) is not None:
            assert re.search(f"{named}|strength|size|draws", words), (case, words)
            continue
        taken = getattr(pipe.plan(**call).options, name)
        assert case not in {"nan", "infinite", "huge", "hugely negative", "an object", "a rude object"}, case
        if name == "scheduler":
            assert taken == full_name(value)
        elif name != "latents":
            assert np.all(taken == value), case
            assert type(taken) in {str, int, float, bool, tuple, list}, case


@pytest.mark.parametrize("name", OPTIONS)
def test_odd_values_in_lists_and_iterators_are_told_too(hoisted, name):
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    named = NAMED.get(name, name.replace("_", "."))
    for case, value in VALUES.items():
        for given in ([value], ("a fox", value), iter([value]), {case: value}):
            call = {"prompt": ["a fox"] * 2, name: given}
            if (words := refused(partial(pipe.plan, **call))) is not None:
                assert re.search(f"{named}|strength|size|draws|lists", words), (case, words)
            else:
                assert all(isinstance(one, str) or float(one) == int(one) for one in [*given]), (case, given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"seed": np.int64(7)}, {"seed": 7}),
        ({"seed": 7.0}, {"seed": 7}),
        ({"num_inference_steps": 3.0}, {"num_inference_steps": 3}),
        ({"num_inference_steps": np.array(3)}, {"num_inference_steps": 3}),
        ({"guidance_scale": Decimal("2.5")}, {"guidance_scale": 2.5}),
        ({"guidance_scale": np.float32(2)}, {"guidance_scale": 2}),
        ({"prompt_weighting": np.True_}, {"prompt_weighting": True}),
        ({"prompt_weighting": np.array(True)}, {"prompt_weighting": True}),  # noqa: FBT003 - a value
        ({"negative_prompt": np.str_("snow")}, {"negative_prompt": "snow"}),
        ({"scheduler": "Euler a"}, {"scheduler": "euler_a"}),
        ({"height": float(IMAGE)}, {"height": IMAGE}),
    ],
    ids=str,
)
def test_what_notebooks_pass_is_what_they_mean(hoisted, given, meant):
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    result, expected = (pipe("a red fox", **{"seed": 1, "output_type": "np", **of}) for of in (given, meant))
    np.testing.assert_array_equal(result.images, expected.images)
    assert result.parameters == expected.parameters


def test_what_is_wrong_with_one_of_several_is_told_of_that_one(hoisted):
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    for wrong, words in (
        ({"seed": 2**64 - 2, "num_images_per_prompt": 3}, "seed 18446744073709551616 of picture 3 is out of range"),
        ({"prompt": ["a", 3]}, "it is a int, and one text is expected"),
        ({"prompt": {"a", "b"}}, "a text or a list of texts is expected"),
        ({"num_inference_steps": np.array(True)}, "num_inference_steps"),  # noqa: FBT003 - a value
        ({"negative_prompt": "\ud83e"}, "the negative prompt cannot be used: character 1 is half of a pair"),
        ({"prompt": ["a", "b"], "negative_prompt": ["", "x" * 30_000], "long_prompts": True}, "the negative prompt"),
        ({"callback_on_step_end": lambda *_: {"latents": np.full((1, *LATENTS), np.nan)}}, "latents are not finite"),
    ):
        with pytest.raises(UsageError, match=words):
            pipe(**{"prompt": "a", **wrong})


def test_a_plan_of_another_bundle_is_not_drawn(hoisted, standard):
    pipe = pipeline_of(FakeGraphs(hoisted))
    with pytest.raises(UsageError, match=r"plan=.*cannot be used\nGive a plan that a pipeline of the same bundle made"):
        next(pipeline_of(FakeGraphs(standard)).draw(pipe.plan("a red fox")))
    assert [*pipeline_of(FakeGraphs(hoisted)).draw(pipe.plan("a red fox"))]


@pytest.mark.parametrize("target", ["closed", "text", "reading"])
def test_a_file_that_takes_no_picture_is_told(tmp_path, target):
    picture = Image.new("RGB", (8, 8))
    save_png(picture, tmp_path / "a.png")
    with BytesIO() as closed:
        pass
    with (tmp_path / "a.png").open("rb") as reading:
        file: Any = {"closed": closed, "text": StringIO(), "reading": reading}[target]
        with pytest.raises(UsageError, match=r"target=.*(?s:.*)a binary file that is open for writing"):
            save_png(picture, file)
    for mode, size in (("CMYK", (8, 8)), ("F", (8, 8)), ("RGB", (0, 8))):
        with pytest.raises(UsageError, match=r"image cannot be used(?s:.*)convert"):
            save_png(Image.new(mode, size), tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


class Unreadable:
    """A tensor that numpy cannot read, as torch's of bfloat16, of another device, or with gradients."""

    shape = (1, *LATENTS)

    def __array__(self, *_arguments: object, **_options: object) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")


def test_latents_that_numpy_cannot_read_are_told(hoisted):
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    for call in (
        lambda: pipe("a fox", latents=Unreadable()),
        lambda: pipe("a fox", callback_on_step_end=lambda *_: {"latents": Unreadable()}),
    ):
        with pytest.raises(UsageError, match=r"Unreadable that numpy cannot read \(Got unsupported ScalarType"):
            call()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("steps", "num_inference_steps"), ("cfg_scale", "guidance_scale"), ("negativ_prompt", "negative_prompt")],
)
def test_an_option_that_does_not_exist_is_both_kinds_of_error_and_names_the_nearest(hoisted, name, nearest):
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    with pytest.raises(UnknownOptionError, match=nearest) as caught:
        pipe("a red fox", **{name: 3})
    assert isinstance(caught.value, (UsageError, TypeError))


def public() -> list[tuple[str, str]]:
    """Every function and method of the public face with each of its parameters; the options of a picture are above."""
    homes = {name: getattr(nano_runtime, name) for name in nano_runtime.__all__ if name != "__version__"}
    names = [name for name, home in homes.items() if inspect.isfunction(home)]
    for name, home in homes.items():
        if inspect.isclass(home) and not issubclass(home, Exception):
            names += [f"{name}.{of}" for of in vars(home) if of[0] != "_" and inspect.isroutine(getattr(home, of))]
    return [(name, parameter) for name in names for parameter in parameters(attrgetter(name)(nano_runtime))]


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Those that a caller names or counts: not the object itself, and no further keywords."""
    found = inspect.signature(function).parameters
    return {name: of for name, of in found.items() if name != "self" and of.kind is not of.VAR_KEYWORD}


@pytest.mark.parametrize(("function", "name"), public())
def test_an_argument_of_a_public_function_is_refused_by_an_error_of_ours(
    hoisted, tmp_path, monkeypatch, function, name
):
    monkeypatch.chdir(tmp_path)
    pipe = pipeline_of(FakeGraphs(hoisted))
    progress, result = pipe.stream("a red fox", num_inference_steps=1, scheduler="ddim")
    usual: dict[str, Any] = {
        "image": Image.new("RGB", (8, 8)),
        "target": "picture.png",
        "source": tmp_path,
        "prompt": "a red fox",
        "bundle": hoisted.path,
        "path": "x.png" if function == "Result.save" else hoisted.path,
        "name": "unet" if function == "Bundle.component" else "LICENSE",
        "component": "unet",
        "backend": "onnxruntime",
        "expected": hoisted.digest,
        "plan": pipe.plan("a red fox", seed=1),
        "picture": 0,
    }
    owners = {"Bundle": hoisted, "Pipeline": pipe, "Progress": progress, "Result": result}
    owner, _, method = function.rpartition(".")
    home = getattr(nano_runtime, owner) if owner else nano_runtime
    call: Callable[..., Any] = getattr(owners.get(owner, home), method)

    def called(value: object) -> None:
        known = parameters(call)
        if known[name].kind is inspect.Parameter.VAR_POSITIONAL:
            answer = call(value)
        else:
            answer = call(**{**{one: usual[one] for one in known if one in usual}, name: value})
        if inspect.isgenerator(answer):
            next(answer)

    answers = [refused(partial(called, value)) for value in VALUES.values()]
    assert len([words for words in answers if words is not None]) > len(VALUES) / 2


def test_a_folder_or_a_prompt_in_the_wrong_place_is_told_what_to_call(hoisted):
    make: Any = Pipeline
    for value in VALUES.values():
        assert "from_pretrained" in str(refused(partial(make, value, keep_loaded=True)))
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    with pytest.raises(UsageError, match="stream draws a prompt"):
        next(pipe.draw("a red fox"))


@pytest.mark.parametrize("kind", ["words", "an object", "digits", "an array", "bytes"])
def test_callbacks_and_what_they_return(hoisted, kind):
    value = VALUES[kind]
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    with pytest.raises(UsageError, match="callback_on_step_end"):
        pipe("a red fox", callback_on_step_end=value)
    with pytest.raises(UsageError, match="latents"):
        pipe("a red fox", callback_on_step_end=lambda *_: {"latents": value})
    pipe("a red fox", callback_on_step_end=lambda *_: value)  # as in diffusers, what is no dictionary changes nothing


TEXTS = (
    *("", " ", "-1", "0", "1.9", "2.0", "nan", "inf", "1e400", "9" * 5000, "-5", "0x10", "1,5", "7 8", "1:2"),
    *("x", "红狐狸", "\u0663", "\u00bd", "--", "true", "None", "\x1b[31m", "nowhere/there", "a\nb", "\udcff"),
)
COMMANDS: dict[str, Any] = {"generate": generate, "bench": bench, "bundle": bundle}


@pytest.fixture
def formulas(hoisted, tmp_path, monkeypatch) -> None:
    """An empty folder; formulas draw, whatever bundle is asked for."""
    graphs = FakeGraphs(hoisted)
    opened: Any = Pipeline.from_pretrained

    def from_pretrained(_bundle: object, *engine: Any, **options: Any) -> Pipeline:
        opened(hoisted.path, *engine, **options)  # which checks its arguments
        return pipeline_of(graphs, keep_loaded=True)

    def measured(*_arguments: object) -> None:
        raise NetworkError("all options are right", "Nothing is measured here.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Pipeline, "from_pretrained", from_pretrained)
    monkeypatch.setattr(benchmark, "measure", measured)


def arguments_of(command: str) -> list[str]:
    """The options of a command that take a value."""
    parser: Any = COMMANDS[command]._parser()  # noqa: SLF001 - so that none is forgotten
    actions = parser._all_actions()  # noqa: SLF001
    return sorted({action.option_strings[-1] for action in actions if action.option_strings and action.nargs != 0})


def check_end(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> None:
    """Require that a command did its work, or said what is wrong in two lines and in the words of the shell."""
    code = COMMANDS[command].main([*arguments])
    _, err = capsys.readouterr()
    case = (arguments, code, err)
    assert code in {0, 2, 3, MachineError.exit_code, NetworkError.exit_code}, case
    assert "Traceback" not in err, case
    if code != 0:
        lines = [line for line in err.splitlines() if "warning" not in line and "UNet calls" not in line]
        assert len(lines) == 2, case
        assert lines[0].startswith(f"nano-{command}"), case
    if code == 2:  # Python's names are not known in a shell
        assert not re.search("num_inference|guidance_scale|num_images|mask_image|prompt_weight|=[^ ]*=", err), case


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command in COMMANDS for option in arguments_of(command)]
)
@pytest.mark.usefixtures("formulas")
def test_an_option_of_the_shell_says_what_is_wrong_with_it_in_two_lines(hoisted, capsys, command, option):
    usual = {"generate": ["a fox", "--no-cache"], "bench": [str(hoisted.path)], "bundle": ["verify", "nowhere"]}[
        command
    ]
    if option in {"--key", "--output"} and command == "bundle":
        usual = ["sign", "nowhere", "--key", "nowhere.pem"]
    for text in TEXTS:
        check_end(capsys, command, *usual, f"{option}={text}")


@pytest.mark.parametrize(
    "before",
    [["generate", "--no-cache"], ["bench"], *(["bundle", of] for of in ("verify", "info", "card")),
     ["bundle", "sign", "--key", "k"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.usefixtures("formulas")
def test_a_prompt_or_folder_of_the_shell_is_told_in_two_lines(capsys, before):
    for text in TEXTS:
        check_end(capsys, *before, "--", text)


@pytest.mark.parametrize("option", GRID_OPTIONS)
@pytest.mark.usefixtures("formulas")
def test_an_axis_of_a_sheet_says_what_is_wrong_with_it_in_two_lines(capsys, option):
    for text in (*TEXTS, "1,", ",1", "1,1", "2, 3"):
        check_end(capsys, "generate", "a fox", "--no-cache", "--force", "-osheet.png", f"--grid={option}={text}")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("dpm++ 2m karras", "dpmpp_2m_karras"),
        ("dpmpp_2m_k", "dpmpp_2m_karras"),
        ("k_dpmpp_2m", "dpmpp_2m"),
        ("Euler a", "euler_a"),
        ("EULER", "euler"),
        ("euler_ancestral", "euler_a"),
        ("k_euler_a", "euler_a"),
        ("EulerDiscreteScheduler", "euler"),
        ("EulerAncestralDiscreteScheduler", "euler_a"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("DPMSolverSinglestepScheduler", "dpmpp_2s"),
        ("DDIMScheduler", "ddim"),
        ("TCDScheduler", "tcd_ode"),  # whose eta diffusers' pipelines set to 0
        ("plms", "pndm"),
        ("uni_pc", "unipc"),
        ("dpm_2_ancestral", "dpm2_a"),
        ("kdpm_2_a_k", "dpm2_a_karras"),
        ("DPM++ 3M SDE Exponential", "dpmpp_3m_sde_exponential"),
        ("ddim_a", "ddim_a"),
    ],
)
def test_samplers_have_the_names_that_people_know(theirs, ours):
    assert full_name(theirs) == ours
    assert DrawOptions(prompt="a fox", scheduler=theirs).scheduler == ours


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("DPM++ SDE", "dpmpp_2m_sde"),
        ("DPM++ 2S a", "dpmpp_2s"),
        ("eulr", "euler"),
        ("DPM++ SDE Karras", "dpmpp_2m_sde"),
        ("Euler a Karras", "euler_"),
    ],
)
def test_a_method_that_is_only_near_is_not_taken_for_another(name, nearest):
    with pytest.raises(UnknownSchedulerError, match=f"Did you mean .*{nearest}") as caught:
        full_name(name)
    offered, _, all_names = caught.value.hint.partition("All names: ")
    for one in offered.removeprefix("Did you mean ").rstrip("? ").split(" or "):
        assert split_name(one)[0] in re.split(r"[ ,.]+", all_names)  # what is offered stands in the list behind


def test_each_label_of_a_sampler_is_its_own_and_a_call_takes_it():
    labels = sampler_names()
    assert {label: full_name(label) for label in labels.values()} == {label: name for name, label in labels.items()}
    assert [labels[name] for name in ("ddim", "ddim_a", "dpmpp_2s_karras", "deis", "euler_a")] == [
        *("DDIM", "DDIM a", "DPM++ 2S Karras", "DEIS", "Euler a")
    ]
    assert {name for name, label in labels.items() if label.islower() or "_" in label} == set()


def test_no_two_samplers_answer_to_one_name():
    """Each name of the table means itself, in capital letters too."""
    from nano_runtime.sampling.sampler_names import SPREADS, _folded, _known  # noqa: PLC0415 - of this test only
    from nano_runtime.sampling.sampler_table import RECORDS  # noqa: PLC0415

    names = [*RECORDS, *(f"{name}_{spread}" for name in RECORDS for spread in SPREADS if RECORDS[name].spreadable)]
    assert {name: _known()[_folded(name.upper())] for name in names} == {name: name for name in names}
