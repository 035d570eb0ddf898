"""Puts ExDA into a model in place and takes it out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from typing_extensions import Unpack

from ..errors import AlreadyPatchedError, ConfigError, NoMatchError, NotPatchedError, RootModuleError, condensed
from ..primitives import ExDAConfig, ExDAModule, ExDAOptions
from ..surgery.copies import has_weights
from ..surgery.swap import Replacement, give_back, swap
from ..surgery.wrappers import canonical, unwrap
from .backbones import stages_in
from .options import configured
from .plan import ResolvedPlan, resolve
from .present import by_module, patched_attentions
from .recognise import Found
from .report import Report
from .select import Patterns, select
from .verify import verify as verify_pair

_KEYWORDS = ("include", "exclude", "families", "verify")


def patch(
    model: nn.Module,
    config: ExDAConfig | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    families: Sequence[str] | str | None = None,
    verify: bool = True,
    **options: Unpack[ExDAOptions],
) -> Report:
    """Replaces every recognised attention of ``model`` by its ExDA form, in place.

    The parameters of the host (the model as it was) keep their objects, names, dtype, device, mode and hooks. With
    ``init="identity"``, the default, the model's outputs are unchanged until the new parameters are trained. Either
    every selected attention is replaced or, on any error, none. Attentions that are patched already stay as they are;
    to use another configuration elsewhere in the model, call ``patch`` again with another selection.

    Args:
        model: any module, trained or not; not yet wrapped in DataParallel, DDP or FSDP. A compiled model is patched
            inside.
        config: what to add; ``ExDAConfig()`` by default.
        include: pattern or patterns of names or stages (``"decoder"``, ``"encoder_level1.*"``); default: all.
        exclude: pattern or patterns of attentions to leave alone; wins over ``include``.
        families: names of the families to look for; default: all that are registered.
        verify: compare each host with its replacement, with the model's own weights, before anything is replaced.
        options: options of ``ExDAConfig`` by keyword, on top of ``config``.

    Returns:
        The report of what was replaced. A second call with the same configuration changes nothing and says so.

    Raises:
        NoMatchError: when no attention is recognised (the message lists near misses), or none of them is selected.
        PatternError: for a pattern or a family that selects nothing.
        AlreadyPatchedError: when a selected attention is patched already with another configuration.
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.
        RootModuleError: when the model itself is the attention.
        ConfigError: for options that do not exist or do not fit one of the attentions.
        VerificationError: when a replacement does not compute what its host does.

    Examples:
        >>> import torch, exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).eval()
        >>> image = torch.rand(1, 3, 16, 16)
        >>> before = model(image)
        >>> len(exda.patch(model).matches)
        8
        >>> torch.allclose(model(image), before, atol=1e-5)
        True

        Tokens in the encoder, the non-linear value in the decoder:

        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model, tokens=2, value="none", include="encoder")
        >>> report = exda.patch(model, tokens=0, include="decoder")
        >>> len(report.already_patched), len(report.matches)
        (3, 3)
    """
    resolved = resolve(model, configured("patch", config, options, _KEYWORDS), include, exclude, families)
    report = resolved.report
    if resolved.conflict is not None:
        raise AlreadyPatchedError(resolved.conflict)
    if not resolved.found:
        if resolved.selected:
            return replace(report, notes=(*report.notes, "patched with this configuration before: nothing to do"))
        raise NoMatchError(_no_match(resolved))
    if any("" in found.names for found in resolved.found):
        raise RootModuleError(
            f"{report.model} is itself the attention: it has no parent in which it could be replaced. Build the "
            f"replacement with exda.from_host(attention) and put it where the attention was."
        )
    # All replacements are built and verified before the first one is put in place: an error changes nothing. A module
    # with several names gets one replacement under all of them, so that it stays shared.
    replacements = [(found, _build(found, report.config, verify)) for found in resolved.found]
    swap(
        resolved.target,
        {name: Replacement(module, found.family.parent_hook) for found, module in replacements for name in found.names},
    )
    notes = report.notes
    if verify and not all(has_weights(module) for _, module in replacements):
        notes = (*notes, "modules on the meta device were not verified: there are no weights to compare with")
    return replace(report, applied=True, notes=notes)


def unpatch(model: nn.Module, *, include: Patterns = None, exclude: Patterns = None) -> tuple[str, ...]:
    """Puts the original host modules back, with their weights, mode and hooks as they are now.

    Args:
        model: a model that ``patch`` changed.
        include: pattern or patterns of attentions to put back, as for ``patch``; default: all.
        exclude: pattern or patterns of attentions to leave patched; wins over ``include``.

    Returns:
        The names of the modules that were put back. The new parameters are gone with their modules: save them first.

    Raises:
        NotPatchedError: when there is nothing to put back.
        WrappedModelError: for DataParallel, DDP, FSDP and script modules, and for an attention whose forward was
            replaced since. An attention that ``torch.compile`` or ``checkpoint_wrapper`` wrapped since is no error: the
            wrapper then holds the host.
        PatternError: for a pattern that selects nothing of what is patched.
    """
    target, _ = unwrap(model, "unpatch")
    ours = patched_attentions(target)
    if not ours:
        raise NotPatchedError(f"{type(target).__name__} holds no attention that exda.patch put there.")
    if include is not None or exclude is not None:
        ours = _selected(target, ours, include, exclude)
    if "" in ours:
        raise RootModuleError(
            f"the model is itself an {type(target).__name__} in place of a host: its method release() gives that back."
        )
    give_back(target, ours, "unpatch")
    return tuple(ours)


def _selected(
    target: nn.Module, ours: dict[str, ExDAModule], include: Patterns, exclude: Patterns
) -> dict[str, ExDAModule]:
    chosen = select(stages_in(target, by_module(ours)), include, exclude, "patched")
    names = {name for each in chosen for name in each}
    if not names:
        raise NotPatchedError(
            f"{type(target).__name__}: include and exclude leave none of the {len(ours)} patched attentions."
        )
    return {name: module for name, module in ours.items() if name in names}


@contextmanager
def patched(
    model: nn.Module,
    config: ExDAConfig | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    families: Sequence[str] | str | None = None,
    verify: bool = True,
    **options: Unpack[ExDAOptions],
) -> Iterator[Report]:
    """Patches for the length of a ``with`` block; at its end it puts back what it replaced, and nothing else."""
    asked = configured("patched", config, options, _KEYWORDS)
    report = patch(model, asked, include=include, exclude=exclude, families=families, verify=verify)
    try:
        yield report
    finally:
        undo(model, report)


def undo(model: nn.Module, report: Report) -> None:
    """Puts back what the call of ``patch`` that returned ``report`` replaced, and nothing else."""
    names = {name for match in report.matches for name in (match.name, *match.aliases)} if report.applied else set()
    # A wrapper that was put on since adds its attribute to names: compare them without it.
    names = {canonical(name) for name in names}
    target, _ = unwrap(model, "unpatch")
    ours = {name: module for name, module in patched_attentions(target).items() if canonical(name) in names}
    give_back(target, ours, "unpatch")


def from_host(
    attention: nn.Module,
    config: ExDAConfig | None = None,
    *,
    families: Sequence[str] | str | None = None,
    verify: bool = True,
    **options: Unpack[ExDAOptions],
) -> ExDAModule:
    """Returns an ExDA attention around the layers of a single host attention, for you to put in place yourself.

    It gets no hook on a parent: an ``ExDAXCAttention`` with tokens or a value with a convolution needs the size of its
    map from its attribute ``grid``, or from ``grid=`` in every call.

    Args:
        attention: the attention itself; it shares its layers with the result.
        config: what to add; ``ExDAConfig()`` by default.
        families: names of the families to look for; default: all that are registered.
        verify: as for ``patch``.
        options: options of ``ExDAConfig`` by keyword, on top of ``config``.

    Raises:
        NoMatchError: when ``attention`` itself is not recognised; attentions inside it do not count.
        ConfigError, VerificationError, WrappedModelError: as for ``patch``.
    """
    asked = configured("from_host", config, options, ("families", "verify"))
    resolved = resolve(attention, asked, None, None, families)
    found = next((found for found in resolved.found if "" in found.names), None)
    if found is None:
        inside = condensed([each.names[0] for each in resolved.found])
        hint = f"\n  It holds attentions, {inside}: from_host takes one, exda.patch all of them." if inside else ""
        # ``choices=0``: the message about include and exclude, which from_host does not have, would be wrong.
        raise NoMatchError(_no_match(resolved._replace(choices=0)) + hint)
    return _build(found, asked, verify)


def _build(found: Found, config: ExDAConfig, verify: bool) -> ExDAModule:
    # Parameters that are created in inference mode can never be trained.
    with torch.inference_mode(False):
        replacement = found.family.replacement.adopt(found.module, found.parts, config, found.names[0])
    wanted = replacement.host_parameter().device
    for name, parameter in replacement.new_parameters().items():
        if parameter.device != wanted:
            raise ConfigError(
                f"{found.names[0]}: its new {name} came out on {parameter.device}, where the attention is on {wanted}: "
                f"something puts all parameters there while it is active, as accelerate's init_empty_weights does. "
                f"Nothing was changed. Patch outside of it, or build the model inside as well."
            )
    if verify and has_weights(replacement):
        verify_pair(found.module, replacement, found.family)
    return replacement


def _no_match(resolved: ResolvedPlan) -> str:
    report = resolved.report
    if resolved.choices:
        line = f"{report.model}: include and exclude leave none of the {resolved.choices} attentions recognised."
        return f"{line} It also has ExDA attentions built in." if report.built_in else line
    if report.present:
        how = "built in" if report.built_in else "patched"
        names = condensed([each.name or "(the model itself)" for each in report.present])
        lines = [f"{report.model}: has {len(report.present)} ExDA attentions already, {how}, and no other: {names}."]
    else:
        lines = [f"{report.model}: no attention of a known family was recognised."]
    lines += [f"  near miss: {near_miss}" for near_miss in report.near_misses]
    lines.append("  exda.plan(model) lists this as data; exda.register_adapter adds a family that is missing.")
    return "\n".join(lines)
