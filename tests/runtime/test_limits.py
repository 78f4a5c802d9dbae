"""The roofline of a graph, against sums done by hand."""

from __future__ import annotations

import pytest

from nano_runtime.benchmark.layers import GroupTime, group_times
from nano_runtime.benchmark.limits import Rates, limit_ms
from nano_runtime.bundle.manifest import Work
from nano_runtime.engines import ENGINES
from nano_runtime.engines.base import LayerTime

# int8 2 MAC/ns (the faster of two engines), f32 1 MAC/ns, bf16 4 MAC/ns, reads 10 bytes/ns
RATES = Rates(
    threads=2,
    macs_per_s={
        "int8": {"onnxruntime": 2e9, "openvino": 1e9},
        "f32": {"onnxruntime": 0.5e9, "openvino": 1e9},
        "bf16": {"openvino": 4e9},
    },
    read_bytes_per_s=10e9,
    read_bytes=1 << 20,
)


def work(positions, kind, arithmetic, macs, weight_bytes, *, batched=True):
    return Work(
        positions=positions,
        kind=kind,
        arithmetic=arithmetic,
        layers=1,
        macs=macs,
        batched=batched,
        weight_bytes=weight_bytes,
    )


ARITHMETIC = work((16, 16), "conv", "int8", 8_000_000, 1_000_000)  # 4 ms to compute a row, 0.1 ms to read
MEMORY = work((2, 2), "matmul", "int8", 200_000, 50_000_000)  # 0.1 ms to compute a row, 5 ms to read
FLOAT = work((16, 16), "attention", "f32", 3_000_000, 0)  # 3 ms in f32, 0.75 ms in bf16
FIXED = work((), "matmul", "f32", 1_000_000, 4_000_000, batched=False)  # 1 ms whatever the batch


@pytest.mark.parametrize(
    ("groups", "rows", "precision", "ms"),
    [
        ([], 1, "f32", 0),
        ([ARITHMETIC], 1, "f32", 4),
        ([ARITHMETIC], 2, "f32", 8),
        ([ARITHMETIC], 2, "bf16", 8),
        ([MEMORY], 1, "f32", 5),
        ([MEMORY], 2, "f32", 5),
        ([MEMORY], 100, "f32", 10),
        ([FLOAT], 1, "f32", 3),
        ([FLOAT], 1, "bf16", 0.75),
        ([FIXED], 8, "f32", 1),
        ([ARITHMETIC, MEMORY, FLOAT, FIXED], 2, "f32", 8 + 5 + 6 + 1),
    ],
)
def test_the_slower_of_arithmetic_and_memory_group_by_group(groups, rows, precision, ms):
    assert limit_ms(groups, rows, RATES, precision) == pytest.approx(ms)


OPERATORS = {name: kind for engine in ENGINES.values() for name, kind in engine.operators.items()}
PROFILE = [
    LayerTime("QLinearConv", (2, 16, 16, 32), 1.0),  # onnxruntime: channels last
    LayerTime("Conv", (2, 4, 16, 16), 0.5),  # channels first
    LayerTime("Convolution", (2, 4, 16, 16), 0.25),  # openvino
    LayerTime("MatMul", (2, 5, 256, 77), 2.0),  # heads: attention
    LayerTime("Subgraph (MatMul)", (2, 256, 5, 64), 4.0),  # heads behind
    LayerTime("MultiHeadAttention", (2, 256, 320), 0.5),  # heads together
    LayerTime("MatMulIntegerToFloat", (2, 4, 96), 8.0),
    LayerTime("FullyConnected", (2, 96), 16.0),
    LayerTime("Add", (2, 4, 16, 16), 3.0),
    LayerTime("Transpose", (2, 256, 32), 30.0),
    LayerTime("Add", (2, 256, 32), 7.0),
]


def test_a_profile_falls_into_the_groups_of_the_manifest():
    assert group_times(PROFILE, [ARITHMETIC, MEMORY, FLOAT, FIXED], 2, RATES, "f32", operators=OPERATORS) == [
        GroupTime("16x16 conv", 3, 1.75, 8.0),
        GroupTime("2x2 matmul", 1, 8.0, 5.0),
        GroupTime("16x16 attention", 3, 6.5, 6.0),
        GroupTime("matmul", 1, 16.0, 1.0),
        GroupTime("Transpose", 1, 30.0, None),
        GroupTime("Add", 2, 10.0, None),
    ]


def test_no_time_gets_lost():
    for known in ([], [MEMORY], [ARITHMETIC, MEMORY, FLOAT, FIXED]):
        groups = group_times(PROFILE, known, 2, RATES, "f32", operators=OPERATORS)
        assert sum(group.ms for group in groups) == pytest.approx(sum(time.ms for time in PROFILE))
        assert sum(group.operators for group in groups) == len(PROFILE)


def test_two_arithmetics_share_a_row_and_add_their_limits():
    (row,) = group_times(
        PROFILE[:2], [ARITHMETIC, work((16, 16), "conv", "f32", 1_000_000, 0)], 1, RATES, "f32", operators=OPERATORS
    )
    assert (row.ms, row.limit_ms) == (1.5, pytest.approx(4 + 1))


def test_without_work_kinds_remain():
    groups = group_times(PROFILE, [], 2, None, "f32", operators=OPERATORS)
    assert {group.name for group in groups} == {"conv", "matmul", "attention", "Add", "Transpose"}
    assert {group.limit_ms for group in groups} == {None}
