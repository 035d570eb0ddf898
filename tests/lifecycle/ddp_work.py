"""What each process does in test_ddp."""

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


def picture(rank):
    return image(seed=rank, dtype=torch.float64)


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def work(rank):
    return {case: _train(*case, rank) for case in CASES}


def _train(family, frozen, rank):
    model = network(family, frozen)
    # AdaIR has parameters that are never used.
    wrapped = DistributedDataParallel(model, find_unused_parameters=family == "cross")
    loss(wrapped, picture(rank)).backward()
    found = gradients(model)
    torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2).step()
    return {"gradients": found, "state": model.state_dict()}
