"""Checks how a module's forward is called."""

from __future__ import annotations

from inspect import Parameter, signature

from torch import nn


def signature_problem(module: nn.Module, inputs: int, kind: str, extra: int = 0) -> str | None:
    """Returns why a module's forward does not take exactly these arguments; None if it does.

    Args:
        module: the module.
        inputs: number of maps.
        kind: what takes such arguments ("this attention"), for the message.
        extra: number of arguments after the maps.
    """
    if "forward" in vars(module):
        return "its forward was replaced on the instance, by another patching library perhaps; undo that first"
    required = [Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD]
    arguments = list(signature(module.forward).parameters.values())
    if len(arguments) != inputs + extra or any(a.kind not in required for a in arguments):
        given = ", ".join(map(str, arguments))
        more = f" and {extra} argument{'s' if extra > 1 else ''} more" if extra else ""
        return f"its forward takes ({given}), {kind} takes {inputs} map{'s' if inputs > 1 else ''}{more}"
    return None
