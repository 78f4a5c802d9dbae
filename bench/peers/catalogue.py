"""Who is compared: every peer as data."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BEST", "ORIGINAL", "OURS", "PEERS", "Peer"]


@dataclass(frozen=True)
class Peer:
    """One way to draw with the checkpoint.

    Attributes:
        name: for the command line and for files.
        title: the library and its weights, for the table.
        worker: the file in ``workers/`` that draws with it.
        environment: the file in ``requirements/`` with its exact versions; None means the driver's environment.
        model: what it loads: ``"bundle"``, or a name in ``models.MODELS``.
        options: for the worker.
        caches: whether the library can keep what it compiled; if so, starts are timed with and without.
        takes_noise: whether it starts from the noise it is given, so that its picture is the original's.
        optional: whether it takes part only when named.
        needs: instruction set without which it cannot run; empty for none.
        own_sampling: whether it draws with the sampler and steps that its bundle was measured to need, however many.
    """

    name: str
    title: str
    worker: str
    environment: str | None
    model: str
    options: dict[str, str] = field(default_factory=dict)
    caches: bool = False
    takes_noise: bool = True
    optional: bool = False
    needs: str = ""
    own_sampling: bool = False


OURS = (
    Peer("nano-onnxruntime", "Nano, INT8, onnxruntime", "nano", None, "bundle", {"backend": "onnxruntime"}),
    Peer("nano-openvino", "Nano, INT8, OpenVINO", "nano", None, "bundle", {"backend": "openvino"}),
    # What the peers on OpenVINO do unasked, where they can: the layers that are not INT8 round to bfloat16.
    Peer(
        name="nano-openvino-bf16",
        title="Nano, INT8, OpenVINO bf16",
        worker="nano",
        environment=None,
        model="bundle",
        options={"backend": "openvino", "precision": "bf16"},
        needs="avx512_bf16",
    ),
    # At equal quality, not equal work; and another sampler draws another picture than the original's.
    *(
        Peer(
            name=f"nano-{backend}-own",
            title=f"Nano, INT8, {title}, its own steps",
            worker="nano",
            environment=None,
            model="bundle",
            options={"backend": backend},
            optional=True,
            own_sampling=True,
        )
        for backend, title in (("onnxruntime", "onnxruntime"), ("openvino", "OpenVINO"))
    ),
)

BEST = Peer("genai-hybrid", "openvino-genai, hybrid INT8", "genai", "genai", "openvino-hybrid", caches=True)
"""The quickest peer, so it is timed in every round together with ours."""

ORIGINAL = Peer("diffusers", "diffusers, torch fp32", "eager", None, "checkpoint")
"""What the others' pictures are compared with."""

PEERS = (
    BEST,
    ORIGINAL,
    Peer("genai-fp16", "openvino-genai, fp16", "genai", "genai", "openvino-fp16", caches=True),
    Peer("genai-int8", "openvino-genai, INT8 weights", "genai", "genai", "openvino-int8", caches=True),
    Peer("optimum-hybrid", "optimum-intel, hybrid INT8", "optimum_intel", "optimum", "openvino-hybrid", caches=True),
    Peer(
        "optimum-fp16", "optimum-intel, fp16", "optimum_intel", "optimum", "openvino-fp16", caches=True, optional=True
    ),
    Peer(
        name="optimum-int8",
        title="optimum-intel, INT8 weights",
        worker="optimum_intel",
        environment="optimum",
        model="openvino-int8",
        caches=True,
        optional=True,
    ),
    *(
        Peer(
            name=f"sdcpp-{wtype}",
            title=f"stable-diffusion.cpp, {wtype}",
            worker="sdcpp",
            environment="sdcpp",
            model="checkpoint",
            options={"wtype": wtype},
            takes_noise=False,
            optional=True,
        )
        for wtype in ("f16", "q8_0")
    ),
)
