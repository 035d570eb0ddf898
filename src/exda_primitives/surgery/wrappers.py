"""Wrappers of models: those that can be patched through, and those that must be put on after patching."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import WrappedModelError

# Class name -> the line that wraps a model, for the message.
_REFUSED = {
    "DataParallel": "model = torch.nn.DataParallel({inner})",
    "DistributedDataParallel": "model = torch.nn.parallel.DistributedDataParallel({inner})",
    "FullyShardedDataParallel": "model = FullyShardedDataParallel({inner})",
    "FSDPModule": "fully_shard({inner})",
}

_IN_NAMES = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Parts of names that torch.compile, activation checkpointing and FSDP add to the names of what they wrap."""


def unwrap(model: nn.Module, verb: str = "patch") -> tuple[nn.Module, tuple[str, ...]]:
    """Returns the module inside of which to patch (or do ``verb``), and notes for the report.

    Raises:
        WrappedModelError: for a scripted model, and for DataParallel, DDP and FSDP anywhere in it, whose replicas and
            gradient buckets would silently miss the new parameters; the message holds the line to write instead.
        TypeError: for anything but a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}: {model!r:.80}")
    for name, module in model.named_modules():
        if wrapper := _wrapper(module):
            where = f"{name}: " if name else ""
            inner = "model.module" if not name and hasattr(module, "module") else "model"
            line = _REFUSED[wrapper].format(inner=inner)
            why = ", which would not know the new parameters" if verb == "patch" else ""
            raise WrappedModelError(
                f"{where}the model is wrapped in {wrapper}{why}. {verb.capitalize()} before wrapping: "
                f"exda.{verb}({inner}); {line}"
            )
    if isinstance(model, torch.jit.ScriptModule):
        raise WrappedModelError(
            f"the model is a {type(model).__name__}: a scripted or traced module cannot be changed. "
            f"{verb.capitalize()} the Python module it was made from, then script or export that."
        )
    if is_compiled(model):
        return model.get_submodule("_orig_mod"), (
            "the model is compiled: changed inside, it will be compiled anew at its next call",
        )
    return model, ()


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module`` is what ``torch.compile(module)`` returns."""
    return _descends(module, "OptimizedModule")


def canonical(name: str) -> str:
    """Returns a module's or tensor's name without the parts that wrappers added to it."""
    return ".".join(part for part in name.split(".") if part not in _IN_NAMES)


def calls_its_only_part(module: nn.Module) -> bool:
    """Whether ``module`` is a wrapper that passes its arguments on: torch.compile's or ``checkpoint_wrapper``'s."""
    return is_compiled(module) or _descends(module, "ActivationWrapper")


def _wrapper(module: nn.Module) -> str | None:
    return next((name for name in _REFUSED if _descends(module, name)), None)


def _descends(module: nn.Module, name: str) -> bool:
    # By class name, so that torch.distributed and torch._dynamo need not be imported.
    return any(c.__name__ == name and c.__module__.startswith("torch.") for c in type(module).__mro__)
