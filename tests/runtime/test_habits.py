"""Names that people bring along from diffusers and other commands: one sentence says what to do, nothing is faked."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime import DrawOptions, Pipeline, UsageError
from nano_runtime.cli.generate import main
from nano_runtime.errors import HabitError, UnknownOptionError, habits


@pytest.fixture
def pipe(hoisted) -> Any:
    return pipeline_of(FakeGraphs(hoisted))


@pytest.mark.parametrize(
    ("habit", "sentence"),
    [
        (lambda pipe: pipe.to("cuda"), "always draws on the processor"),
        (lambda pipe: pipe.to("cpu"), "always draws on the processor"),
        (lambda pipe: pipe.enable_attention_slicing(), "low_memory=True"),
        (lambda pipe: pipe.scheduler.config, 'scheduler="euler_a"'),
        (lambda pipe: setattr(pipe, "scheduler", object()), 'scheduler="euler_a"'),
        (lambda pipe: pipe.unet, "graphs of an engine"),
        (lambda pipe: type(pipe).from_single_file("x.safetensors"), "nano-export FILE"),
    ],
)
def test_a_name_of_diffusers_says_what_to_do_and_is_not_there(pipe, habit, sentence):
    with pytest.raises(HabitError, match=sentence) as caught:
        habit(pipe)
    assert isinstance(caught.value, (UsageError, AttributeError))


def test_programs_that_ask_first_find_nothing(pipe):
    assert not hasattr(pipe, "to")
    assert not hasattr(Pipeline, "from_single_file")
    assert copy.copy(pipe).backend == pipe.backend
    with pytest.raises(AttributeError, match="no attribute 'bakcend'") as caught:
        _ = pipe.bakcend
    assert not isinstance(caught.value, UsageError)
    pipe.safety_checker = None  # is true: there is none


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"torch_dtype": "float16"}, "exported with"),
        ({"safety_checker": None}, "no safety checker"),
        ({"use_safetensors": True}, "always so"),
        ({"device_map": "cuda"}, "on the processor"),
        ({"thread": 2}, "Did you mean threads"),
        ({"nonsense": 2}, "shows all of them"),
    ],
)
def test_a_keyword_of_from_pretrained_says_what_to_do(keywords, sentence):
    with pytest.raises(UnknownOptionError, match=sentence):
        Pipeline.from_pretrained(**keywords)


def test_a_keyword_of_a_call_says_what_to_do(pipe):
    with pytest.raises(UnknownOptionError, match="seed=7"):
        pipe("a fox", generator=object())
    with pytest.raises(UnknownOptionError, match="last layer"):
        pipe("a fox", clip_skip=1)


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--device", "always draws on the processor"),
        ("--FP16", "exported with"),
        ("--lora", "nano-export CHECKPOINT --lora"),
        ("--guidence", "Did you mean --guidance"),
        ("--sed", "Did you mean --seed"),
    ],
)
def test_an_option_of_another_command_says_what_to_do(capsys, flag, sentence):
    assert main(["a fox", flag, "1"]) == 2
    assert sentence in capsys.readouterr().err


def test_nothing_that_is_here_is_called_a_habit(pipe):
    here = {name for name, _ in inspect.getmembers(Pipeline)} | set(vars(pipe))
    assert not here & set(habits._OF_PIPELINES)  # noqa: SLF001
    assert not set(inspect.signature(Pipeline.from_pretrained).parameters) & set(habits._WHEN_OPENED)  # noqa: SLF001
    assert not set(DrawOptions.__dataclass_fields__) & set(habits.IN_CALLS)
