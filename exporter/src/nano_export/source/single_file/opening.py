"""Reads a model from one safetensors file in the original layout, as Civitai and A1111's web UI have them.

Its networks get configs, worked out from the shapes of their tensors or taken from a folder. Written down, they are a
diffusers folder without weights, which is then checked and loaded like any other. Nothing is looked up on the Hub.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nano_export.errors import CheckpointError, SingleFileError
from nano_export.options import PredictionType, SingleFileOptions
from nano_export.source.architecture import check_architecture
from nano_export.source.folder import DiffusersFolder
from nano_export.source.json_file import read_json
from nano_export.source.layout import WEIGHTS
from nano_export.source.picture_size import vae_factor
from nano_export.source.pipelines import task_of
from nano_export.source.readable import require_text
from nano_export.source.scheduler import scheduler_of
from nano_export.source.single_file.kinds import kind_of
from nano_export.source.single_file.networks import load_original, shapes_of
from nano_export.source.single_file.prediction import Hints, hints_of
from nano_export.source.single_file.shapes import (
    FAMILIES,
    UNET,
    VAE,
    ShapeError,
    Shapes,
    text_config,
    unet_config,
    vae_config,
)
from nano_export.source.single_file.tensors import read_header, stored_bytes
from nano_export.source.single_file.vocabulary import find_vocabulary, write_tokenizer
from nano_export.source.tokenizer import tokenizer_files
from nano_export.source.weights import Weights, find_weights
from nano_runtime.errors import UsageError
from nano_runtime.errors.escaping import first_line

__all__ = ["SingleFile"]

_SCHEDULER = Path("scheduler", "scheduler_config.json")
_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
_LATENTS = 4
_WORDS, _LENGTH = 49408, 77  # of CLIP, and transformers' defaults
# (Input channels of the UNet, family) -> scheduler of the repository whose configs diffusers takes for such a file.
_SCHEDULERS = {
    (4, 1): "PNDMScheduler",
    (4, 2): "DDIMScheduler",
    (9, 1): "DDIMScheduler",
    (9, 2): "PNDMScheduler",
    (8, 1): "EulerAncestralDiscreteScheduler",
    (8, 2): "EulerAncestralDiscreteScheduler",
}
_PIPELINES = {8: "StableDiffusionInstructPix2PixPipeline", 9: "StableDiffusionInpaintPipeline"}
_SIZE, _SIZE_OF_V = 512, 768  # pixels
_SD_CHANNELS = 320  # of the outermost level, in every published Stable Diffusion 1 and 2 and those pruned from them


@dataclass(frozen=True)
class SingleFile:
    """A single file that holds a whole Stable Diffusion 1 or 2. Use ``SingleFile.open``.

    Attributes:
        path: of the file.
        shapes: of its tensors, by the names of newer files.
        prefix: of its text encoder's tensors.
        configs: folder, as ``from_single_file(config=...)`` takes it; None if the file comes without one.
        hints: what the shapes do not tell.
        tokenizer: folder with the vocabulary, if the user named one.
        vae: folder of the autoencoder, if the file has none.
    """

    path: Path
    shapes: Shapes
    prefix: str
    configs: Path | None
    hints: Hints
    tokenizer: Path | None
    vae: Path | None

    @classmethod
    def open(cls, model: str, asked: SingleFileOptions, vae: Path | None = None) -> SingleFile:
        """Read the header of a file, and refuse it if it is no Stable Diffusion 1 or 2.

        Args:
            model: path of the file.
            asked: facts that it may lack.
            vae: folder of an autoencoder, or of a model with one, for a file without one.

        Raises:
            CheckpointError: it is missing or damaged.
            PickleFileError: it is a pickle.
            SingleFileError: it is something else, or something about it is not known.
        """
        path = Path(model).expanduser()
        shapes, metadata = read_header(path)
        kind = kind_of(shapes, vae_is_elsewhere=vae is not None)
        if kind is not None:
            raise SingleFileError(path, f"it is {kind.name}", kind.remedy)
        prefix = next(prefix for prefix in FAMILIES if any(key.startswith(prefix) for key in shapes))
        configs = _configs_of(path, asked.config)
        stated: PredictionType | None = None
        if configs is not None and (configs / _SCHEDULER).is_file():
            stated = read_json(configs / _SCHEDULER).get("prediction_type", "epsilon")
            if not isinstance(stated, str):
                raise CheckpointError(configs / _SCHEDULER, f"its prediction_type is {stated!r}, not a name")
        usual: PredictionType | None = "epsilon"
        if FAMILIES[prefix] != 1 and shapes[f"{UNET}input_blocks.0.0.weight"][1] == _LATENTS:
            usual = None
        hints = hints_of(path, metadata, shapes, asked.prediction_type, usual, stated)
        whole = any(key.startswith(VAE) for key in shapes)
        own = None if vae is None or whole else vae / "vae" if (vae / "vae").is_dir() else vae
        return cls(path, shapes, prefix, configs, hints, asked.tokenizer, own)

    def write_configs(self, folder: Path) -> None:
        """Write what a diffusers folder has beside its weights.

        Args:
            folder: exists, and is empty.

        Raises:
            SingleFileError: a network has no architecture that is known, or the tokenizer does not fit it.
            VocabularyNotFoundError: CLIP's vocabulary was not found.
            CheckpointError: a config that came with the file is damaged.
        """
        parts = self._parts()
        channels, family = parts["unet"].get("in_channels", _LATENTS), FAMILIES[self.prefix]
        scheduler = self._config(_SCHEDULER)
        if scheduler is None:
            name = _SCHEDULERS.get((channels, family), "PNDMScheduler")
            scheduler = {"_class_name": name, **_SCHEDULE, **self.hints.schedule}
            if self.hints.zero_snr:
                scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        scheduler["prediction_type"] = self.hints.prediction
        index = self._config(Path("model_index.json"))
        if index is None:
            kind = parts["vae"].get("_class_name", "AutoencoderKL")
            sampler = scheduler.get("_class_name", "PNDMScheduler")
            index = _index(_PIPELINES.get(channels, "StableDiffusionPipeline"), sampler, kind)
        for name, config in parts.items():
            _write(folder / name / "config.json", config)
        _write(folder / _SCHEDULER, scheduler)
        _write(folder / "model_index.json", index)
        self._write_tokenizer(folder / "tokenizer", parts["text_encoder"])

    def folder(self) -> DiffusersFolder:
        """Check the configs like those of a folder; nothing is loaded, and the folder is gone afterwards.

        Raises:
            SingleFileError: see ``write_configs``.
            VocabularyNotFoundError: see ``write_configs``.
            CheckpointError: see ``write_configs``.
            UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
        """
        with TemporaryDirectory() as path:
            folder = Path(path)
            with self.blamed(folder):
                self.write_configs(folder)
                task = task_of(folder)
                check_architecture(folder)
                configs = {name: read_json(folder / name / "config.json") for name in WEIGHTS}
                return DiffusersFolder(
                    path=folder,
                    task=task,
                    scheduler=scheduler_of(folder, task),
                    configs=configs,
                    weights={name: self._weights(name, config) for name, config in configs.items()},
                )

    @contextmanager
    def blamed(self, folder: Path) -> Iterator[None]:
        """Let errors name the file, and not the folder that was written for it, which nobody has.

        Raises:
            SingleFileError: something is wrong with a config in that folder.
        """
        try:
            yield
        except UsageError as error:
            if str(folder) not in error.what:
                raise
            why = error.what.replace(f"{folder}/", "its ").replace(str(folder), "its configs")
            raise SingleFileError(self.path, why, error.hint) from error

    def _weights(self, component: str, config: dict[str, Any]) -> Weights:
        """Return a network's weights by the names that its tensors get."""
        if component == "vae" and self.vae is not None:
            return find_weights(self.vae, component, None)
        prefix = {"unet": UNET, "vae": VAE, "text_encoder": self.prefix}[component]
        shapes = shapes_of(self.path, component, config)
        return Weights(self.path, (self.path,), None, shapes, stored_bytes(self.path, prefix))

    def load(self, component: str, config: dict[str, Any]) -> Any:  # noqa: ANN401 - diffusers' and transformers' classes have no common base
        """Load a network in fp32.

        Args:
            component: ``unet``, ``vae`` or ``text_encoder``.
            config: of the network.

        Raises:
            SingleFileError: its tensors do not fit its config.
        """
        return load_original(self.path, component, config)

    @property
    def note(self) -> str | None:
        """What the user should know: numbers that are taken for granted."""
        outer = self.shapes[f"{UNET}input_blocks.0.0.weight"][0]
        told = self._config(Path("unet", "config.json")) is not None or "attention_head_dim" in self.hints.unet
        if told or outer == _SD_CHANNELS:
            return None
        family = FAMILIES[self.prefix]
        heads = "8 attention heads" if family == 1 else "attention heads of 64 channels"
        return f"taking {heads} and groups of 32, as in every Stable Diffusion {family}; --config names others"

    def _parts(self) -> dict[str, dict[str, Any]]:
        """Return the config of each network: the folder's, or one that is worked out."""
        family, hints = FAMILIES[self.prefix], self.hints
        try:
            vae = self._config(Path("vae", "config.json")) if self.vae is None else read_json(self.vae / "config.json")
            if vae is None:
                vae = vae_config(self._below(VAE)) | hints.vae
            unet = self._config(Path("unet", "config.json"))
            if unet is None:
                large = family != 1 and hints.prediction == "v_prediction"
                size = (_SIZE_OF_V if large else _SIZE) if hints.size is None else hints.size
                unet = unet_config(self._below(UNET), family) | {"sample_size": size // vae_factor(vae)} | hints.unet
            text = self._config(Path("text_encoder", "config.json"))
            if text is None:
                text = text_config(self._below(self.prefix), family)
        except (ShapeError, IndexError, KeyError, TypeError, ValueError) as error:
            known = isinstance(error, ShapeError)
            why = str(error) if known else f"its tensors, or the configs beside it, are odd ({first_line(error)})"
            raise SingleFileError(self.path, why, "Give the configs of its networks with --config FOLDER.") from error
        return {"unet": unet, "vae": vae, "text_encoder": text}

    def _below(self, prefix: str) -> Shapes:
        """Return the shapes of a network's tensors, without the prefix of their names."""
        return {key.removeprefix(prefix): shape for key, shape in self.shapes.items() if key.startswith(prefix)}

    def _config(self, name: Path) -> dict[str, Any] | None:
        """Return a config that came with the file; None without one."""
        path = None if self.configs is None else self.configs / name
        return None if path is None or not path.is_file() else read_json(path)

    def _write_tokenizer(self, folder: Path, text: dict[str, Any]) -> None:
        """Write the tokenizer's folder: the one that came with the configs, or one made of CLIP's vocabulary."""
        if self.tokenizer is None and self.configs is not None and (self.configs / "tokenizer").is_dir():
            folder.mkdir()
            for path in tokenizer_files(self.configs / "tokenizer"):
                require_text(path)
                shutil.copyfile(path, folder / path.name)
            return
        vocabulary = find_vocabulary(self.path, self.tokenizer)
        count, rows = 1 + max(vocabulary.words.values()), _whole(text, "vocab_size", _WORDS)
        if count > rows:
            raise SingleFileError(
                self.path,
                f"its text encoder has {rows} words, and the vocabulary that was found {count}",
                "Give the tokenizer that the model was trained with: --tokenizer FOLDER.",
            )
        length = _whole(text, "max_position_embeddings", _LENGTH)
        write_tokenizer(folder, vocabulary, FAMILIES[self.prefix], length)


def _configs_of(path: Path, asked: Path | None) -> Path | None:
    """Return the folder with a file's configs: the one that is named, or one beside the file."""
    if asked is not None:
        if not any((asked / name).is_file() for name in ("model_index.json", "unet/config.json", _SCHEDULER)):
            raise SingleFileError(
                asked, "it has no configs", "Give a folder with model_index.json, unet/config.json and so on."
            )
        return asked
    beside = (path.with_suffix(""), path.parent / "config")
    return next((folder for folder in beside if (folder / "model_index.json").is_file()), None)


def _index(pipeline: str, scheduler: str, vae: str) -> dict[str, Any]:
    """Return the content of model_index.json."""
    return {
        "_class_name": pipeline,
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", vae],
    }


def _whole(config: dict[str, Any], key: str, default: int) -> int:
    """Return a whole number of a text encoder's config; CLIP's where it names none.

    Raises:
        CheckpointError: it is no whole number.
    """
    value = config.get(key, default)
    if not isinstance(value, int):
        raise CheckpointError("text_encoder/config.json", f"{key} is {value!r}, not a whole number")
    return value


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
