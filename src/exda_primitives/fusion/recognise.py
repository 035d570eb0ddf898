"""Finds transformer blocks: reads residual steps off the order of calls to children, then proves them numerically."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..patching.recognise import survey
from ..patching.registry import known_families
from ..patching.select import choose_families
from ..primitives import ExDAAttention, ExDAModule
from ..primitives.layers import width_of
from ..surgery.copies import detached, isolated_global_state
from ..surgery.randomness import OwnRandomNumbers
from ..surgery.references import references
from ..surgery.signatures import signature_problem
from ..surgery.structure import modules_with_names, structural_key
from ..surgery.wrappers import is_compiled
from .block import FusedBlock, reserved
from .classes import ClassRecords
from .compare import is_close
from .feed_forward import gated_convolutions
from .norms import norm_form
from .report import LeftAlone
from .settings import UnrecordableError
from .snapshot import Snapshot, snapshot
from .steps import AttentionStep, GatedStep, Step, part_of

# (B, H, W) of three maps. Odd sizes are tried first, then sizes that the usual windows divide, for blocks with windows.
# The second map is scaled to a variance near the eps of the usual norms, so that eps shows; the third is longer than
# windows in use (up to 64).
_SIZES = (((2, 7, 13), (1, 9, 6), (1, 3, 80)), ((2, 16, 32), (1, 32, 16), (1, 16, 80)))
_SCALES = (1.0, 3e-3, 1.0)

Sizes = tuple[tuple[int, int, int], ...]


class Recognised(NamedTuple):
    """What a block was found to be: its steps, its snapshot without them, and the classes whose code they replace."""

    steps: tuple[Step, ...]
    seen: Snapshot
    classes: ClassRecords


class Block(NamedTuple):
    """A block of the model: all its names there, C, and what it was found to be."""

    names: tuple[str, ...]
    module: nn.Module
    channels: int
    recognised: Recognised


class Attention(NamedTuple):
    """A known attention, which makes its parent a candidate: C, and its parts if it is Restormer's, else None."""

    channels: int
    parts: tuple[tuple[str, str], ...] | None


class BlockSurvey(NamedTuple):
    """What a walk found: blocks to fuse, modules left alone, and the names of blocks that are fused already."""

    blocks: tuple[Block, ...]
    left_alone: tuple[LeftAlone, ...]
    present: tuple[str, ...]


def survey_blocks(model: nn.Module) -> BlockSurvey:
    """Recognises every block around a known attention; blocks with equal structural keys are probed once."""
    attentions = _attentions_in(model)
    outcomes: dict[Hashable, Recognised | str] = {}
    keys: dict[int, Hashable] = {}
    blocks: list[Block] = []
    left_alone: list[LeftAlone] = []
    present: list[str] = []
    for module, names in modules_with_names(model, leaves=ExDAModule):
        held = {name: attentions[id(child)] for name, child in _parts_of(module) if id(child) in attentions}
        if isinstance(module, FusedBlock):
            present += names
        elif held and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            key = structural_key(module, keys)
            if key not in outcomes:
                outcomes[key] = _recognised(module, held)
            outcome = outcomes[key]
            if any(is_compiled(model.get_submodule(name.rpartition(".")[0])) for name in names if name):
                outcome = "it is compiled by itself, which binds it to its wrapper; fuse before compiling it"
            if isinstance(outcome, str):
                left_alone.append(LeftAlone(names[0], type(module).__name__, outcome))
            else:
                blocks.append(Block(names, module, next(iter(held.values())).channels, outcome))
    elsewhere = references(model, [block.module for block in blocks])
    left_alone += [
        LeftAlone(block.names[0], type(block.module).__name__, elsewhere[id(block.module)])
        for block in blocks
        if id(block.module) in elsewhere
    ]
    fusible = tuple(block for block in blocks if id(block.module) not in elsewhere)
    return BlockSurvey(fusible, tuple(left_alone), tuple(present))


def _attentions_in(model: nn.Module) -> dict[int, Attention]:
    """Returns id -> attention for every known attention in the model, the host's and ExDA's."""
    seen = survey(model, choose_families(known_families(), None))
    attentions = {}
    for found in seen.found:
        kind = found.family.replacement
        project = getattr(found.module, found.parts[kind.PARTS[-1]])
        attentions[id(found.module)] = Attention(width_of(project), _parts(kind, found.parts))
    for module in seen.present.values():
        attentions[id(module)] = Attention(module.dim, _parts(type(module), module.host_parts))
    return attentions


