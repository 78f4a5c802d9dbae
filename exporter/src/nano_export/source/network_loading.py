"""Loads one network in fp32 with diffusers or transformers, and checks that every number came from the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open

from nano_export.errors import CheckpointError
from nano_export.source.layout import WEIGHTS
from nano_export.source.network_config import check_sizes, network_config
from nano_export.source.quiet import quiet_libraries
from nano_export.source.weights import Weights
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.out_of_memory import is_out_of_memory

__all__ = ["load_network"]

_MEANINGLESS = (ArithmeticError, AttributeError, LookupError, TypeError)  # that a number or list in a config leads to


def load_network(kind: Any, component: str, config: dict[str, Any], weights: Weights) -> Any:  # noqa: ANN401 - diffusers' and transformers' classes have no common base
    """Load one network in fp32.

    The libraries only log a missing tensor, and go on with a random one.

    Args:
        kind: class of diffusers or transformers.
        component: its key in ``WEIGHTS``.
        config: of the network.
        weights: its files, checked.

    Raises:
        CheckpointError: the config is no network of that class, tensors are missing, do not have the shape in the
            config, or hold numbers that are not finite.
    """
    config = network_config(kind, config, weights.folder)
    check_sizes(config, weights)
    with _plain_names(component, config, weights) as folder, quiet_libraries():
        try:
            module, report = kind.from_pretrained(
                folder,
                torch_dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                low_cpu_mem_usage=False,  # True needs accelerate
                ignore_mismatched_sizes=True,  # they are reported, and refused below
                output_loading_info=True,
            )
        except Exception as error:  # the libraries raise whatever a wrong config leads to
            if is_out_of_memory(error):
                raise
            why = first_line(error).replace(str(folder), str(weights.folder))
            if isinstance(error, _MEANINGLESS):
                why = f"its config.json is that of no {kind.__name__} ({why})"
            raise CheckpointError(weights.folder, why) from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(weights.folder, f"{len(missing)} of its tensors are missing, {missing[0]} for one")
    if wrong := sorted(key for key, *_ in report["mismatched_keys"]):
        raise CheckpointError(
            weights.folder, f"{len(wrong)} of its tensors do not have the shape in config.json, {wrong[0]} for one"
        )
    if not all(map(_is_finite, module.parameters())):
        raise _not_finite(weights)
    return module.eval()


@contextmanager
def _plain_names(component: str, config: dict[str, Any], weights: Weights) -> Iterator[Path]:
    """Yield a folder in which links to the weights have the names that the libraries look for.

    The libraries then read exactly the files that were checked: no variant, no leftover shards, no index of others.
    """
    with TemporaryDirectory(prefix="nano-export-") as place:
        folder = Path(place)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        name = WEIGHTS[component]
        if len(weights.files) == 1:
            (folder / name).symlink_to(weights.files[0].absolute())
        else:
            table: dict[str, str] = {}
            for number, file in enumerate(weights.files):
                shard = f"{number}.safetensors"
                (folder / shard).symlink_to(file.absolute())
                with safe_open(file, framework="pt") as content:
                    table |= dict.fromkeys(content.keys(), shard)
            index = {"metadata": {}, "weight_map": table}
            (folder / f"{name}.index.json").write_text(json.dumps(index), encoding="utf-8")
        yield folder


def _is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all numbers are finite. A sum is the quickest look: only a finite one can be trusted."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _not_finite(weights: Weights) -> CheckpointError:
    """Return the error that names the first tensor whose numbers are not all finite in fp32."""
    for file in weights.files:
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 - not a mapping
                tensor = content.get_tensor(name).float()
                if wrong := int((~tensor.isfinite()).sum()):
                    return CheckpointError(
                        file,
                        f"{wrong} of the {tensor.numel()} numbers of its tensor {name!r} are not finite; "
                        "a merge or training that broke leaves such weights, and every picture would be black",
                    )
    return CheckpointError(weights.folder, "it holds numbers that are not finite")
