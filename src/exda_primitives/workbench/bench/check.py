"""Whether a case computes what it should: a case that does not is not timed.

All signals (outputs, or gradients of a training step) are compared with those of the printed formulas in float64, at
the size and on the image that are timed. A number format has an error of its own: that of the unpatched original,
computed as it is in the format. No case may have more than `MARGIN` times that one, neither at the identity start
(against the original) nor with new parameters as if trained (against the formulas).

Such a check says something only where the primitives change the signals by much more than it allows. Where they do not
(Histoformer's sorts turn any rounding into another image), the variant has to agree with the formulas in float64 on a
small crop as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from .cases import ONNX, REFERENCE, TRAINING, UNPATCHED
from .memory import out_of_memory, tidy
from .networks import Networks
from .precision import FLOAT32, FLOAT64, Precision
from .steps import Bench, Signals

MARGIN = 2.0
"""Another order of the same roundings gives another error, and the patched network is another network. Of Restormer and
PromptIR at 32 x 32, the concat-free form's error was 0.92 to 1.13 times the original's (output and gradients; float32,
bf16, fp16; CPU, torch 2.14)."""

MARGINS = {ONNX: 20.0}
"""By mode, where it is not `MARGIN`: onnxruntime approximates functions and sums in its own ways. In float32 its error
was 6.5 times the original's, 9e-7, of the demo's network at 256 x 256 (onnxruntime 1.32, CPU)."""

TELLING = 5.0
"""How many times larger than the allowed error the primitives' effect has to be for the check to say something."""

CROP = 64
CROP_TOLERANCE = 1e-6
"""In float64, relative; a kernel may hold constants in float32."""


@dataclass(frozen=True)
class Check:
    """What a case was compared with, and how it did.

    Attributes:
        against: the reference.
        error: root mean square of the difference over that of the reference.
        max_error: largest difference.
        own_error: of the original in the same number format.
        allowed: error.
        problem: why the case is wrong, or None.
    """

    against: str
    error: float
    max_error: float
    own_error: float
    allowed: float
    problem: str | None = None


@dataclass(frozen=True)
class Reference:
    """What is compared with.

    Attributes:
        format: float64, or float32 where that does not fit into memory.
        signals: in it.
    """

    format: Precision
    signals: Signals


@dataclass(frozen=True)
class Distance:
    """Between what was found and what was expected."""

    relative: float
    largest: float


def distance(found: Signals, expected: Signals) -> Distance:
    """Over the tensors that are expected; a missing one is NaN away.

    Example:
        >>> import torch
        >>> distance({"a": torch.tensor([3.0, 5.0])}, {"a": torch.tensor([3.0, 4.0])})
        Distance(relative=0.2, largest=1.0)
    """
    square = total = largest = 0.0
    for name, wanted in expected.items():
        if name not in found:
            return Distance(math.nan, math.nan)
        difference = found[name].double() - wanted.double()
        square += float(difference.square().sum())
        total += float(wanted.double().square().sum())
        # Not `max`, which would lose a NaN.
        largest = math.nan if math.isnan(square) else max(largest, float(difference.abs().max()))
    return Distance(math.sqrt(square / total) if total else math.inf, largest)


def relative(found: Tensor, expected: Tensor) -> float:
    """``distance`` of a tensor from another, relatively."""
    return distance({"": found}, {"": expected}).relative


class Judge:
    """The references of one network on one image: what the printed formulas give in float64.

    Args:
        networks: whose references.
        bench: where, and on what.
        patched: whether patched networks are judged as well.

    Raises:
        RuntimeError: PyTorch's own, where there is too little memory for a reference in float32 as well.
    """

    def __init__(self, networks: Networks, bench: Bench, *, patched: bool) -> None:
        self.networks, self.bench = networks, bench
        # Before anything else takes memory.
        self.original = self._fitting(networks.original)
        self.trained = self._fitting(networks.of(REFERENCE)) if patched else self.original
        self.effect = distance(self.trained.signals, self.original.signals).relative
        self._crops: dict[str, float] = {}
        self._identities: dict[tuple[str, str], float] = {}
        self._own: dict[str, Distance] = {}

    def _fitting(self, model: nn.Module) -> Reference:
        # To be left before the next attempt: as long as the error is there, so is all that did not fit.
        try:
            return self._reference(model, FLOAT64)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        tidy(self.bench.device)
        return self._reference(model, FLOAT32)

    def _reference(self, model: nn.Module, precision: Precision) -> Reference:
        return Reference(precision, self.bench.signals(model, REFERENCE, precision))

    def own(self, precision: Precision) -> Distance:
        """The error of the original in a number format, computed as it is printed."""
        if precision.name not in self._own:
            found = self.bench.signals(self.networks.original, REFERENCE, precision)
            self._own[precision.name] = distance(found, self.original.signals)
        return self._own[precision.name]

    def judge(self, variant: str, mode: str, precision: Precision, found: Signals) -> Check:
        """Compares what a case computes with the reference of its weights, and its variant's identity start."""
        own, margin = self.own(precision).relative, MARGINS.get(mode, MARGIN)
        allowed = margin * own
        patched = variant not in UNPATCHED
        reference = self.trained if patched else self.original
        apart = distance(found, reference.signals)
        against = f"{reference.format.name}, {'gradients' if self.bench.task == TRAINING else 'output'}"
        problem = None
        # "Not smaller" rather than "larger": NaN is wrong.
        if not apart.relative <= allowed:
            problem = f"error {apart.relative:.2g}, allowed {allowed:.2g}: {margin:g} times the original's own"
        elif patched and not self._identity_error(variant, precision) <= allowed:
            start = self._identity_error(variant, precision)
            problem = f"at the identity start error {start:.2g} to the original, allowed {allowed:.2g}"
        elif patched and not self.effect >= TELLING * allowed:
            against += f"; float64, a crop of at most {CROP}x{CROP}"
            if not self._crop_error(variant) <= CROP_TOLERANCE:
                problem = f"error {self._crop_error(variant):.2g} in float64, allowed {CROP_TOLERANCE:g}"
        return Check(against, apart.relative, apart.largest, own, allowed, problem)

    def _identity_error(self, variant: str, precision: Precision) -> float:
        key = (variant, precision.name)
        if key not in self._identities:
            found = self.bench.signals(self.networks.of(variant, identity=True), variant, precision)
            self._identities[key] = distance(found, self.original.signals).relative
        return self._identities[key]

    def _crop_error(self, variant: str) -> float:
        if variant not in self._crops:
            image, target = (x[:1, :, :CROP, :CROP] for x in (self.bench.image, self.bench.target))
            crop = Bench(self.bench.device, self.bench.task, image, target)
            found = crop.signals(self.networks.of(variant), variant, FLOAT64)
            expected = crop.signals(self.networks.of(REFERENCE), REFERENCE, FLOAT64)
            self._crops[variant] = distance(found, expected).relative
        return self._crops[variant]
