"""The plans of quantization as data: the layers that become INT8, those that stay float, and the reasons.

A plan is a list of rules per component. The first rule whose pattern matches a node decides. The names of nodes are
those of ``passes.name_nodes``: the module's path, a slash, the operator. ``Options.plan`` names a plan of ``PLANS``.

Schemes
    w8a8   weights int8 per output channel, symmetric; activations uint8 per tensor, asymmetric, calibrated.
    w8     weights int8 per output channel, symmetric; activations float.
    float  as exported.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from nano_export.options import PlanName

__all__ = ["PLANS", "Plan", "Rule", "Scheme", "looked_at", "rule_for", "scheme_for"]

Scheme: TypeAlias = Literal["w8a8", "w8", "float"]


@dataclass(frozen=True)
class Rule:
    """One line of a plan.

    Attributes:
        pattern: names of the nodes it is for, with shell wildcards.
        scheme: by which they are quantized.
        reason: for people.
        product_up_to: convolutions that make at most so many pixels become matrix products first; see
            ``convolutions``.
        movable: whether a layer that is float may become w8a8 where the goal is met with it; see ``search``.
    """

    pattern: str
    scheme: Scheme
    reason: str
    product_up_to: int = 0
    movable: bool = False


Plan: TypeAlias = Mapping[str, tuple[Rule, ...]]
"""Component -> rules, in the order in which they are tried."""

_W8A8: Plan = {
    "text_encoder": (
        Rule("*/Gather*", "w8", "the embedding table is a fifth of the encoder's bytes and is only looked up"),
        Rule("*/MatMul*", "w8a8", "the linear layers are all of the encoder's arithmetic"),
    ),
    "unet_prompt": (
        Rule("*/MatMul*", "w8", "runs once per prompt, and its error would stay in every step: keep activations exact"),
    ),
    "unet_time": (
        Rule("linear_*/*", "float", "2 million of 866 million weights; all blocks read what they make, in every step"),
        Rule("*/*", "w8", "runs once per schedule: only its bytes matter"),
    ),
    "unet": (
        Rule("conv_in/Conv", "float", "0.03 % of the arithmetic, sees the raw latents and feeds the outermost skip"),
        Rule("conv_out/Conv", "float", "0.03 % of the arithmetic, and its error is the prediction's error"),
        Rule(
            "up_blocks.3.resnets.*.conv_shortcut/Conv",
            "float",
            "0.9 % of the arithmetic and three quarters of the demo's squared error: the sum itself passes here, in "
            "all its range, and not a correction to it",
        ),
        Rule(
            "*/Conv*",
            "w8a8",
            "half of the arithmetic, 62 % of the weights; as matrix products a UNet call takes 0.69 of the time on "
            "onnxruntime and 0.79 on openvino, whose convolutions read weights slowly when pixels are few",
            product_up_to=256,
        ),
        Rule("*/MatMul*", "w8a8", "the other half; products of two activations have no weight and stay float"),
    ),
    "vae_decoder": (
        Rule("post_quant_conv/Conv", "float", "four channels"),
        Rule("*conv_in/Conv", "float", "four input channels"),
        Rule("*conv_out/Conv", "float", "its error is the picture's error, 0.6 % of the arithmetic"),
        Rule(
            "*conv_shortcut/Conv",
            "float",
            "carries the sum that residual branches only correct; 1.4 % of the arithmetic",
            movable=True,
        ),
        Rule(
            "*upsamplers*/Conv",
            "float",
            "carries the sum, too: with the shortcuts, 46 dB instead of 36 on the demo; a quarter of the arithmetic",
            movable=True,
        ),
        Rule(
            "*/Conv*",
            "w8a8",
            "two thirds of the decoder's arithmetic; with the small ones as matrix products it takes 0.90 of the "
            "time on onnxruntime and 1.04 on openvino",
            product_up_to=1024,
        ),
        Rule("*/MatMul*", "w8a8", "the attention's linear layers"),
    ),
    "vae_encoder": (
        Rule("*conv_in/Conv", "float", "three input channels"),
        Rule("quant_conv/Conv", "float", "eight channels, and its error is the latents' error"),
        Rule("*/Conv*", "w8a8", "nearly all of the encoder's arithmetic"),
        Rule("*/MatMul*", "w8a8", "the attention's linear layers"),
    ),
}

PLANS: Mapping[PlanName, Plan] = {"w8a8": _W8A8}
"""Name -> plan. ``w8a8`` has 8-bit weights and activations wherever that costs little and saves time."""


def looked_at(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules with all layers quantized that may be: calibration watches them, and the search decides."""
    return tuple(replace(rule, scheme="w8a8") if rule.movable else rule for rule in rules)


def rule_for(rules: tuple[Rule, ...], name: str) -> Rule | None:
    """Return the first rule that matches a node; None leaves it float."""
    return next((rule for rule in rules if fnmatch.fnmatchcase(name, rule.pattern)), None)


def scheme_for(rules: tuple[Rule, ...], name: str) -> Scheme:
    """Return the scheme of that rule."""
    rule = rule_for(rules, name)
    return "float" if rule is None else rule.scheme
