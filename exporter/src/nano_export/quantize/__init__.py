"""Turns float graphs into INT8 graphs: watches real runs, chooses grids by their error, and writes a plan."""

from __future__ import annotations

from nano_export.quantize.calibration import Seen, calibrate, write_watching_graph
from nano_export.quantize.convolutions import lower_convolutions
from nano_export.quantize.drawing import draw
from nano_export.quantize.equalize import divide_output
from nano_export.quantize.fused_operators import join_attention, join_biases
from nano_export.quantize.grids import Range
from nano_export.quantize.nncf_quantizer import Recorder, nncf_is_installed, quantize_with_nncf, schemes_of
from nano_export.quantize.plan import PLANS, Plan, Rule
from nano_export.quantize.qdq import quantize, tensors_to_calibrate
from nano_export.quantize.recipe import macs_of_layers, prepare, recipe_for
from nano_export.quantize.search import Change, candidates, fit, with_changes
from nano_export.quantize.written import first_fault

__all__ = [
    "PLANS",
    "Change",
    "Plan",
    "Range",
    "Recorder",
    "Rule",
    "Seen",
    "calibrate",
    "candidates",
    "divide_output",
    "draw",
    "first_fault",
    "fit",
    "join_attention",
    "join_biases",
    "lower_convolutions",
    "macs_of_layers",
    "nncf_is_installed",
    "prepare",
    "quantize",
    "quantize_with_nncf",
    "recipe_for",
    "schemes_of",
    "tensors_to_calibrate",
    "with_changes",
    "write_watching_graph",
]
