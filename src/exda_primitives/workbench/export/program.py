"""``torch.export``: networks as programs, and their .pt2 files."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

METADATA = "exda_primitives.json"
"""Name of the file in a .pt2 that holds what is known of the network."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without what PyTorch's exporters print, warn and log: where they fail, hundreds of lines of the whole graph."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def captured(model: nn.Module, image: Tensor, multiple: int | None) -> ExportedProgram:
    """A network as a program.

    Args:
        model: in eval mode.
        image: (B, C, H, W) to capture it with; an open batch asks for B > 1.
        multiple: of height and width, which are then open, as is the batch; None for the image's shape alone.
    """
    # A single 1 as factor makes no derived size.
    sides = [Dim(name) if multiple == 1 else (multiple or 1) * Dim(name) for name in ("height", "width")]
    shapes = ({0: Dim("batch"), 2: sides[0], 3: sides[1]},) if multiple else None
    return torch.export.export(model, (image,), dynamic_shapes=shapes, strict=False)


def write_pt2(model: nn.Module, image: Tensor, file: Path, multiple: int, metadata: Mapping[str, str]) -> None:
    """Writes what ``torch.export.load`` reads, with the metadata beside it in the file."""
    # Regions without autocast are programs of their own, whose numbers made of sizes cannot be saved; these are not.
    with quietly(), torch.no_grad():
        program = captured(model, image, multiple).run_decompositions({})
    # By way of memory: of names, it takes those alone that end in .pt2.
    held = BytesIO()
    torch.export.save(program, held, extra_files={METADATA: json.dumps(dict(metadata))})
    file.write_bytes(held.getvalue())


def load_pt2(file: Path) -> Callable[[Tensor], Tensor]:
    """What the file computes."""
    return torch.export.load(BytesIO(file.read_bytes())).module()
