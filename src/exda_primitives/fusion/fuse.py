"""Puts fused blocks into a model in place and takes them out again."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from ..errors import NoMatchError, NotFusedError, RootModuleError
from ..surgery.swap import Replacement, give_back, swap
from ..surgery.wrappers import unwrap
from .block import FusedBlock
from .recognise import Block, BlockSurvey, survey_blocks
from .report import FusedMatch, FusedStep, FusionReport


def fuse(model: nn.Module) -> FusionReport:
    """Replaces every recognised transformer block of ``model`` by one that takes few passes over its maps, in place.

    A block is any module, whatever its class, that holds a known attention (the host's or ExDA's) and computes
    ``x = x + function(norm(x))`` once or several times and nothing else, with layer normalisations over the channels.
    The order in which it calls its children suggests these steps; a randomised copy in float64 proves them. If the
    function is Restormer's attention or its gated feed-forward, norm, function and sum of the step become few passes;
    of a step with any other function (Histoformer's attention with its sorts), only the norm does.

    Every call compares the block, its parts and their classes with what they were: their attributes, private ones and
    the contents of lists and dictionaries included. If one has changed, the modules compute. A block is left alone if
    one of its parts holds an object of any other kind (a tensor that is no buffer, a configuration), or its class does:
    a change within that would not be seen.

    On CUDA GPUs of compute capability 8.0 and newer, Triton kernels compute them. On a CPU, PyTorch's own operators do,
    in float32 and float64: with channels last, a strip of rows at a time, so that no map between a step's input and
    output exists as a whole; in training on whole maps, with the same algebra. Everywhere else the block's own modules
    compute: on other devices, for parts with hooks, and on the CPU for maps of fewer than 512 pixels without gradients,
    in float16, and while the model is compiled, traced or exported; see ``backend_report``. The output has the memory
    format of the input, contiguous or ``channels_last``; on the CPU, a ``channels_last`` input saves copies, and so
    does an ``nn.Sequential`` of blocks, which hand their maps on in that format where nothing else reads them. All
    parameters keep their objects and names; patching, unpatching, loading and training work as before. For inference,
    fuse last and compile or capture the fused model.

    Args:
        model: any module, patched or not; not wrapped in DataParallel, DDP or FSDP.

    Returns:
        The report. A second call fuses what is not fused yet, and lists what was.

    Raises:
        NoMatchError: when no block is recognised; the message lists the modules left alone, with reasons.
        RootModuleError: when the model itself is the block.
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.

    Examples:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> print(exda.fuse(model))
        Restormer: 8 blocks fused
          8 x norm1, attn (attention) + norm2, ffn (gated feed-forward)
        >>> len(exda.unfuse(model))
        8
    """
    target, notes = unwrap(model, "fuse")
    seen = survey_blocks(target)
    if any("" in block.names for block in seen.blocks):
        raise RootModuleError(
            f"{type(target).__name__} is itself the block: it has no parent in which it could be replaced. Put it into "
            f"one first, nn.Sequential(block)."
        )
    if not seen.blocks and not seen.present:
        raise NoMatchError(_no_match(target, seen))
    fused = [(block.names, FusedBlock(block.module, block.channels, *block.recognised)) for block in seen.blocks]
    swap(target, {name: Replacement(module, None) for names, module in fused for name in names})
    _tell_sequences(target, {module for _, module in fused})
    return FusionReport(type(target).__name__, tuple(map(_match, seen.blocks)), seen.left_alone, seen.present, notes)


def unfuse(model: nn.Module) -> tuple[str, ...]:
    """Puts the original blocks back that ``fuse`` replaced, with their contents, mode and hooks as they are now.

    Args:
        model: a model that ``fuse`` changed.

    Returns:
        The names of the blocks that were put back.

    Raises:
        NotFusedError: when there is nothing to put back.
        WrappedModelError: as for ``exda_primitives.unpatch``.
        RootModuleError: when the model itself is a fused block.
    """
    target, _ = unwrap(model, "unfuse")
    fused = {
        name: module for name, module in target.named_modules(remove_duplicate=False) if isinstance(module, FusedBlock)
    }
    if not fused:
        raise NotFusedError(f"{type(target).__name__} holds no block that exda.fuse put there.")
    if "" in fused:
        raise RootModuleError("the model is itself a fused block: its method release() gives the block back.")
    give_back(target, fused, "unfuse")
    return tuple(fused)


def _tell_sequences(target: nn.Module, blocks: Collection[FusedBlock]) -> None:
    """Tells these blocks which plain nn.Sequential of the model calls them, one after the other."""
    for module in target.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            for child in module.children():
                if isinstance(child, FusedBlock) and child in blocks:
                    child.set_sequence(module)


def _match(block: Block) -> FusedMatch:
    name, *aliases = block.names
    return FusedMatch(
        name, tuple(aliases), tuple(FusedStep(step.norm, step.function, step.kind) for step in block.recognised.steps)
    )


def _no_match(target: nn.Module, seen: BlockSurvey) -> str:
    lines = [f"{type(target).__name__}: no transformer block around a known attention was recognised."]
    return "\n".join(lines + [f"  left alone: {each}" for each in seen.left_alone])
