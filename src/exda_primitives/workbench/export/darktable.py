"""Packs an ONNX file for darktable's "neural restore" (5.6 and newer): a zip of one folder, as darktable-ai publishes.

The folder has the name of the model's id and holds ``model.onnx`` and ``config.json``. darktable calls the model with
square tiles of 256 to 2048 pixels, sRGB in [0, 1], (1, 3, H, W) in float32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from ...errors import ExDAError

TASK = "denoise"
"""The task under which darktable lists models that return an image of the same size."""

SMALLEST_TILE = 256
"""Side in pixels of the smallest tile; all others are multiples of 128, too."""


def check_packable(metadata: Mapping[str, str]) -> None:
    """Refuses a network that darktable cannot call.

    Args:
        metadata: that of the ONNX file.

    Raises:
        ExDAError: for other than three channels, and for sides that darktable's tiles do not have.
    """
    channels = metadata["input_channels"], metadata["output_channels"]
    if channels != ("3", "3"):
        raise ExDAError(f"darktable takes networks from 3 channels to 3, this one has {' to '.join(channels)}.")
    if 128 % int(metadata["multiple"]) or int(metadata["least_side"]) > SMALLEST_TILE:
        raise ExDAError(
            f"darktable's tiles have sides of {SMALLEST_TILE} pixels and larger multiples of 128, this network takes "
            f"multiples of {metadata['multiple']} from {metadata['least_side']}."
        )


def pack(file: Path, name: str, metadata: Mapping[str, str]) -> None:
    """Replaces an ONNX file by a package that holds it.

    Args:
        file: the ONNX file; becomes the package.
        name: name that darktable shows; the id is made of it.
        metadata: that of the ONNX file, for the description.
    """
    identity = package_id(name)
    patched = ", patched with ExDA" if metadata["patched"] != "{}" else ""
    config = {
        "id": identity,
        "name": name,
        "description": f"{metadata['network']}{patched}, exported by exda_primitives {metadata['version']}",
        "task": TASK,
        "arch": "generic",
        "backend": "onnx",
        "version": "1.0",
        "tiling": True,
    }
    # Through memory: the file that is packed is the one that is written.
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        archive.writestr(f"{identity}/config.json", json.dumps(config, indent=4) + "\n")
        archive.write(file, f"{identity}/model.onnx")
    file.write_bytes(packed.getvalue())


def package_id(name: str) -> str:
    """Returns the id that darktable's rules make of a name: task, then lower-case words, joined by hyphens.

    Examples:
        >>> package_id("My Restormer_2"), package_id("denoise-mine")
        ('denoise-my-restormer-2', 'denoise-mine')
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "network"
    return words if words.startswith(f"{TASK}-") else f"{TASK}-{words}"
