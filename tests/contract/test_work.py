"""The work that manifests tell of, against torch's own count of the network's operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nano_export.source import builtin
from nano_export.source.checkpoint import open_checkpoint
from nano_runtime.bundle.reading import read_manifest

UNET = ("unet", "unet_prompt", "unet_time")


def macs_of(compute: Callable[[], object]) -> int:
    """Multiply-accumulates as torch counts them; it knows attention only when that is two products."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        compute()
    return counter.get_total_flops() // 2  # it counts an addition as well


def expected(parts, rows: int) -> dict[str, int]:
    """The same for every part of a checkpoint."""
    width = parts.text_encoder.config.hidden_size

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(rows, *shape)

    return {
        "text_encoder": macs_of(lambda: parts.text_encoder(zeros(77).long())),
        "unet": macs_of(lambda: parts.unet(zeros(4, 16, 16), torch.tensor(1), zeros(77, width))),
        "vae_decoder": macs_of(lambda: parts.vae.decode(zeros(4, 16, 16))) - spared(parts.vae, zeros(4, 16, 16)),
        "vae_encoder": macs_of(lambda: parts.vae.encode(zeros(3, 128, 128))),
    }


def spared(vae, latents: Tensor) -> int:
    """The products that the decoder does without: where it enlarges, 4 kernel positions for each pixel instead of 9."""
    found = []
    for block in vae.decoder.up_blocks:
        for upsampler in block.upsamplers or ():
            upsampler.conv.register_forward_hook(lambda conv, _, out: found.append(out.numel() * conv.in_channels * 5))
    with torch.no_grad():
        vae.decode(latents)
    assert found
    return sum(found)


def told(manifest, rows: int) -> dict[str, int]:
    """What the manifest says, with the parts of a hoisted UNet put together: one timestep for all rows."""
    macs = {
        name: sum(group.macs * (rows if group.batched and name != "unet_time" else 1) for group in component.work)
        for name, component in manifest.components.items()
    }
    macs["unet"] = sum(macs.pop(name) for name in UNET if name in macs)
    macs.pop("unet_shallow", None)  # a part of the UNet, see below
    return macs


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("bundle", ["fp32", "int8"])
def test_the_work_is_what_torch_counts(bundle, rows, request):
    manifest = read_manifest(request.getfixturevalue(bundle))
    counted = expected(builtin.build("tiny"), rows)
    if rows > 1:  # diffusers projects the one timestep for every row, which hoisting spares
        counted["unet"] -= (rows - 1) * sum(group.macs for group in manifest.components["unet_time"].work)
    assert told(manifest, rows) == counted


def test_the_shallow_graphs_work_is_that_of_its_layers(fp32):
    manifest, unet = read_manifest(fp32), builtin.build("tiny").unet
    first, block = unet.config.block_out_channels[0], unet.up_blocks[-1]
    resnet, attention = block.resnets[-1], block.attentions[-1]
    cross = attention.transformer_blocks[0].attn2
    feature, embedding = torch.zeros(1, first, 16, 16), torch.zeros(1, unet.time_embedding.linear_2.out_features)
    hidden = torch.zeros(1, 77, unet.config.cross_attention_dim)
    counted = macs_of(lambda: unet.conv_in(torch.zeros(1, 4, 16, 16)))
    counted += macs_of(lambda: resnet(torch.cat([feature, feature], 1), embedding))
    counted += macs_of(lambda: attention(feature, hidden))
    counted += macs_of(lambda: unet.conv_out(feature))
    hoisted = macs_of(lambda: (cross.to_k(hidden), cross.to_v(hidden), resnet.time_emb_proj(embedding)))
    work = manifest.components["unet_shallow"].work
    assert sum(group.macs for group in work) == counted - hoisted
    assert hoisted > 0


def test_the_standard_form_too(sd1, sd1_checkpoint):
    assert told(read_manifest(sd1), 1) == expected(open_checkpoint(str(sd1_checkpoint), None), 1)


def test_the_check_above_can_fail(fp32):
    """Without the products of attention the sums differ: nothing is compared with itself."""
    manifest = read_manifest(fp32)
    for component in manifest.components.values():
        component.work[:] = [group for group in component.work if group.kind != "attention"]
    counted = expected(builtin.build("tiny"), 1)
    assert [name for name, macs in told(manifest, 1).items() if macs == counted[name]] == []


def test_quantizing_leaves_the_products_and_shrinks_the_weights(fp32, int8):
    plain, quantized = read_manifest(fp32), read_manifest(int8)
    for name, component in plain.components.items():
        before, after = component.work, quantized.components[name].work
        assert sum(group.macs for group in before) == sum(group.macs for group in after)
        assert {group.arithmetic for group in before} == {"f32"}
        # A byte instead of four, except in the few layers that stay float. The shallow UNet, whose shortcut is one of
        # them, has more of them; so has the decoder, whose four kernels per upsampler have 16 weights for 9, and the
        # text encoder and the encoder, which run once. Two layers of the time embedding stay float.
        ratio = sum(group.weight_bytes for group in before) / sum(group.weight_bytes for group in after)
        least = {"vae_decoder": 2.3, "vae_encoder": 2.3, "unet_shallow": 2, "text_encoder": 2.5, "unet_time": 1.5}.get(
            name, 3
        )
        assert least < ratio <= 4, name
        if {group.arithmetic for group in after} == {"f32"}:  # weights alone are INT8
            assert ratio == 4 or name == "unet_time"
            continue
        stayed = sum(group.weight_bytes for group in after if group.arithmetic == "f32")
        bytes_now = sum(group.weight_bytes for group in after) - stayed
        assert sum(group.weight_bytes for group in before) == stayed + 4 * bytes_now
    levels = {group.positions for group in quantized.components["unet"].work}
    assert levels == {(16, 16), (8, 8), (4, 4), (2, 2)}
    assert {group.arithmetic for group in quantized.components["unet"].work if group.kind == "attention"} == {"f32"}
