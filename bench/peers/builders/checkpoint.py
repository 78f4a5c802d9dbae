"""Write a built-in model as a diffusers folder: ``checkpoint.py NAME FOLDER``, in the driver's environment.

The weights are those of the bundle that ``nano-export NAME`` makes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nano_export.source.builtin import build, write_checkpoint

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    write_checkpoint(build(name), Path(folder))
