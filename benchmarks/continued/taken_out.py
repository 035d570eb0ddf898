"""What was trained as a file, and whether the host is there without it."""

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
    """Whether, without primitives and LoRA, the network is the host bit for bit: its weights and what it computes.

    Args:
        net: trained.
        host: as it was before.
        images: (C, H, W) in [0, 1].
    """
    # LoRA first: it may stand beside the layers of an attention that is given back.
    bare = deepcopy(without_lora(net, merge=False)).eval()
    if exda.is_patched(bare):
        exda.unpatch(bare)
    ours, theirs = bare.state_dict(), host.state_dict()
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    restored, expected = Restorer(bare), Restorer(host)
    return same and all(torch.equal(restored(image).image, expected(image).image) for image in images)


def bytes_of(net: nn.Module) -> int:
    """Size of a safetensors file of the parameters that are trained."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trained.safetensors"
        trained = {name: each.detach() for name, each in net.named_parameters() if each.requires_grad}
        write_safetensors(trained, {}, path)
        return path.stat().st_size
