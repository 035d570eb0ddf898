"""The dry run: everything that patch would do, up to the point where it would change something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..errors import ConfigError
from ..primitives import ExDAConfig
from .adapter import Backbone, Stage
from .recognise import Found, survey
from .registry import known_backbones, known_families
from .report import Match, Report
from .select import Patterns, choose_families, select
from .wrappers import unwrap


class Draft(NamedTuple):
    """A report, the modules that it speaks of, and how many were recognised before any selection."""

    target: nn.Module
    report: Report
    found: tuple[Found, ...]
    recognised: int


def plan(
    model: nn.Module,
    config: ExDAConfig | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    families: Sequence[str] | str | None = None,
) -> Report:
    """Says what :func:`patch` with the same arguments would do, and changes nothing.

    Args:
        model: any module.
        config: what to add; ``ExDAConfig()`` by default.
        include: pattern or patterns of names or stages; by default every attention that is recognised.
        exclude: pattern or patterns of those to leave alone; wins over ``include``.
        families: names of the families to look for; by default all that are registered.

    Returns:
        Matches with their extra cost, and near misses with the reason. No match is no error here.

    Raises:
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.
        PatternError: for a pattern or a family that selects nothing.
        ConfigError: for options that do not fit one of the matches.

    Example:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.plan(model, include="decoder")
        >>> [match.name for match in report.matches]
        ['decoder_level3.0.attn', 'decoder_level2.0.attn', 'decoder_level1.0.attn']
    """
    return draft(model, config or ExDAConfig(), include, exclude, families).report


def draft(
    model: nn.Module,
    config: ExDAConfig,
    include: Patterns,
    exclude: Patterns,
    families: Sequence[str] | str | None,
) -> Draft:
    """:func:`plan`, with the modules."""
    if not isinstance(config, ExDAConfig):
        raise ConfigError(f"expected an ExDAConfig, got {config!r}; write exda.ExDAConfig(tokens=..., value=..., ...).")
    target, notes = unwrap(model)
    seen = survey(target, choose_families(known_families(), families))
    backbones = _backbones_in(target)
    ours = {name: module for name, module in seen.present.items() if module.replaces_host}
    stages = {found.names: _place(backbones, found.names[0])[1] for found in seen.found}
    stages |= {(name,): _place(backbones, name)[1] for name in ours}
    chosen: set[tuple[str, ...]] = set()
    if stages or include is not None or exclude is not None:
        chosen = select({names: stage.stage if stage else None for names, stage in stages.items()}, include, exclude)
    found = tuple(each for each in seen.found if each.names in chosen)
    report = Report(
        model=type(target).__name__,
        applied=False,
        config=config,
        matches=tuple(_match(each, config, *_place(backbones, each.names[0])) for each in found),
        near_misses=seen.near_misses,
        already_patched=tuple(ours),
        multiple_of=max((backbone.multiple_of for backbone in backbones.values()), default=None),
        notes=notes + tuple(_scripted_parts(target)),
    )
    return Draft(target, report, found, len(seen.found))


def _scripted_parts(model: nn.Module) -> Iterator[str]:
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and not name.startswith(inside):
            inside = (*inside, f"{name}.")
            yield f"{name} is scripted or traced: nothing inside it can be recognised"


def _backbones_in(model: nn.Module) -> dict[str, Backbone]:
    """Prefix -> backbone, for the model and every module in it that is a known network."""
    known = sorted(known_backbones().values(), key=lambda backbone: -len(backbone.children))
    fitting = {}
    for name, module in model.named_modules():
        backbone = next((backbone for backbone in known if backbone.fits(module)), None)
        if backbone is not None:
            fitting[f"{name}." if name else ""] = backbone
    return fitting


def _place(backbones: dict[str, Backbone], name: str) -> tuple[Backbone | None, Stage | None]:
    for prefix, backbone in backbones.items():
        if name.startswith(prefix):
            return backbone, backbone.stage_of(name.removeprefix(prefix))
    return None, None


def _match(found: Found, config: ExDAConfig, backbone: Backbone | None, stage: Stage | None) -> Match:
    name, *aliases = found.names
    try:
        # On the meta device, plain arguments suffice: only names, shapes and costs are asked for.
        sketch = found.family.replacement(*_sizes(found), **config.as_dict(), device="meta")
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    new = sketch.new_parameters()
    side = 1024
    return Match(
        name=name,
        aliases=tuple(aliases),
        family=found.family.name,
        dim=sketch.dim,
        heads=sketch.num_heads,
        backbone=backbone.name if backbone else None,
        stage=stage.stage if stage else None,
        downscale=stage.downscale if stage else None,
        new_parameters=tuple(f"{name}.{key}" if name else key for key in new),
        extra_parameters=sum(parameter.numel() for parameter in new.values()),
        extra_macs_per_pixel=sketch.extra_macs(side, side) / side**2,
    )


def _sizes(found: Found) -> tuple[int, int]:
    """C and h."""
    temperature, *_, project = (getattr(found.module, found.parts[part]) for part in found.family.replacement.PARTS)
    return len(project.weight), temperature.shape[-3]
