"""Writes and reads .pt2 files, networks as programs of ``torch.export``."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

METADATA = "exda_primitives.json"
"""Name of the file within a .pt2 that holds the metadata."""


@contextmanager
def silence_exporters() -> Iterator[None]:
    """Silences PyTorch's exporters, which otherwise print, warn and log; on failure, hundreds of lines of a graph."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def open_sizes(multiple: int) -> tuple[dict[int, Any]]:
    """Returns ``dynamic_shapes`` of one image: batch, height and width dynamic, the sides multiples of a number."""
    # A factor of 1 needs no derived size.
    down, right = (Dim(name) if multiple == 1 else multiple * Dim(name) for name in ("height", "width"))
    return ({0: Dim("batch"), 2: down, 3: right},)


def captured(model: nn.Module, image: Tensor, multiple: int) -> torch.export.ExportedProgram:
    """Returns the network's program for any batch, height and width, the sides multiples of a number."""
    program = torch.export.export(model, (image,), dynamic_shapes=open_sizes(multiple), strict=False)
    # Regions that disable autocast are separate subprograms, which cannot be saved if they compute numbers from sizes;
    # this inlines them.
    return program.run_decompositions({})


def write_pt2(model: nn.Module, image: Tensor, file: Path, multiple: int, metadata: Mapping[str, str]) -> None:
    """Writes a file that ``torch.export.load`` reads, metadata included."""
    with silence_exporters(), torch.no_grad():
        program = captured(model, image, multiple)
    # Through memory, since torch.export.save accepts only file names that end in .pt2.
    held = BytesIO()
    torch.export.save(program, held, extra_files={METADATA: json.dumps(dict(metadata))})
    file.write_bytes(held.getvalue())


def load_pt2(file: Path) -> Callable[[Tensor], Tensor]:
    """Reads a .pt2 file and returns what it computes, as a function of an image (B, C, H, W)."""
    return torch.export.load(BytesIO(file.read_bytes())).module()
