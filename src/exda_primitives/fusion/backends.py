"""Reports which implementation computes which part of a model, and why not a fused one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ..ops import triton_or_torch
from ..ops.choice import BackendName
from ..ops.dispatch import current_backend, fuses
from ..primitives import ExDAModule
from ..surgery.wrappers import unwrap
from .block import FusedBlock
from .steps import part_of


@dataclass(frozen=True)
class Computed:
    """A part of a model and what computes it.

    Attributes:
        name: full name in the model of the attention, or of the function of a fused block's step.
        what: class of the attention, or kind of the step.
        backend: for an attention ``"reference"``, ``"torch"`` or ``"triton"``; for a step of a fused block
            ``"triton"`` on a GPU, ``"cpu"`` on a CPU, or ``"modules"`` if the block calls its children.
        reason: why no fused backend (``"triton"``, ``"cpu"``) computes it; None if one does.
    """

    name: str
    what: str
    backend: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.name} ({self.what}): {self.backend}" + (f", because {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class BackendReport:
    """What ``backend_report`` found; ``print`` it for a summary, ``as_dict`` gives data.

    Attributes:
        backend: the backend that is set, see ``exda_primitives.backend``.
        parts: attentions and steps of fused blocks, in the model's order.
    """

    backend: str
    parts: tuple[Computed, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain data: strings, lists and dictionaries."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"backend {self.backend!r}, {len(self.parts)} parts"]
        kinds = Counter((part.what, part.backend, part.reason) for part in self.parts)
        for (what, backend, reason), count in kinds.items():
            lines.append(f"  {count} x {what}: {backend}" + (f", because {reason}" if reason else ""))
        return "\n".join(lines)


def backend_report(model: nn.Module, height: int = 256, width: int = 256) -> BackendReport:
    """Says what would compute each ExDA attention and each step of a fused block, here and now.

    "Here" means the device and dtype of the model's parameters; "now" means the current ``exda_primitives.backend`` and
    autocast. Nothing is computed.

    Args:
        model: patched, fused, both, or built from ExDA modules; any other model has no parts.
        height: H in pixels of the maps to ask about.
        width: W in pixels of the maps to ask about.

    Raises:
        WrappedModelError: for DataParallel, DDP, FSDP and script modules.

    Examples:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model)
        >>> with exda.backend("reference"):
        ...     print(exda.backend_report(model))
        backend 'reference', 8 parts
          8 x ExDAAttention: reference, because it is asked for
    """
    target, _ = unwrap(model, "backend_report")
    return BackendReport(current_backend(), tuple(_parts(target, height, width)))


def _parts(model: nn.Module, height: int, width: int) -> Iterator[Computed]:
    # Attentions whose fused step computes them; ``named_modules`` yields a block before its attention.
    in_steps: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, FusedBlock):
            fused = triton_or_torch.computes_steps(next(module.parameters()).device)
            for step, found in module.unsupported_reasons(height, width):
                reason = found if fuses() else f"the backend is {current_backend()!r}"
                function = part_of(module, step.function)
                if step.covers_function and reason is None:
                    in_steps.add(id(function))
                full_name = f"{name}.{step.function}" if name else step.function
                yield Computed(full_name, f"step: {step.kind}", "modules" if reason else fused, reason)
        elif isinstance(module, ExDAModule) and id(module) not in in_steps:
            yield _of_attention(name, module, height, width)


def _of_attention(name: str, module: ExDAModule, height: int, width: int) -> Computed:
    chosen: BackendName = current_backend()
    what = type(module).__name__
    if chosen == "triton":
        reason = module.kernel_unsupported_reason(height, width)
        return Computed(name, what, "torch" if reason else "triton", reason)
    if chosen == "auto":
        return Computed(name, what, "torch", "only fused blocks and exda.backend('triton') use the kernels")
    return Computed(name, what, chosen, "it is asked for")
