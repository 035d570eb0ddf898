"""Checks that primitives and LoRA come out of a trained network again, and measures their size as a file."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.checkpoints.io import write_safetensors
from exda_primitives.workbench.restoration import Restorer
from exda_primitives.workbench.training.lora import without_lora


def gives_back(net: nn.Module, host: nn.Module, images: Sequence[Tensor]) -> bool:
    """Returns whether the network without primitives and LoRA equals the host bit for bit, in weights and outputs.

    Args:
        net: the trained network; it stays as it is.
        host: the host before the training.
        images: inputs (C, H, W) in [0, 1] on which outputs are compared.
    """
    # LoRA first: it may be on layers inside an attention that ``unpatch`` puts back.
    bare = deepcopy(without_lora(net, merge=False)).eval()
    if exda.is_patched(bare):
        exda.unpatch(bare)
    ours, theirs = bare.state_dict(), host.state_dict()
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    restored, expected = Restorer(bare), Restorer(host)
    return same and all(torch.equal(restored(image).image, expected(image).image) for image in images)


def bytes_of(net: nn.Module) -> int:
    """Returns the size in bytes of a safetensors file of the parameters that were trained."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trained.safetensors"
        trained = {name: each.detach() for name, each in net.named_parameters() if each.requires_grad}
        write_safetensors(trained, {}, path)
        return path.stat().st_size
