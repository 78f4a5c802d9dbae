"""Export a diffusers folder to ONNX with optimum: ``optimum_onnx_export.py CHECKPOINT FOLDER``.

What ``optimum-cli export onnx --task text-to-image`` does; runs in the environment "optimum-onnx".
"""

from __future__ import annotations

import sys

from optimum.exporters.onnx import main_export

if __name__ == "__main__":
    checkpoint, folder = sys.argv[1:]
    main_export(checkpoint, folder, task="text-to-image", library_name="diffusers", do_validation=False)
