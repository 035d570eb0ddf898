"""Finds the attentions of a model that can be inspected."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...errors import ConfigError, NoMatchError, NotPatchedError, WrappedModelError
from ...fusion.block import FusedBlock
from ...patching import plan
from ...patching.select import Patterns, select
from ...primitives import ExDAModule
from ...surgery.wrappers import unwrap


def attentions(model: nn.Module, blocks: Patterns = None, *, with_tokens: bool = False) -> dict[str, nn.Module]:
    """Returns ExDA's attentions and the host's that ``exda_primitives.plan`` recognises, in the model's order.

    Args:
        model: patched, not patched, or partly patched.
        blocks: pattern or patterns of names, as ``include`` of ``exda_primitives.patch``; all by default.
        with_tokens: return only attentions with global spatial tokens.

    Returns:
        Name -> attention. An attention that the model holds under several names has the first of them.

    Raises:
        NoMatchError: for a model without any.
        NotPatchedError: if ``with_tokens`` leaves none.
        PatternError: for a pattern that selects nothing.
        ConfigError: for a model that ``exda_primitives.fuse`` changed: its blocks do not call their attentions.
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.
    """
    target = unwrapped(model)
    report = plan(target)
    hosts = {match.name for match in report.matches}
    found = {}
    for name, module in target.named_modules():
        if isinstance(module, FusedBlock):
            raise ConfigError(
                f"{name}: is a fused block, which computes its attention without calling it; call exda.unfuse(model) "
                f"first."
            )
        if isinstance(module, ExDAModule) or name in hosts:
            found[name] = module
    if not found:
        raise NoMatchError(
            "\n  ".join(
                [
                    f"{type(target).__name__}: no attention of a known family was recognised, so there is nothing to "
                    "inspect.",
                    *map(str, report.near_misses),
                ]
            )
        )
    selected = {names[0] for names in select({(name,): None for name in found}, blocks, None)}
    chosen = {name: module for name, module in found.items() if name in selected}
    return those_with_tokens(chosen, target, blocks) if with_tokens else chosen


def those_with_tokens(found: Mapping[str, nn.Module], model: nn.Module, blocks: Patterns) -> dict[str, nn.Module]:
    """Returns those of a model's attentions that have global spatial tokens.

    Args:
        found: what ``attentions(model, blocks)`` returned.
        model: the model, named in the error.
        blocks: the patterns, named in the error.

    Raises:
        NotPatchedError: if there are none.
    """
    chosen = {name: module for name, module in found.items() if has_tokens(module)}
    if not chosen:
        raise NotPatchedError(
            f"{type(model).__name__}: has no ExDA attention with global spatial tokens{_among(blocks)}; "
            "exda.patch(model) adds them, or inspect the attentions' outputs instead."
        )
    return chosen


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the module itself, or the one inside of ``torch.compile``'s wrapper.

    Raises:
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.
    """
    try:
        return unwrap(model)[0]
    except WrappedModelError:
        raise WrappedModelError(
            f"{type(model).__name__}: a model that is scripted, or is or holds a DataParallel, DDP or FSDP module, "
            "cannot be inspected; give the plain module inside, such as model.module."
        ) from None


def _among(blocks: Patterns) -> str:
    return "" if blocks is None else f" among {blocks!r}"


def has_tokens(module: nn.Module) -> bool:
    """Returns whether a module is an ExDA attention with global spatial tokens."""
    return isinstance(module, ExDAModule) and module.token is not None
