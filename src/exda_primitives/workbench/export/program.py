"""``torch.export``: networks as programs, and their .pt2 files."""

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


def open_sizes(multiple: int) -> tuple[dict[int, Any]]:
    """Batch, height and width that are open, the sides multiples, as ``dynamic_shapes`` of one image."""
    # A single 1 as factor makes no derived size.
    down, right = (Dim(name) if multiple == 1 else multiple * Dim(name) for name in ("height", "width"))
    return ({0: Dim("batch"), 2: down, 3: right},)


def write_pt2(model: nn.Module, image: Tensor, file: Path, multiple: int, metadata: Mapping[str, str]) -> None:
    """Writes what ``torch.export.load`` reads, with the metadata beside it in the file."""
    with quietly(), torch.no_grad():
        program = torch.export.export(model, (image,), dynamic_shapes=open_sizes(multiple), strict=False)
        # Regions without autocast are programs of their own, whose numbers made of sizes cannot be saved: no longer.
        program = program.run_decompositions({})
    # By way of memory: of names, it takes those alone that end in .pt2.
    held = BytesIO()
    torch.export.save(program, held, extra_files={METADATA: json.dumps(dict(metadata))})
    file.write_bytes(held.getvalue())


def load_pt2(file: Path) -> Callable[[Tensor], Tensor]:
    """What the file computes."""
    return torch.export.load(BytesIO(file.read_bytes())).module()
