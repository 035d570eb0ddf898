"""Packs an ONNX file for darktable's "neural restore" (5.6 and newer): a zip of one folder, as darktable-ai publishes.

The folder has the name of the model's id and holds ``model.onnx`` and ``config.json``. darktable calls the model with
square tiles of the side that ``config.json`` says, (1, 3, side, side) in float32, sRGB in [0, 1]; it refuses a model
that says none (darktable 5.6, src/common/ai/restore.c).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from ...errors import ExDAError
from ..shared.padding import round_up

TASK = "denoise"
"""The task under which darktable lists models that return an image of the same size."""

TILE = 512
"""Side of the tiles in pixels, rounded up to what the network takes; darktable cuts off 64 pixels at each border."""


def check_packable(metadata: Mapping[str, str]) -> None:
    """Refuses a network that darktable cannot call.

    Args:
        metadata: that of the ONNX file.

    Raises:
        ExDAError: for other than three channels.
    """
    channels = metadata["input_channels"], metadata["output_channels"]
    if channels != ("3", "3"):
        raise ExDAError(f"darktable takes networks from 3 channels to 3, this one has {' to '.join(channels)}.")


def pack(file: Path, name: str, metadata: Mapping[str, str]) -> None:
    """Replaces an ONNX file by a package that holds it.

    Args:
        file: the ONNX file; becomes the package.
        name: name that darktable shows; the id is made of it.
        metadata: that of the ONNX file.
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
        "attributes": {"input_sizes": [round_up(max(TILE, int(metadata["least_side"])), int(metadata["multiple"]))]},
    }
    # Through memory: the file that is packed is the one that is written.
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        archive.writestr(f"{identity}/config.json", json.dumps(config, indent=4) + "\n")
        archive.write(file, f"{identity}/model.onnx")
    file.write_bytes(packed.getvalue())


def package_id(name: str) -> str:
    """Returns the id of a package of this name: task, ``exda``, then lower-case words, joined by hyphens.

    A package replaces the one of the same id: ``exda`` keeps it apart from darktable's own. A name without a Latin
    letter or digit gets a hash in place of words.

    Examples:
        >>> package_id("My Restormer_2"), package_id("denoise-mine"), package_id("ネット")
        ('denoise-exda-my-restormer-2', 'denoise-exda-mine', 'denoise-exda-808a1274')
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").removeprefix(f"{TASK}-")
    return f"{TASK}-exda-{words or hashlib.sha256(name.encode()).hexdigest()[:8]}"
