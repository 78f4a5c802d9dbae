"""Export a diffusers folder to OpenVINO, tokenizer included: ``openvino_export.py CHECKPOINT FOLDER [fp16|fp32]``.

What ``optimum-cli export openvino --task text-to-image --weight-format fp16`` does; runs in the environment "optimum".
"""

from __future__ import annotations

import sys
from pathlib import Path

from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig

if __name__ == "__main__":
    checkpoint, folder, *rest = sys.argv[1:]
    main_export(
        checkpoint,
        Path(folder),
        task="text-to-image",
        library_name="diffusers",
        ov_config=OVConfig(dtype=rest[0] if rest else "fp16"),
        convert_tokenizer=True,
    )
