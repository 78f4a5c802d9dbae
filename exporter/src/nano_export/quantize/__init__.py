"""Turns float graphs into INT8 graphs: watches real runs, then writes a plan into each graph."""

from __future__ import annotations

from nano_export.quantize.calibration import calibrate, write_watching_graph
from nano_export.quantize.convolutions import lower_convolutions
from nano_export.quantize.drawing import draw
from nano_export.quantize.fused_operators import join_attention, join_biases
from nano_export.quantize.nncf_quantizer import Recorder, nncf_is_installed, quantize_with_nncf, schemes_of
from nano_export.quantize.plan import PLANS, Plan, Rule
from nano_export.quantize.qdq import Range, quantize, tensors_to_calibrate
from nano_export.quantize.written import first_fault

__all__ = [
    "PLANS",
    "Plan",
    "Range",
    "Recorder",
    "Rule",
    "calibrate",
    "draw",
    "first_fault",
    "join_attention",
    "join_biases",
    "lower_convolutions",
    "nncf_is_installed",
    "quantize",
    "quantize_with_nncf",
    "schemes_of",
    "tensors_to_calibrate",
    "write_watching_graph",
]
