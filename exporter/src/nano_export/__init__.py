"""Turns a Stable Diffusion checkpoint into a bundle for ``nano_runtime``: ONNX and OpenVINO graphs, fp32 or INT8.

from nano_export.export import Options, export   # torch is imported here, not before
"""

__all__: list[str] = []
