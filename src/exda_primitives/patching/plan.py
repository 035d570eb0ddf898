"""The dry run: everything that ``patch`` does before it changes the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn
from typing_extensions import Unpack

from ..errors import ConfigError
from ..primitives import ExDAConfig, ExDAModule, ExDAOptions
from ..primitives.config import REPLACING
from ..primitives.layers import width_of
from ..surgery.wrappers import unwrap
from .backbones import Location, backbones_in, idle_stages, location_of, multiple_of, stages_of
from .options import configured
from .present import by_module
from .recognise import Found, replaceable, survey
from .registry import known_families
from .report import Match, Present, Report
from .select import Patterns, choose_families, select


class ResolvedPlan(NamedTuple):
    """What a call of ``patch`` will do.

    Attributes:
        target: the module inside of which attentions are replaced: the model, or what a compiled model holds.
        report: the plan's report.
        found: the modules of ``report.matches``, in the same order.
        selected: by name, attentions that the call selects and that were patched before.
        conflict: the error's message if one of ``selected`` has another configuration, else None.
        choices: number of attentions to select from, patched or not.
    """

    target: nn.Module
    report: Report
    found: tuple[Found, ...]
    selected: Mapping[str, ExDAModule]
    conflict: str | None
    choices: int


def plan(
    model: nn.Module,
    config: ExDAConfig | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    families: Sequence[str] | str | None = None,
    **options: Unpack[ExDAOptions],
) -> Report:
    """Says what ``patch`` with the same arguments would do, and changes nothing.

    Args:
        model: any module.
        config: what to add; ``ExDAConfig()`` by default.
        include: pattern or patterns of names or stages; by default every attention that is recognised.
        exclude: pattern or patterns of attentions to leave alone; wins over ``include``.
        families: names of the families to look for; by default all that are registered.
        options: options of ``ExDAConfig`` by keyword, on top of ``config``.

    Returns:
        Matches with their extra cost, near misses with the reason, and the ExDA attentions that the model has already.
        Where ``patch`` would raise NoMatchError, the report has no matches; where it would raise AlreadyPatchedError,
        the report has a note.

    Raises:
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.
        PatternError: for a pattern or a family that selects nothing.
        ConfigError: for options that do not exist or do not fit one of the matches.

    Examples:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.plan(model, tokens=2, include="decoder")
        >>> [match.name for match in report.matches]
        ['decoder_level3.0.attn', 'decoder_level2.0.attn', 'decoder_level1.0.attn']
    """
    asked = configured("plan", config, options, ("include", "exclude", "families"))
    resolved = resolve(model, asked, include, exclude, families)
    report = resolved.report
    return report if resolved.conflict is None else replace(report, notes=(*report.notes, resolved.conflict))


def resolve(
    model: nn.Module,
    config: ExDAConfig,
    include: Patterns,
    exclude: Patterns,
    families: Sequence[str] | str | None,
) -> ResolvedPlan:
    """Works out what ``patch`` with these arguments would do; raises the errors of ``plan``."""
    target, notes = unwrap(model)
    wanted = tuple(choose_families(known_families(), families))
    seen = replaceable(target, survey(target, wanted, unknown=families is None))
    backbones = backbones_in(target)
    present = by_module(seen.present)
    # ``families`` restricts the attentions that are there already as well, by the class that replaces each family.
    replacements = {family.replacement for family in wanted}
    alike = {names: module for names, module in present.items() if families is None or type(module) in replacements}
    # Patterns may also name built-in attentions, but only patched ones can be in conflict with this call.
    ours = {names: module for names, module in alike.items() if module.replaces_host}
    attentions = [*[each.names for each in seen.found], *alike]
    locations = {names: location_of(backbones, names[0]) for names in attentions}
    chosen = select(stages_of(locations), include, exclude)
    found = tuple(each for each in seen.found if each.names in chosen)
    selected = {names[0]: module for names, module in ours.items() if names in chosen}
    if found and config.value in REPLACING:
        notes += (f"value={config.value!r} has no start as the host's own function: the outputs change at once",)
    extensions = sorted({each.family.name for each in found if each.family.extension})
    notes += tuple(
        f"{name}: an extension of this library; the paper puts its primitives only into attention across channels"
        for name in extensions
    )
    report = Report(
        model=type(target).__name__,
        applied=False,
        config=config,
        matches=_matches(found, config, locations),
        near_misses=seen.near_misses,
        present=tuple(Present(names[0], each.config, not each.replaces_host) for names, each in present.items()),
        multiple_of=multiple_of(backbones),
        notes=(*notes, *_scripted_parts(target), *idle_stages(target, backbones)),
    )
    return ResolvedPlan(target, report, found, selected, _conflict(selected, config), len(seen.found) + len(ours))


def _conflict(selected: Mapping[str, ExDAModule], config: ExDAConfig) -> str | None:
    others = [name for name, module in selected.items() if module.config != config.resolved(module.channels_per_head)]
    if not others:
        return None
    more = f", and {len(others) - 1} more have another configuration, too" if len(others) > 1 else ""
    return (
        f"{others[0]}: is patched already with {selected[others[0]].config}, this call asks for {config}{more}. Select "
        f"only unpatched attentions with include= or exclude=, or first put hosts back with "
        f"exda.unpatch(model, include=...)."
    )


def _scripted_parts(model: nn.Module) -> Iterator[str]:
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and not name.startswith(inside):
            inside = (*inside, f"{name}.")
            yield f"{name} is scripted or traced: nothing inside it can be recognised"


def _matches(
    found: Sequence[Found], config: ExDAConfig, locations: Mapping[tuple[str, ...], Location]
) -> tuple[Match, ...]:
    # A network has few different attentions: one replacement of each size is built.
    known: dict[tuple[type[ExDAModule], int, int], ExDAModule] = {}
    matches = []
    for each in found:
        try:
            size = each.family.replacement, *_sizes(each)
            if size not in known:
                known[size] = _meta_module(*size, config)
        except ConfigError as error:
            raise ConfigError(f"{each.names[0]}: {error}") from None
        matches.append(_match(each, known[size], locations[each.names]))
    return tuple(matches)


def _meta_module(kind: type[ExDAModule], dim: int, heads: int, config: ExDAConfig) -> ExDAModule:
    # On the meta device, plain arguments suffice: only names, shapes and costs are asked for.
    return kind(dim, heads, **config.resolved(dim // heads).as_dict(), device="meta")


def _match(found: Found, meta_module: ExDAModule, location: Location) -> Match:
    name, *aliases = found.names
    backbone, stage = location
    new = meta_module.new_parameters()
    # Large, so that pooled sides, which are rounded up, hardly change the figure per pixel.
    side = 1024
    return Match(
        name=name,
        aliases=tuple(aliases),
        family=found.family.name,
        dim=meta_module.dim,
        heads=meta_module.num_heads,
        config=meta_module.config,
        backbone=backbone.name if backbone else None,
        stage=stage.stage if stage else None,
        downscale=stage.downscale if stage else None,
        new_parameters=tuple(f"{name}.{key}" if name else key for key in new),
        extra_parameters=sum(parameter.numel() for parameter in new.values()),
        extra_macs_per_pixel=meta_module.extra_macs(side, side) / side**2,
    )


def _sizes(found: Found) -> tuple[int, int]:
    """Returns C and h."""
    kind = found.family.replacement
    return width_of(getattr(found.module, found.parts[kind.PARTS[-1]])), kind.heads_of(found.module, found.parts)
