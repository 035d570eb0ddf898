"""Networks in FSDP, where each process holds a part of every weight."""

from __future__ import annotations

from torch import Tensor, nn

from .network import tensors_in

_KINDS = ("FSDPModule", "FullyShardedDataParallel")


def is_sharded(model: nn.Module) -> bool:
    """Whether the model, or a part of it, is in FSDP of either kind."""
    # By class name, so that torch.distributed need not be imported.
    return any(kind.__name__ in _KINDS for module in model.modules() for kind in type(module).__mro__)


def gathered_state(model: nn.Module, *, whole: bool) -> dict[str, Tensor] | None:
    """Returns the full weights, on the CPU and by canonical names, in the first process; None in the others.

    All processes have to call it.

    Raises:
        CheckpointError: as for ``tensors_in``, in the first process.
    """
    import torch.distributed as dist  # noqa: PLC0415
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict  # noqa: PLC0415

    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() != 0:
        return None
    return tensors_in(state, whole=whole)
