"""Checks that a case computes the right result. A case that fails is not timed.

A case's signals (its output, or the gradients of a training step) are compared with those of the printed formulas in
float64, at the size and on the image that are timed. The allowed error comes from the number format: it is `MARGIN`
times the error that the unpatched original has in this format. A patched case is checked with random ("as if trained")
new parameters against the formulas, and its variant also at identity init against the original.

This check means something only if the primitives change the signals by much more than the allowed error. Where they do
not (Histoformer's sorts turn any rounding into a different image), the variant also has to agree with the formulas in
float64 on a small crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from .cases import ONNX, OPENVINO, REFERENCE, TRAINING, UNPATCHED
from .memory import free_memory, out_of_memory
from .networks import Networks
from .precision import FLOAT32, FLOAT64, Precision
from .steps import Bench, Signals

MARGIN = 2.0
"""Allowed error over the original's own. Above 1, since a different order of operations rounds differently, and the
patched network is not the same network. Measured: the concat-free form's error was 0.92 to 1.13 times the original's
(Restormer and PromptIR at 32 x 32; output and gradients; float32, bf16, fp16; CPU, torch 2.14)."""

MARGINS = {ONNX: 20.0, OPENVINO: 20.0}
"""Replaces `MARGIN` in these modes. These programs approximate functions and order sums in their own way: in float32,
onnxruntime's error was 9e-7, 6.5 times the original's (the demo's network at 256 x 256, onnxruntime 1.32, CPU)."""

MIN_EFFECT = 5.0
"""The check means something if the primitives change the signals by this many times the allowed error."""

CROP = 64
"""Sides of the crop in pixels, at most."""

CROP_TOLERANCE = 1e-6
"""Allowed relative error on the crop, in float64. Far above float64's rounding, as a kernel may hold constants in
float32."""


@dataclass(frozen=True)
class Check:
    """The result of checking a case.

    Attributes:
        against: in words, what the case was compared with.
        error: relative error: root mean square of the difference over that of the reference.
        max_error: largest absolute difference.
        own_error: relative error of the original in the same number format.
        allowed: largest relative error allowed.
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
    """The signals that cases are compared with.

    Attributes:
        format: float64, or float32 where float64 does not fit into memory.
        signals: what the network computes in this format.
    """

    format: Precision
    signals: Signals


@dataclass(frozen=True)
class Distance:
    """The difference between found and expected signals.

    Attributes:
        relative: root mean square of the difference over that of the expected signals, all tensors taken together.
        largest: largest absolute difference.
    """

    relative: float
    largest: float


def distance(found: Signals, expected: Signals) -> Distance:
    """Compares all expected tensors; a missing one makes the distance NaN, an extra one is ignored.

    Examples:
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
    """Returns the relative ``distance`` of one tensor from another."""
    return distance({"": found}, {"": expected}).relative


class Checker:
    """Checks cases against the references of one network on one image: what the printed formulas give in float64.

    Args:
        networks: the networks to check.
        bench: device, task and image of the check.
        patched: whether patched networks are checked as well.

    Raises:
        RuntimeError: PyTorch's own, if even a float32 reference does not fit into memory.
    """

    def __init__(self, networks: Networks, bench: Bench, *, patched: bool) -> None:
        self.networks, self.bench = networks, bench
        # Made first, before anything else takes memory.
        self.original = self._fitting(networks.original)
        self.trained = self._fitting(networks.of(REFERENCE)) if patched else self.original
        self.effect = distance(self.trained.signals, self.original.signals).relative
        self._crops: dict[str, float] = {}
        self._identities: dict[tuple[str, str], float] = {}
        self._own: dict[str, Distance] = {}

    def _fitting(self, model: nn.Module) -> Reference:
        # The second attempt is outside the except block: while the error lives, its traceback keeps the tensors alive.
        try:
            return self._reference(model, FLOAT64)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        free_memory(self.bench.device)
        return self._reference(model, FLOAT32)

    def _reference(self, model: nn.Module, precision: Precision) -> Reference:
        return Reference(precision, self.bench.signals(model, REFERENCE, precision))

    def own(self, precision: Precision) -> Distance:
        """Returns the original's own error in a number format, by the printed formulas."""
        if precision.name not in self._own:
            found = self.bench.signals(self.networks.original, REFERENCE, precision)
            self._own[precision.name] = distance(found, self.original.signals)
        return self._own[precision.name]

    def check_case(self, variant: str, mode: str, precision: Precision, found: Signals) -> Check:
        """Checks the signals of a case, and for a patched variant its identity init and, if needed, the crop.

        Args:
            variant: a name in ``cases.VARIANTS``.
            mode: a name in ``cases.MODES``.
            precision: the case's number format.
            found: the signals that the case computed.
        """
        own, margin = self.own(precision).relative, MARGINS.get(mode, MARGIN)
        allowed = margin * own
        patched = variant not in UNPATCHED
        reference = self.trained if patched else self.original
        apart = distance(found, reference.signals)
        against = f"{reference.format.name}, {'gradients' if self.bench.task == TRAINING else 'output'}"
        problem = None
        # `not a <= b` instead of `a > b`, so that NaN counts as wrong.
        if not apart.relative <= allowed:
            problem = f"error {apart.relative:.2g}, allowed {allowed:.2g}: {margin:g} times the original's own"
        elif patched and not self._identity_error(variant, precision) <= allowed:
            start = self._identity_error(variant, precision)
            problem = f"at identity init error {start:.2g} against the original, allowed {allowed:.2g}"
        elif patched and not self.effect >= MIN_EFFECT * allowed:
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
