"""Puts ExDA into a model in place, and takes it out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from ..errors import AlreadyPatchedError, ConfigError, NoMatchError, NotPatchedError, RootModuleError
from ..primitives import ExDAConfig, ExDAModule
from .copies import has_weights
from .plan import draft
from .recognise import Found
from .report import Report
from .select import Patterns
from .swap import Holding, give_back, swap
from .verify import verify as verify_pair
from .wrappers import canonical, unwrap


def patch(
    model: nn.Module,
    config: ExDAConfig | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    families: Sequence[str] | str | None = None,
    verify: bool = True,
) -> Report:
    """Replaces every recognised attention of ``model`` by its ExDA form, in place.

    The host's parameters keep their objects, names, dtype, device, mode and hooks; with ``init="identity"``, the
    default, the model's outputs are unchanged until the new parameters are trained. Either everything is replaced or,
    on any error, nothing.

    Args:
        model: any module, trained or not; not yet wrapped in DataParallel, DDP or FSDP. A compiled one is patched
            inside.
        config: what to add; ``ExDAConfig()`` by default.
        include: pattern or patterns of names or stages (``"decoder"``, ``"encoder_level1.*"``); default: all.
        exclude: pattern or patterns of those to leave alone; wins over ``include``.
        families: names of the families to look for; default: all that are registered.
        verify: compare each host and its replacement, with the model's own weights, before anything is replaced.

    Returns:
        The report of what was replaced. A second call with the same configuration changes nothing and says so.

    Raises:
        NoMatchError: when nothing is recognised, with the near misses, or nothing of it is selected.
        PatternError: for a pattern or a family that selects nothing.
        AlreadyPatchedError: for a model patched with another configuration.
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.
        RootModuleError: when the model itself is the attention.
        ConfigError: for options that do not fit one of the attentions.
        VerificationError: when a replacement does not compute what its host does.

    Example:
        >>> import torch, exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).eval()
        >>> image = torch.rand(1, 3, 16, 16)
        >>> before = model(image)
        >>> len(exda.patch(model).matches)
        8
        >>> torch.allclose(model(image), before, atol=1e-5)
        True
    """
    config = config or ExDAConfig()
    _refuse_other_config(unwrap(model)[0], config)
    drafted = draft(model, config, include, exclude, families)
    report = drafted.report
    if not drafted.found:
        if report.already_patched:
            return replace(report, notes=(*report.notes, "patched with this configuration before: nothing to do"))
        raise NoMatchError(_no_match(report, drafted.recognised))
    if any("" in found.names for found in drafted.found):
        raise RootModuleError(
            f"{report.model} is itself the attention: it has no parent in which it could be replaced. Build the "
            f"replacement with exda.from_host(attention) and put it where the attention was."
        )
    replacements = [(found, _build(found, config, verify)) for found in drafted.found]
    swap(
        drafted.target,
        {name: Holding(module, found.family.parent_hook) for found, module in replacements for name in found.names},
    )
    notes = report.notes
    if verify and not all(has_weights(module) for _, module in replacements):
        notes = (*notes, "modules on the meta device were not verified: there are no weights to compare with")
    return replace(report, applied=True, notes=notes)


def unpatch(model: nn.Module) -> tuple[str, ...]:
    """Puts the very host modules back, with their weights, mode and hooks as they are now.

    Args:
        model: a model that :func:`patch` changed.

    Returns:
        The names of the modules that were put back. The new parameters are gone with their modules; save them before.

    Raises:
        NotPatchedError: when there is nothing to put back.
        WrappedModelError: for DataParallel, DDP, FSDP and script modules, and for an attention whose forward somebody
            replaced since; what ``torch.compile`` or ``checkpoint_wrapper`` wrapped since holds the host then.
    """
    target, _ = unwrap(model, "unpatch")
    ours = patched_attentions(target)
    if not ours:
        raise NotPatchedError(f"{type(target).__name__} holds no attention that exda.patch put there.")
    if "" in ours:
        raise RootModuleError(
            f"the model is itself an {type(target).__name__} in place of a host: its method release() gives that back."
        )
    give_back(target, ours, "unpatch")
    return tuple(ours)


@contextmanager
def patched(
    model: nn.Module,
    config: ExDAConfig | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    families: Sequence[str] | str | None = None,
    verify: bool = True,
) -> Iterator[Report]:
    """:func:`patch` for the length of a ``with`` block; puts back at its end what it replaced, and nothing else."""
    report = patch(model, config, include=include, exclude=exclude, families=families, verify=verify)
    try:
        yield report
    finally:
        undo(model, report)


def undo(model: nn.Module, report: Report) -> None:
    """Puts back what the call of :func:`patch` that returned ``report`` replaced, and nothing else."""
    names = {name for match in report.matches for name in (match.name, *match.aliases)} if report.applied else set()
    # What was wrapped since has other names.
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
) -> ExDAModule:
    """An ExDA attention around the layers of a single host attention, for those who put it into place themselves.

    No parent tells it anything: an :class:`ExDAXCAttention` has to be told the size of its map, by its attribute
    ``grid`` or by ``grid=`` of every call, unless neither tokens nor a value with a convolution are asked for.

    Args:
        attention: the attention itself; it shares its layers with what is returned.
        config: what to add; ``ExDAConfig()`` by default.
        families: names of the families to look for; default: all that are registered.
        verify: as for :func:`patch`.

    Raises:
        NoMatchError: when ``attention`` itself is not recognised (what it contains is not looked at).
        ConfigError, VerificationError, WrappedModelError: as for :func:`patch`.
    """
    config = config or ExDAConfig()
    drafted = draft(attention, config, None, None, families)
    found = next((found for found in drafted.found if "" in found.names), None)
    if found is None:
        raise NoMatchError(_no_match(drafted.report, 0))
    return _build(found, config, verify)


def is_patched(model: nn.Module) -> bool:
    """Whether the model holds an attention that :func:`patch` put there."""
    return bool(patched_attentions(model))


def config_of(model: nn.Module) -> ExDAConfig:
    """The configuration that the model was patched with.

    Raises:
        NotPatchedError: for a model that is not patched.
    """
    module = next(iter(patched_attentions(model).values()), None)
    if module is None:
        raise NotPatchedError(f"{type(model).__name__} is not patched: exda.patch(model) first.")
    return module.config


def new_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that ExDA added, patched in or built in, each once.

    For an optimizer group of their own, or for freezing all the others.

    Example:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model)
        >>> sum(p.numel() for p in exda.new_parameters(model)) == report.extra_parameters
        True
    """
    ours = [module for module in model.modules() if isinstance(module, ExDAModule)]
    return [parameter for module in ours for parameter in module.new_parameters().values()]


