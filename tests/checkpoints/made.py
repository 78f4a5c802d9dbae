"""Makes the checkpoints that are more than a recipe: other layouts, things beside the checkpoint, and broken ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tests.checkpoints.given import Given, plain
from tests.checkpoints.recipes import Recipe, write
from tests.checkpoints.reference import Reference, draw, mask_of, open_pipeline, picture_of
from tests.exporter.original_layout import original_text, original_unet, original_vae, write_file

from nano_export.options import EmbeddingFile, LoraFile, SingleFileOptions

__all__ = [
    "altered",
    "another_vae",
    "broken",
    "cache_root",
    "changed_after_the_reference",
    "cut_short",
    "edited",
    "embedding_file",
    "embedding_inside",
    "git_lfs_pointers",
    "in_8_bits",
    "in_old_names",
    "inpainted",
    "links_to_nowhere",
    "lora",
    "named",
    "not_a_number",
    "pickles",
    "single_file",
    "training_folder",
    "with_a_changed_manifest",
    "with_a_counter",
    "with_full_weights_beside_shards",
]


def edited(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """instruct-pix2pix: a picture beside the latents, changed as the prompt says."""
    write(recipe, folder)

    def reference() -> Reference:
        pipeline = open_pipeline(folder, "StableDiffusionInstructPix2PixPipeline")
        more: Callable[[int], dict[str, Any]] = lambda side: {"image": picture_of(side), "image_guidance_scale": 1.5}  # noqa: E731
        return draw(pipeline, recipe.drawing, None, more)

    drawn = {"image": picture_of(16), "image_guidance_scale": 1.5}
    return Given(options=_options(folder, options), drawing=recipe.drawing, reference=reference, draw_options=drawn)


def inpainted(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Inpainting: a mask and the masked picture beside the latents."""
    write(recipe, folder)

    def reference() -> Reference:
        pipeline = open_pipeline(folder, "StableDiffusionInpaintPipeline")
        more: Callable[[int], dict[str, Any]] = lambda side: {  # noqa: E731
            "image": picture_of(side),
            "mask_image": mask_of(side),
            "height": side,
            "width": side,
        }
        return draw(pipeline, recipe.drawing, None, more)

    drawn = {"image": picture_of(16), "mask_image": mask_of(16)}
    return Given(options=_options(folder, options), drawing=recipe.drawing, reference=reference, draw_options=drawn)


def named(name: str) -> Callable[..., Given]:
    """Return a maker of a checkpoint in a folder of that name."""

    def make(recipe: Recipe, folder: Path, **options: Any) -> Given:
        return plain(recipe, folder / name, **options)

    return make


def cache_root(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Lay a checkpoint out as the Hub's cache does; its root ``models--x--y`` is given."""
    found = plain(recipe, folder / "plain", **options)
    reference = found.reference()
    root, commit = folder / "models--me--small", "a1b2c3d4" * 5
    (root / "refs").mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs" / "main").write_text(commit)
    for number, file in enumerate(sorted(path for path in (folder / "plain").rglob("*") if path.is_file())):
        link = root / "snapshots" / commit / file.relative_to(folder / "plain")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(shutil.move(file, root / "blobs" / f"{number:064x}"), link.parent))
    return replace(found, options=_options(root, options), reference=lambda: reference)


