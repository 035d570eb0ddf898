"""How a module is called."""

from __future__ import annotations

from inspect import Parameter, signature

from torch import nn


def signature_problem(module: nn.Module, inputs: int, kind: str, further: int = 0) -> str | None:
    """Why a module is not called with so many maps, so many further arguments and nothing else, as ``kind`` is."""
    if "forward" in vars(module):
        return "its forward was replaced on the instance, by another patching library perhaps; undo that first"
    required = [Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD]
    arguments = list(signature(module.forward).parameters.values())
    if len(arguments) != inputs + further or any(a.kind not in required for a in arguments):
        given = ", ".join(map(str, arguments))
        more = f" and {further} argument{'s' if further > 1 else ''} more" if further else ""
        return f"its forward takes ({given}), {kind} takes {inputs} map{'s' if inputs > 1 else ''}{more}"
    return None