def patched_attentions(model: nn.Module, *, aliases: bool = True) -> dict[str, ExDAModule]:
    """What :func:`patch` put into the model, by name; with ``aliases`` a shared one under every name it has."""
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=not aliases)
        if isinstance(module, ExDAModule) and module.replaces_host
    }


def _refuse_other_config(target: nn.Module, config: ExDAConfig) -> None:
    for name, module in patched_attentions(target).items():
        if module.config != config:
            raise AlreadyPatchedError(
                f"{name}: the model is patched with {module.config}, asked for was {config}. exda.unpatch(model) first."
            )


def _build(found: Found, config: ExDAConfig, verify: bool) -> ExDAModule:
    # Parameters made in inference mode could never be trained.
    with torch.inference_mode(False):
        replacement = found.family.replacement.adopt(found.module, found.parts, config, found.names[0])
    wanted = replacement.part(replacement.PARTS[-1]).weight.device
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


def _no_match(report: Report, recognised: int) -> str:
    if recognised:
        return f"{report.model}: include and exclude leave none of the {recognised} attentions that were recognised."
    lines = [f"{report.model}: no attention of a known family was recognised."]
    lines += [f"  near miss: {near_miss}" for near_miss in report.near_misses]
    lines.append("  exda.plan(model) lists this as data; exda.register_adapter teaches a family that is missing.")
    return "\n".join(lines)
