"""What each process does in test_fsdp."""

import torch
from tests.lifecycle.networks import FEW_BLOCKS, image, loss, trained
from tests.lifecycle.processes import WORLD
from tests.versions import SHARDS_ON_CPUS
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import exda_primitives as exda

FAMILIES = ("mdta", "histogram")


def network(family):
    return trained(family, **FEW_BLOCKS).double()


def image_of(rank):
    return image(seed=rank, dtype=torch.float64)


def optimizer(model):
    return torch.optim.SGD(exda.new_parameters(model), lr=0.1)


def work(rank, folder):
    return {
        family: _flat_by_layers(family, rank)
        | (_train(family, rank, folder) | _by_layers(family, rank) if SHARDS_ON_CPUS else {})
        for family in FAMILIES
    }


def _train(family, rank, folder):
    model, mesh = network(family), init_device_mesh("cpu", (WORLD,))
    for name, module in model.named_modules():
        if name.endswith(("attn", "attn_g")):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    output = model(image_of(rank)).detach()
    loss(model, image_of(rank)).backward()
    gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
    optimizer(model).step()
    for whole in (True, False):
        exda.save(model, folder / f"{family}-{whole}.safetensors", whole=whole)
    return {
        "output": output,
        "patched": exda.is_patched(model),
        # fully_shard splits the first axis, so that a length of 1 cannot be split.
        "sharded": all(p.to_local().numel() < p.numel() for p in exda.new_parameters(model) if len(p) > 1),
        "gradients": gradients,
        "state": get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)),
    }


def _by_layers(family, rank):
    """Shards every convolution by itself, so that it holds its whole weight only during its own call."""
    sharded, mesh = network(family), init_device_mesh("cpu", (WORLD,))
    for module in [module for module in sharded.modules() if isinstance(module, torch.nn.Conv2d)]:
        fully_shard(module, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    output = sharded(image_of(rank)).detach()
    loss(sharded, image_of(rank)).backward()
    gradients = {name: p.grad.full_tensor() for name, p in sharded.named_parameters() if p.grad is not None}
    return {"fully_shard": (output, gradients)}


def _flat_by_layers(family, rank):
    """The same with FullyShardedDataParallel, which keeps the parameters in flat tensors."""
    policy = ModuleWrapPolicy({torch.nn.Conv2d})
    flat = FullyShardedDataParallel(
        network(family), auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
    )
    output = flat(image_of(rank)).detach()
    loss(flat, image_of(rank)).backward()
    with FullyShardedDataParallel.summon_full_params(flat, with_grads=True):
        gradients = {
            name.replace("_fsdp_wrapped_module.", ""): p.grad.clone()
            for name, p in flat.named_parameters()
            if p.grad is not None
        }
    return {"FullyShardedDataParallel": (output, gradients)}
