"""Walks a model and finds, for every module, the family whose attention it is, or why it only looks like one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from ..primitives import ExDAModule
from ..primitives.base import NEW_NAMES
from ..surgery.references import references
from ..surgery.structure import modules_with_names, structural_key
from ..surgery.wrappers import is_compiled
from .adapter import Family, Mismatch
from .probe import probe
from .report import NearMiss
from .unfamiliar import unfamiliar


class Found(NamedTuple):
    """An attention of the model: all its names there, its family, and name in ``PARTS`` -> attribute."""

    names: tuple[str, ...]
    module: nn.Module
    family: Family
    parts: Mapping[str, str]


class Survey(NamedTuple):
    """What a walk found: attentions to replace, near misses, and by name the ExDA attentions that are there already."""

    found: tuple[Found, ...]
    near_misses: tuple[NearMiss, ...]
    present: dict[str, ExDAModule]


def survey(model: nn.Module, families: Iterable[Family], *, unknown: bool = False) -> Survey:
    """Recognises every attention of ``model`` by shapes and by probe.

    Args:
        model: any module.
        families: the families to look for.
        unknown: also report channel attention of no known family as a near miss.
    """
    families = tuple(families)
    outcomes: dict[Hashable, _Outcome] = {}
    keys: dict[int, Hashable] = {}
    found, near_misses = [], []
    present: dict[str, ExDAModule] = {}
    for module, names in modules_with_names(model, leaves=ExDAModule):
        if isinstance(module, ExDAModule):
            present.update(dict.fromkeys(names, module))
            continue
        # Modules with equal keys share one probe result: a network repeats its blocks.
        key = structural_key(module, keys)
        if key not in outcomes:
            outcomes[key] = _recognise(module, families, unknown)
        outcome = outcomes[key]
        if isinstance(outcome, NearMiss):
            near_misses.append(replace(outcome, name=names[0]))
        elif outcome is not None:
            family, parts = outcome
            # An attention that was compiled by itself has the compiled wrapper as its parent.
            if any(is_compiled(model.get_submodule(name.rpartition(".")[0])) for name in names if name):
                reason = "it is compiled by itself, which binds it to its wrapper; patch before compiling it"
                near_misses.append(NearMiss(names[0], type(module).__name__, family.name, reason))
            else:
                found.append(Found(names, module, family, parts))
    return Survey(tuple(found), tuple(near_misses), present)


def replaceable(model: nn.Module, seen: Survey) -> Survey:
    """Returns what ``survey`` found, with attentions that the model also calls elsewhere as near misses."""
    elsewhere = references(model, [each.module for each in seen.found])
    near_misses = [
        NearMiss(
            each.names[0],
            type(each.module).__name__,
            each.family.name,
            f"{elsewhere[id(each.module)]}; let the model call {each.names[0]!r} instead",
        )
        for each in seen.found
        if id(each.module) in elsewhere
    ]
    found = tuple(each for each in seen.found if id(each.module) not in elsewhere)
    return seen._replace(found=found, near_misses=(*seen.near_misses, *near_misses))


_Outcome = tuple[Family, Mapping[str, str]] | NearMiss | None


def _recognise(module: nn.Module, families: tuple[Family, ...], unknown: bool) -> _Outcome:
    closest: tuple[int, NearMiss] | None = None
    for family in families:
        try:
            candidates = family.candidates(module)
        except Mismatch as mismatch:
            rules, reason = mismatch.rules, mismatch.reason
        else:
            if not candidates:
                continue
            taken = [name for name in NEW_NAMES if hasattr(module, name)]
            if taken:
                rules, reason = _ALL_RULES, f"it has an attribute {taken[0]!r} already, a name that ExDA adds"
            else:
                problems = []
                for parts in candidates:
                    problem = probe(module, family, parts)
                    if problem is None:
                        return family, parts
                    problems.append(problem)
                rules, reason = _ALL_RULES, problems[0]
        if closest is None or rules > closest[0]:
            closest = rules, NearMiss("", type(module).__name__, family.name, reason)
    if closest is not None:
        return closest[1]
    found = unfamiliar(module) if unknown else None
    return None if found is None else NearMiss("", type(module).__name__, *found)


_ALL_RULES = 100
"""Rank of a module that passed all of a family's rules and failed the probe: above any count in a ``Mismatch``."""