def training_folder(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Leave what a training script leaves: a checkpoint, with optimizer states and an EMA copy beside it."""
    found = plain(recipe, folder, **options)
    for name in ("unet_ema", "checkpoint-500/unet"):
        shutil.copytree(folder / "unet", folder / name)
    (folder / "checkpoint-500" / "optimizer.bin").write_bytes(b"\0" * 100)
    (folder / "logs").mkdir()
    return found


def with_full_weights_beside_shards(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Leave half of another saving's shards beside the full file."""
    found = plain(recipe, folder, **options)
    shard = {"conv_in.bias": torch.zeros(32)}
    save_file(shard, folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors")
    return found


def embedding_inside(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Save a pipeline after ``load_textual_inversion`` with a word of four vectors."""
    write(recipe, folder)
    pipeline = open_pipeline(folder)
    vectors = torch.randn(4, 48, generator=torch.Generator().manual_seed(1))
    pipeline.load_textual_inversion({"<cat-toy>": vectors}, token="<cat-toy>")  # noqa: S106 (a word)
    shutil.rmtree(folder)
    pipeline.save_pretrained(folder)
    drawing = replace(recipe.drawing, prompt="a photo of <cat-toy> in the hat")
    return Given(
        options=_options(folder, options),
        drawing=drawing,
        reference=lambda: draw(open_pipeline(folder), drawing, None),
    )


def lora(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Lay a LoRA in diffusers' form beside the checkpoint, with the scale 0.7."""
    write(recipe, folder)
    noise = torch.Generator().manual_seed(0)
    factors: dict[str, torch.Tensor] = {}
    for name, module in open_pipeline(folder).unet.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            wide, inside = module.weight.shape
            factors[f"unet.{name}.lora_A.weight"] = 0.3 * torch.randn(4, inside, generator=noise)
            factors[f"unet.{name}.lora_B.weight"] = 0.3 * torch.randn(wide, 4, generator=noise)
    file = folder.with_name("style.safetensors")
    save_file(factors, file)

    def reference() -> Reference:
        pipeline = open_pipeline(folder)
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
        pipeline.fuse_lora(lora_scale=0.7)
        return draw(pipeline, recipe.drawing, None)

    given = _options(folder, {**options, "loras": (LoraFile(file, 0.7),)})
    return Given(options=given, drawing=recipe.drawing, reference=reference)


def changed_after_the_reference(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Change a weight by a hundredth after diffusers drew: a control."""
    found = plain(recipe, folder, **options)
    reference = found.reference()
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors["text_model.final_layer_norm.weight"] += 0.01
    save_file(tensors, file, metadata={"format": "pt"})
    return replace(found, reference=lambda: reference)


def with_a_changed_manifest(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Change steps_offset in the finished manifest: a control."""

    def spoil(bundle: Path) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        manifest["scheduler"]["steps_offset"] = 0
        (bundle / "manifest.json").write_text(json.dumps(manifest))

    return replace(plain(recipe, folder, **options), spoil=spoil)


def embedding_file(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Lay an embedding of three vectors beside the checkpoint, as diffusers' training script writes it."""
    write(recipe, folder)
    file = folder.with_name("learned_embeds.safetensors")
    save_file({"<cat-toy>": torch.randn(3, 48, generator=torch.Generator().manual_seed(1))}, file)
    drawing = replace(recipe.drawing, prompt="a photo of <cat-toy> in the hat")

    def reference() -> Reference:
        pipeline = open_pipeline(folder)
        pipeline.load_textual_inversion(file.parent, weight_name=file.name)
        return draw(pipeline, drawing, None)

    given = _options(folder, {**options, "embeddings": (EmbeddingFile(file),)})
    return Given(options=given, drawing=drawing, reference=reference)


def another_vae(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Lay TAESD's class of autoencoder beside the checkpoint, to take the place of its own."""
    write(recipe, folder)
    tiny = folder.with_name("taesd")
    write(replace(recipe, tiny_vae=True), tiny)

    def reference() -> Reference:
        vae = AutoencoderTiny.from_pretrained(tiny / "vae")
        return draw(open_pipeline(folder, vae=vae), recipe.drawing, None)

    given = _options(folder, {**options, "vae": tiny / "vae"})
    return Given(options=given, drawing=recipe.drawing, reference=reference)


def single_file(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Write one file in the original layout, with diffusers' configs in a folder of their own."""
    write(recipe, folder)
    pipeline = open_pipeline(folder)
    tensors = {
        **{f"model.diffusion_model.{key}": value for key, value in original_unet(pipeline.unet).items()},
        **{f"first_stage_model.{key}": value for key, value in original_vae(pipeline.vae).items()},
        **original_text(pipeline.text_encoder),
    }
    file = write_file(folder.with_name("small.safetensors"), {key: t.contiguous() for key, t in tensors.items()})

    def reference() -> Reference:
        found = StableDiffusionPipeline.from_single_file(str(file), config=str(folder), local_files_only=True)
        found.set_progress_bar_config(disable=True)
        return draw(found, recipe.drawing, options["size"])

    given = _options(file, {**options, "single_file": SingleFileOptions(config=folder, tokenizer=folder / "tokenizer")})
    return Given(options=given, drawing=recipe.drawing, reference=reference)


def broken(damage: Callable[[Path], None]) -> Callable[..., Given]:
    """Return a maker of a checkpoint that is damaged after it was written; diffusers is not asked."""

    def make(recipe: Recipe, folder: Path, **options: Any) -> Given:
        write(recipe, folder)
        damage(folder)
        return Given(options=_options(folder, options), drawing=recipe.drawing, reference=lambda: None)

    return make


def altered(change: Callable[[Path], None]) -> Callable[..., Given]:
    """Return a maker of a checkpoint that is changed after it was written; diffusers draws what it is then."""

    def make(recipe: Recipe, folder: Path, **options: Any) -> Given:
        found = plain(recipe, folder, **options)
        change(folder)
        return found

    return make


def in_8_bits(folder: Path) -> None:
    """Store the UNet in float8, as files for small graphics cards are."""
    _rewrite(folder / "unet", lambda tensors: {key: value.to(torch.float8_e4m3fn) for key, value in tensors.items()})


def with_a_counter(folder: Path) -> None:
    """Leave a training's counter among the UNet's weights."""
    _rewrite(folder / "unet", lambda tensors: tensors | {"num_updates": torch.tensor(9)})


def in_old_names(folder: Path) -> None:
    """Name the autoencoder's attention as diffusers did before 0.13, and most repositories still do."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def older(key: str) -> str:
        for new, old in names.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        return key

    _rewrite(folder / "vae", lambda tensors: {older(key): value for key, value in tensors.items()})


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Write a network's weights anew."""
    (file,) = folder.glob("*.safetensors")
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def not_a_number(folder: Path) -> None:
    """Put a NaN into one tensor of the UNet."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"][3] = float("nan")
    save_file(tensors, file)


def git_lfs_pointers(folder: Path) -> None:
    """Leave what a clone without git-lfs leaves."""
    for file in folder.glob("*/*.safetensors"):
        size = file.stat().st_size
        file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0a' * 32}\nsize {size}\n")


def links_to_nowhere(folder: Path) -> None:
    """Leave what copying a snapshot of the Hub's cache without its blobs leaves."""
    for number, file in enumerate(sorted(folder.glob("*/*.safetensors"))):
        file.unlink()
        file.symlink_to(f"../../../blobs/{number:064x}")


def pickles(folder: Path) -> None:
    """Leave only pickles."""
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".bin"))


def cut_short(folder: Path) -> None:
    """Leave a file that was not downloaded to its end."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _options(model: Path, options: dict[str, Any]) -> dict[str, Any]:
    return {"model": str(model), **options}
