"""From a prompt to pictures: the parts of this package, put together.

prompt ──tokenizer──text_encoder──unet_prompt──┐
steps ───sampler────────────────unet_time──────┤
seed ────noise──────────────────────────────denoise(unet)──vae_decoder──picture
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.wiring import (
    TEXT_ENCODER,
    UNET,
    UNET_PROMPT,
    UNET_SHALLOW,
    UNET_TIME,
    VAE_DECODER,
    VAE_ENCODER,
)
from nano_runtime.drawing.arguments import replace_latents
from nano_runtime.drawing.defaults import Defaults
from nano_runtime.drawing.demo_prompts import demo_hints
from nano_runtime.drawing.events import Progress, Result
from nano_runtime.drawing.groups import Drawing
from nano_runtime.drawing.plan import Plan, plan_of
from nano_runtime.drawing.stops import Stops
from nano_runtime.engines import BACKENDS, ENGINES, Batch, EngineOptions, choose
from nano_runtime.engines.base import PRECISIONS, Precision, Runner
from nano_runtime.engines.isolated import CallOfAny, Graphs, graphs_of
from nano_runtime.errors import OptionError
from nano_runtime.errors.habits import Habits, refuse_keywords
from nano_runtime.networks.autoencoder import decode, encode
from nano_runtime.networks.conditioning import Conditioner, EncodedTexts
from nano_runtime.networks.kept_outputs import KeptOutputs
from nano_runtime.networks.tokenizer import Reading, TokenIds
from nano_runtime.options import DrawKeywords, DrawOptions
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.pictures.pixels import to_pil, to_uint8
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.system.disk_cache import DiskCache
from nano_runtime.system.processors import thread_count
from nano_runtime.system.timing import Stopwatch
from nano_runtime.values import natural, one_of, path, positive, switch, whole
from nano_runtime.values import prompt as checked_prompt
from nano_runtime.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Unpack

__all__ = ["Callback", "Pipeline", "Progress", "Result"]

_log = logging.getLogger(__name__)

Callback: TypeAlias = Callable[["Pipeline", int, float, dict[str, Any]], Mapping[str, Any] | None]

_MOST_AT_ONCE = 4  # pictures per UNet call: memory grows with each, speed hardly any more
# The graphs that every picture needs, the largest first. Those of prompts and timesteps are checked when one is new;
# the shallow UNet shares its weights with the UNet.
_CHECKED_AHEAD = (UNET, VAE_ENCODER, VAE_DECODER)


class Pipeline(Habits):
    """Draws from one bundle with one engine, for any number of threads.

    Threads may call one pipeline at the same time, and streams may be mixed, in one thread or several: each draws what
    it draws alone. The engine computes for one of them at a time, so together they take as long as one after the other.
    No stream keeps another one waiting, also if nobody goes on with it. Graphs and remembered prompts are shared; a
    graph is loaded again, beside the others, for calls under way that need it for another number of pictures at once.
    One stream belongs to one thread at a time.

    Args:
        graphs: of an open bundle on one engine.
        keep_loaded: True keeps every graph for the next call; False frees each as soon as its part of the work is done,
            so that text encoder, UNet and decoder never occupy memory together.
        low_memory: True also draws pictures one by one, and forgets the encoded prompts before the UNet runs.
        keep_prompts: True keeps encoded prompts and timesteps in the cache folder: the next process draws the same
            prompts without a text encoder. Without a cache folder it does nothing.
        around: wraps the runner of each call, to watch or replace the runs of graphs; None wraps nothing.
    """

    def __init__(
        self,
        graphs: Graphs,
        *,
        keep_loaded: bool,
        low_memory: bool = False,
        keep_prompts: bool = True,
        around: Callable[[Runner], Runner] | None = None,
    ) -> None:
        if not isinstance(getattr(graphs, "bundle", None), Bundle):
            raise OptionError("graphs", graphs, "graphs, or open a folder with Pipeline.from_pretrained")
        self.bundle = graphs.bundle
        self.backend = graphs.backend
        self.options = graphs.options
        self.keep_loaded = keep_loaded and not low_memory
        self.low_memory = low_memory
        self._around = around
        self._schedule = Schedule.from_config(self.bundle.manifest.scheduler)
        self._defaults = Defaults.of(self.bundle, self._schedule)
        self._stops = Stops()
        self._graphs = graphs
        self._conditioner = Conditioner(self.bundle)
        cache = self.options.cache if keep_prompts else None
        self._cache = None if cache is None else DiskCache(cache / "conditioning")

    @classmethod
    def from_pretrained(
        cls,
        bundle: str | Path = DEMO,
        backend: Backend | None = None,
        threads: int | None = None,
        precision: Precision | None = None,
        *,
        keep_loaded: bool = True,
        low_memory: bool = False,
        keep_prompts: bool = True,
        cache: str | Path | None = None,
        expect_digest: str | None = None,
        isolated: bool = False,
        **unknown: NoReturn,
    ) -> Pipeline:
        """Open a bundle; its graphs are checked and loaded when a call needs them.

        Args:
            bundle: folder that ``nano-export`` wrote; by default the small demo model that comes with this package.
            backend: the engine; None takes onnxruntime if it is installed and the bundle serves it, otherwise openvino.
            threads: at most one per processor, more are taken for that; None means one per performance core.
            precision: arithmetic of the layers that are not quantized; None means ``"f32"``. ``"bf16"`` is quicker
                with openvino on processors that have it, and rounds.
            keep_loaded: see the class.
            low_memory: see the class.
            keep_prompts: see the class.
            cache: folder for OpenVINO's compiled graphs and for encoded prompts, with which the next process starts
                sooner; None, unlike the commands, keeps nothing on the disk.
            expect_digest: see ``Bundle.open``.
            isolated: True loads the engine in a child process, for the same pictures: ``kill`` ends a drawing that
                hangs, an engine that crashes is an error, and on Linux it reaches only the bundle and the cache.
            **unknown: refused; what diffusers' keywords are here is said.

        Raises:
            BundleError: the folder is not a bundle, or was tampered with.
            UsageError: the bundle does not serve the engine, or an argument is out of range.
            BackendMissingError: the engine is not installed.
        """
        refuse_keywords(unknown, cls.from_pretrained.__annotations__)
        options = EngineOptions(
            threads=thread_count(None if threads is None else positive("threads", threads)),
            precision="f32" if precision is None else one_of("precision", precision, PRECISIONS),
            cache=None if cache is None else path("cache", cache),
        )
        engine = None if backend is None else one_of("backend", backend, BACKENDS)
        opened = Bundle.open(bundle, expect_digest)
        return cls(
            graphs_of(opened, choose(opened, engine), options, isolated=switch("isolated", isolated)),
            keep_loaded=switch("keep_loaded", keep_loaded),
            low_memory=switch("low_memory", low_memory),
            keep_prompts=switch("keep_prompts", keep_prompts),
        )

    def __call__(
        self,
        prompt: str | Sequence[str] | DrawOptions,
        *,
        callback_on_step_end: Callback | None = None,
        **options: Unpack[DrawKeywords],
    ) -> Result:
        """Draw pictures of a prompt.

        Args:
            prompt: text or texts to draw, or a whole ``DrawOptions``. Texts may have a negative prompt and a seed each.
            callback_on_step_end: called after every UNet call with (pipe, step_index, timestep, {"latents": ...}); may
                return {"latents": replacement}, and may set ``pipe.interrupt = True``: then the latents of that moment
                are decoded. Calls in other threads go on.
            **options: as in diffusers' ``StableDiffusionPipeline``; ``DrawOptions`` documents each. Beside a
                ``DrawOptions`` they replace its fields.

        Raises:
            UsageError: an option is out of range.
            BundleError: a file was tampered with, or a graph cannot be run or computes NaN.
            MachineError: not enough memory.
        """
        if not (callback_on_step_end is None or callable(callback_on_step_end)):
            raise OptionError("callback_on_step_end", callback_on_step_end, "a function, or None")
        for event in self.stream(prompt, **options):
            if isinstance(event, Result):
                return event
            if callback_on_step_end is not None:
                answer = callback_on_step_end(self, event.step_index, event.timestep, {"latents": event.latents})
                if isinstance(answer, Mapping) and "latents" in answer:
                    replace_latents(event.latents, answer["latents"])
        raise AssertionError("a stream ends with its result")

    def stream(
        self, prompt: str | Sequence[str] | DrawOptions, **options: Unpack[DrawKeywords]
    ) -> Iterator[Progress | Result]:
        """Draw one UNet call at a time: the caller owns progress bars, previews and cancelling.

        Arguments and errors are those of a call. Work begins with the first ``next``; closing the iterator ends it.
        Where memory does not suffice for so many pictures at once, their group begins again as two: ``Progress`` then
        goes back and counts more calls. ``Progress.cancel`` leaves pictures out, and ends a drawing from any thread.

        Yields:
            A ``Progress`` after every UNet call and, last, the ``Result``.
        """
        yield from self.draw(self.plan(prompt, **options))

    def plan(self, prompt: str | Sequence[str] | DrawOptions, **options: Unpack[DrawKeywords]) -> Plan:
        """Check the options of a call and list its UNet calls; nothing runs.

        Raises:
            UsageError: an option is out of range.
            TamperedFileError: the tokenizer, which long prompts need here, is not the one the manifest describes.
        """
        at_once = 1 if self.low_memory else _MOST_AT_ONCE
        asked = DrawOptions.of(prompt, **options)
        plan = plan_of(asked, self.bundle, self._schedule, self._defaults, at_once=at_once)
        if not plan.reading.long or len({*zip(plan.prompts, plan.negative_prompts, strict=True)}) == 1:
            return plan
        fill = {
            text: len(self._conditioner.tokens(text, plan.reading, plan.named(text)).ids)
            for text in plan.texts_of(range(len(plan.seeds)))
        }
        pairs = zip(plan.prompts, plan.negative_prompts if plan.guided else plan.prompts, strict=True)
        return replace(plan, chunks=tuple(max(fill[one], fill[other]) for one, other in pairs))

    def draw(self, plan: Plan, *, more: bool = False) -> Iterator[Progress | Result]:
        """Carry out a plan; see ``stream``.

        Args:
            plan: of this pipeline.
            more: whether other pictures of the same prompts follow: UNet and decoder then stay loaded after the result,
                unless memory matters more than time.

        Raises:
            OptionError: it is no plan.
        """
        self._require_plan(plan)
        for hint in demo_hints(plan) if self.bundle.path == DEMO else ():
            _log.warning("%s", hint)
        staying, finished = switch("more", more) and not self.low_memory, False
        watch, stop = Stopwatch(), self._stops.begin()
        call = self._graphs.timed(watch)
        runner = call if self._around is None else self._around(call)
        try:
            self._prepare(plan)
            keeping = self._keeping(runner)
            texts = {
                chunks: self._conditioner.project(keeping, encoded, plan.guidance_scale)
                for chunks, encoded in self._encoded(plan, keeping, call).items()
            }
            times = self._conditioner.timesteps(keeping, plan.timesteps, plan.guidance_scale)
            call.close(UNET_TIME)  # another schedule needs another batch size
            edited = None if plan.edit is None else encode(runner, self.bundle, plan.edit)
            self._release(call, UNET_PROMPT, VAE_ENCODER)
            if plan.output_type != "latent":
                self._load_ahead({VAE_DECODER: 1})
            if self.low_memory:
                self._conditioner.forget()
            free_unet = partial(call.close, UNET, UNET_SHALLOW)
            drawing = Drawing(runner, self.bundle, self._schedule, plan, texts, times, edited, free_unet, stop)
            latents, pictures, stopped = yield from drawing.run()
            if not staying:
                self._release(call, UNET, UNET_SHALLOW)
            images: list[Image] | F32 = latents
            if plan.output_type != "latent":
                unit = decode(runner, self.bundle, latents, [plan.seeds[i] for i in pictures])
                unit = unit if plan.edit is None else plan.edit.pasted(unit)
                images = unit if plan.output_type == "np" else [to_pil(pixels) for pixels in to_uint8(unit)]
            parameters = tuple(self.parameters_of(plan, picture, stopped.get(picture)) for picture in pictures)
            finished = True
            yield Result(images, tuple(plan.seeds[i] for i in pictures), parameters, watch.timings(), pictures)
        finally:
            stop.over = call.over = True
            if not (staying and finished):
                self._release(call)  # whatever is left, also when the caller stops early

    @property
    def interrupt(self) -> bool:
        """Whether a drawing was told to draw no further: then it decodes the latents as they are.

        Set it from a callback, or between two events of a stream: it means the drawing that this thread went on with
        last. Set from a thread that has none under way, it means all that are under way in others.
        ``Progress.cancel`` means one drawing, wherever it is called. diffusers' own pipelines want
        ``pipe._interrupt = True``, which works here too.
        """
        return self._stops.asked

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._stops.asked = value

    _interrupt = interrupt

    @property
    def own_scheduler(self) -> str:
        """Name of the sampler that the checkpoint was published with; "pndm" where that one is not implemented."""
        return self._defaults.own

    def tokenize(self, prompt: str, *, prompt_weighting: bool = False, long_prompts: bool = False) -> TokenIds:
        """Return the tokens of a prompt, their number, and the words that do not fit.

        Raises:
            PromptError: the prompt cannot be used.
            TamperedFileError: the tokenizer is not the one the manifest describes.
        """
        weighted, long = switch("prompt_weighting", prompt_weighting), switch("long_prompts", long_prompts)
        return self._conditioner.tokens(checked_prompt(prompt), Reading(weighted=weighted, long=long))

    def parameters_of(self, plan: Plan, picture: int, stopped: int | None = None) -> Parameters:
        """Describe how one picture of a plan is drawn; ``stopped`` after so many UNet calls, if it was.

        Raises:
            OptionError: it is no plan, has no such picture, or the calls are no number of them.
        """
        self._require_plan(plan)
        if not 0 <= whole("picture", picture) < len(plan.seeds):
            raise OptionError("picture", picture, f"a whole number from 0 to {len(plan.seeds) - 1}")
        edit = plan.edit
        return Parameters(
            options=plan.options_of(picture),
            bundle=self.bundle.manifest.name,
            bundle_digest=self.bundle.digest,
            backend=self.backend,
            precision=self.options.precision,
            version=__version__,
            edited=None if edit is None else edit.digest,
            masked=edit is not None and edit.mask is not None,
            interrupted_after=None if stopped is None else natural("stopped", stopped),
        )

    def close(self) -> None:
        """Free all loaded graphs, when the engine has computed what it is at; a later call loads them again.

        Drawings under way in other threads go on: they load what they still need.
        """
        self._graphs.close()

    def kill(self) -> None:
        """End the process of an isolated pipeline now, from any thread: drawings under way raise a ``MachineError``.

        Raises:
            UsageError: the pipeline is not isolated.
        """
        self._graphs.kill()

    def _require_plan(self, plan: object) -> None:
        """Refuse what ``plan`` did not make, here or in another pipeline of the bundle."""
        if not isinstance(plan, Plan):
            raise OptionError("plan", plan, "what Pipeline.plan returns; a call or Pipeline.stream draws a prompt")
        if plan.bundle != self.bundle.digest:
            raise OptionError("plan", plan, "a plan that a pipeline of the same bundle made")

    def _keeping(self, runner: Runner) -> Runner:
        """Return a runner that looks for outputs in the cache folder first, and leaves them there."""
        if self._cache is None:
            return runner
        return KeptOutputs(runner, self._graphs.identity, self.bundle.component, self._cache)

    def _prepare(self, plan: Plan) -> None:
        """Begin to check the graphs that are certain to run; import Pillow meanwhile."""
        present = self.bundle.manifest.components
        editing = plan.edit is not None
        self._graphs.prepare(name for name in _CHECKED_AHEAD if name in present and (editing or name != VAE_ENCODER))
        if plan.output_type == "pil":
            import PIL.Image  # noqa: F401, PLC0415 - when the pictures are drawn there may be no memory left for it

    def _encoded(self, plan: Plan, runner: Runner, call: CallOfAny) -> dict[int, EncodedTexts]:
        """Run the text encoder, while the UNet loads; free it. Return the texts by the chunks that they fill."""
        alike = plan.alike(range(len(plan.seeds)))
        read = {
            chunks: self._conditioner.read(plan.texts_of(of), plan.reading, plan.named) for chunks, of in alike.items()
        }
        self._load_ahead(plan.unet_rows, next(iter(read.values())).tokens)
        encoded = {chunks: self._conditioner.encode(runner, texts) for chunks, texts in read.items()}
        self._release(call, TEXT_ENCODER)
        return encoded

    def _load_ahead(self, batches: Mapping[str, Batch], tokens: int = 1) -> None:
        """Begin to load graphs beside those that come before them, unless memory matters more than time."""
        if ENGINES[self.backend].loads_ahead and not self.low_memory:
            for component, batch in batches.items():
                self._graphs.load_ahead(component, batch=batch, tokens=tokens)

    def _release(self, call: CallOfAny, *components: str) -> None:
        """Free graphs that a call is done with, all if none is named, unless they are to be kept."""
        if not self.keep_loaded:
            call.close(*components)
