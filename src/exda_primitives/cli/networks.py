"""The networks that commands are given: a checkpoint, or the demo's weights, which are in the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

HELP = (
    "a .pth, .ckpt or .safetensors file; or demo, the package's own small ExDA network, or demo-host, the same without"
)

_DEMO = {"demo": "exda.safetensors", "demo-host": "host.safetensors"}


def checkpoint_file(name: str) -> Path:
    """Where the weights are that were asked for; a file that is called ``demo`` is ``./demo``."""
    if name in _DEMO:
        return Path(str(resources.files("exda_primitives") / "demo" / "data" / _DEMO[name]))
    return Path(name)