def _parts(kind: type[ExDAModule], parts: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    return tuple(parts.items()) if kind is ExDAAttention else None


def _recognised(block: nn.Module, held: Mapping[str, Attention]) -> Recognised | str:
    """Returns what a block was found to be, or why the module is none."""
    own = [name for name, _ in (*block.named_parameters(recurse=False), *block.named_buffers(recurse=False))]
    if own:
        return f"it has parameters or buffers of its own ({', '.join(own)})"
    if problem := signature_problem(block, 1, "a block"):
        return problem
    failures = []
    with isolated_global_state():
        # Odd sizes break windows: after an error, the sizes that windows divide are tried.
        for sizes in _SIZES:
            try:
                return _probed(block, held, sizes)
            except UnrecordableError as error:
                return str(error)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    tried = " or of ".join(f"{height} x {width}" for (_, height, width), *_ in _SIZES)
    return f"a copy of it could not be probed on maps of {tried} pixels ({failures[-1]})"


def _probed(block: nn.Module, held: Mapping[str, Attention], sizes: Sizes) -> Recognised | str:
    (copy,) = detached((block,), torch.float64)
    generator = torch.Generator().manual_seed(0)
    _randomise(copy, generator)
    channels = next(iter(held.values())).channels
    maps = tuple(
        scale * torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
        for (batch, height, width), scale in zip(sizes, _SCALES, strict=True)
    )
    calls = _calls(copy, maps[0])
    # A block that calls norm, function, norm, function, ... once each, and leaves out no part with parameters.
    pairs = list(zip(calls[::2], calls[1::2], strict=False))
    uncalled = {name for name, part in _parts_of(copy) if [*part.parameters()]} - {*calls}
    if len(calls) % 2 or len(set(calls)) < len(calls) or uncalled:
        called = ", ".join(calls) or "none of its parts"
        return f"it calls {called}: expected norm, function, norm, function, ..., each once"
    if problem := _difference(copy, pairs, maps):
        return problem
    steps = _kinds(block, copy, pairs, held, maps)
    return steps if isinstance(steps, str) else _recorded(block, steps)


def _randomise(copy: nn.Module, generator: torch.Generator) -> None:
    for parameter in copy.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.normal_(std=fan_in**-0.5, generator=generator)


def _calls(block: nn.Module, x: Tensor) -> list[str]:
    """Returns the names of the parts in the order in which the block calls them."""
    called: list[str] = []
    # Hooks would not run: calls in a detached copy go to ``_compiled_call_impl``, see ``without_global_hooks``. So that
    # is wrapped.
    parts = [(name, part, part._compiled_call_impl or part._call_impl) for name, part in _parts_of(block)]
    for name, part, call in parts:
        vars(part)["_compiled_call_impl"] = partial(_noted, called, name, call)
    try:
        with OwnRandomNumbers():
            block(x.clone())
    finally:
        for _, part, call in parts:
            vars(part)["_compiled_call_impl"] = call
    return called


def _noted(called: list[str], name: str, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    called.append(name)
    return call(*arguments, **keywords)


def _parts_of(block: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields callable children by dotted name: without Identity, and with lists of modules replaced by their items."""
    for name, child in block.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _parts_of(child, f"{prefix}{name}.")
        # Children without parameters count: Histoformer's norms have none.
        elif not isinstance(child, nn.Identity):
            yield f"{prefix}{name}", child


def _difference(block: nn.Module, pairs: list[tuple[str, str]], maps: tuple[Tensor, ...]) -> str | None:
    """Returns how the block differs from ``x = x + function(norm(x))`` for each pair in turn; None if it does not."""
    for training in (True, False):
        block.train(training)
        for x in maps:
            # Both draw the same random numbers. The generators' states reveal what only the block draws (drop path).
            with OwnRandomNumbers() as theirs:
                expected = block(x.clone())
            with OwnRandomNumbers() as ours:
                found = x
                for norm, function in pairs:
                    found = found + part_of(block, function)(part_of(block, norm)(found))
            if not is_close(expected, found) or not ours.drew_as(theirs):
                said = " + ".join(["x", *(f"{function}({norm}(x))" for norm, function in pairs)])
                return f"it does not compute {said}, step by step, in {'training' if training else 'eval'} mode"
    return None


def _kinds(
    block: nn.Module,
    copy: nn.Module,
    pairs: list[tuple[str, str]],
    held: Mapping[str, Attention],
    maps: tuple[Tensor, ...],
) -> tuple[Step, ...] | str:
    """Returns the kind of each step; recognised in ``copy``, with snapshots of the parts of ``block``."""
    steps: list[Step] = []
    for norm, function in pairs:
        form = norm_form(part_of(copy, norm), maps)
        if form is None:
            return f"{norm} is no layer normalisation over the channels that is known"
        attention = held.get(function)
        convolutions = gated_convolutions(part_of(copy, function), maps)
        seen, ours = snapshot(part_of(block, norm), name=norm), part_of(block, function)
        if attention is not None and attention.parts is not None:
            # ``patch`` and ``unpatch`` may exchange the attention later: the snapshot is the host's.
            host = ours.host if isinstance(ours, ExDAModule) else ours
            free = [f"{function}.{name}" for _, name in attention.parts]
            known = None if host is None else snapshot(host, free, function)
            steps.append(AttentionStep(norm, function, form, seen, known, attention.parts))
        elif convolutions is not None:
            steps.append(GatedStep(norm, function, form, seen, snapshot(ours, name=function), convolutions))
        else:
            steps.append(Step(norm, function, form, seen, None))
    return tuple(steps)


def _recorded(block: nn.Module, steps: tuple[Step, ...]) -> Recognised | str:
    """Returns the steps with a snapshot of the block and records of classes, or why a change would not be seen."""
    if name := reserved(block):
        return f"it has an attribute {name}, a name that a fused block needs itself"
    seen = snapshot(block, {name for step in steps for name in (step.norm, step.function)})
    # Kernels take the place of such layers even where they are no part of a snapshot.
    kinds = [*seen.kinds(), *(kind for step in steps for kind in step.kinds()), nn.Conv2d, nn.Linear]
    return Recognised(steps, seen, ClassRecords(kinds))
