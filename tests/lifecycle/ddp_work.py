"""What each process does in test_ddp."""

import os
import tempfile
from pathlib import Path

import torch
from tests.lifecycle.networks import FEW_BLOCKS, image, loss, trained
from torch.nn.parallel import DistributedDataParallel

import exda_primitives as exda

CASES = (("mdta", False), ("mdta", True), ("cross", False), ("histogram", False))


def network(family, frozen):
    model = trained(family, **FEW_BLOCKS).double()
    if frozen:
        model.requires_grad_(False)
        for parameter in exda.new_parameters(model):
            parameter.requires_grad_(True)
    return model


def image_of(rank):
    return image(seed=rank, dtype=torch.float64)


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def work(rank):
    return {case: _train(*case, rank) for case in CASES} | {"loaded": _saved_and_loaded(rank)}


def _train(family, frozen, rank):
    model = network(family, frozen)
    # AdaIR has parameters that are never used.
    wrapped = DistributedDataParallel(model, find_unused_parameters=family == "cross")
    loss(wrapped, image_of(rank)).backward()
    found = gradients(model)
    torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2).step()
    return {"gradients": found, "state": model.state_dict()}


def _saved_and_loaded(rank):
    """Saves a wrapped network and loads the file after the new parameters were zeroed; returns state and output."""
    model = network("mdta", frozen=False)
    file = Path(tempfile.gettempdir()) / f"exda-ddp-{os.getpid()}.safetensors"
    try:
        exda.save(DistributedDataParallel(model), file)
        with torch.no_grad():
            for parameter in exda.new_parameters(model):
                parameter.zero_()
        wrapped = DistributedDataParallel(model)
        exda.load(wrapped, file)
        return {"state": model.state_dict(), "output": wrapped(image_of(rank)).detach()}
    finally:
        file.unlink(missing_ok=True)
