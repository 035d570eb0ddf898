"""The configuration of a training run: network, primitives, data, recipe."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from ...errors import ConfigError
from ...primitives import ExDAConfig
from ...primitives.config import Tokens
from .decode import decode

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Trained = Literal["all", "new", "norms"]
TrackerName = Literal["tensorboard", "wandb"]
LoraLayers = Literal["attention", "all"]
Benchmark = Literal["promptir-3", "promptir-5", "moce-ir-3", "moce-ir-5", "allweather", "cdd11", "amir"]

PATCH, BATCH = 128, 8
"""Defaults of ``data.patch`` and ``recipe.batch``."""
LEAST_PATCH = 8
"""Smallest side of a patch, in pixels."""


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        name: one of ``exda.models.list_models()``, or ``"auto"`` for the network of ``checkpoint``.
        arguments: arguments of its constructor.
        checkpoint: file to start from, in any format that ``exda.models.create`` reads; None for random weights.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None


@dataclass(frozen=True)
class PrimitivesConfig:
    """The primitives, and the attentions that they are put into.

    Attributes:
        tokens, stride, scale, reinject, value, value_position, init: as in ``exda_primitives.ExDAConfig``; ``init``
            None stands for its default, which depends on ``value``. With no tokens and the value ``"none"`` the host
            stays as it is.
        include: patterns of names or stages (``"encoder"``, ``"decoder"``); None for all attentions.
        exclude: patterns of attentions to leave alone.
    """

    tokens: Tokens = 1
    stride: int = 2
    scale: str = "sum"
    reinject: str = "mean"
    value: str = "residual"
    value_position: str = "before"
    init: str | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # Resolves None to the default, which depends on the value.
        object.__setattr__(self, "init", self.options.init)

    @property
    def options(self) -> ExDAConfig:
        """The configuration for ``exda.patch``."""
        given = {each.name: getattr(self, each.name) for each in fields(ExDAConfig)}
        if self.init is None:
            del given["init"]
        try:
            return ExDAConfig(**given)
        except ConfigError as error:
            raise ConfigError(f"primitives: {error}") from None

    @property
    def adds(self) -> bool:
        """Whether anything is added to the host."""
        return self.tokens != 0 or self.value != "none"


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation of the host's convolutions and linear layers, by the library PEFT.

    Source: E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. The product of two low-rank
    matrices is added to a layer's weight with factor 1, and starts at 0. Depthwise and other grouped convolutions are
    not adapted, nor layers into which LoRA cannot be merged exactly: whose weight is also that of another layer or
    computed from other tensors (weight and spectral norm), subclasses of PyTorch's layers, and layers with hooks.

    Attributes:
        rank: rank of each product.
        layers: ``"attention"`` for the layers of the attentions that primitives can be put into, ``"all"`` for those of
            the whole network.
    """

    rank: int
    layers: LoraLayers = "attention"

    def __post_init__(self) -> None:
        _at_least("lora.rank", self.rank, 1)


@dataclass(frozen=True)
class FoldersConfig:
    """Two folders of the user's own pairs, matched by their names without suffixes.

    Attributes:
        degraded: folder of degraded images.
        clean: folder of the clean images, of the same names and sizes.
    """

    degraded: str
    clean: str


@dataclass(frozen=True)
class DataConfig:
    """The pairs of images: clean images that are degraded anew in each epoch, two folders, or a benchmark.

    Attributes:
        source: folder, zip or npz of clean images, two folders of pairs, or the folder of a benchmark's training set.
        degradations: degradations of clean images, each applied to every image; empty for pairs.
        benchmark: one of ``Benchmark``; None for clean images and for two folders.
        whole: whether the benchmark must have its published number of pairs.
        repeats: degradation -> how often an epoch contains it; 1 for those not named.
        patch: side of the square that is cut out of each pair, in pixels; None for ``PATCH``, or for the sides in
            ``recipe.progressive``. Every image must have at least this height and width.
        validation: source of the pairs for validation, which are restored whole: clean images, two folders of pairs,
            or the folder of the benchmark's test set; None for no validation, or for ``held_out``.
        held_out: number of the source's images (or pairs of files), evenly spread by name, that are not trained on
            but validated on, whole; None to train on all. A benchmark has a test set of its own.
        workers: number of processes that prepare pairs; the pairs do not depend on it.
    """

    source: str | FoldersConfig
    degradations: tuple[str, ...] = ()
    benchmark: Benchmark | None = None
    whole: bool = True
    repeats: dict[str, int] = field(default_factory=dict)
    patch: int | None = None
    validation: str | FoldersConfig | None = None
    held_out: int | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if self.patch is not None:
            _at_least("data.patch", self.patch, LEAST_PATCH)
        _at_least("data.workers", self.workers, 0)
        if self.held_out is not None:
            _at_least("data.held_out", self.held_out, 1)
            if self.validation is not None or self.benchmark is not None:
                other = "validation" if self.validation is not None else "benchmark"
                raise ConfigError(f"data.held_out: found {self.held_out} beside data.{other}; leave one of them out.")
        folders = isinstance(self.source, FoldersConfig)
        if [bool(self.degradations), self.benchmark is not None, folders].count(True) != 1:
            raise ConfigError(
                f"data: found degradations {list(self.degradations)}, benchmark {self.benchmark!r} and source "
                f"{self.source!r}, expected one of three: degradations of clean images, a benchmark, or a source of "
                f"two folders, degraded and clean."
            )
        if folders and isinstance(self.validation, str):
            raise ConfigError(
                f"data.validation: found {self.validation!r}, expected two folders, degraded and clean, as the source."
            )


@dataclass(frozen=True)
class StageConfig:
    """A stage of progressive learning, with its own patches and batches.

    Attributes:
        patch: side of the patches, in pixels.
        batch: pairs in a batch of one process (one device).
        until: end of the stage: the number of steps done by then, or below 1 a fraction of the whole length; None for
            the last stage, which lasts to the end of the run.
    """

    patch: int
    batch: int
    until: float | None = None


@dataclass(frozen=True)
class RecipeConfig:
    """How to train: AdamW, with a learning rate that follows a linear warm-up and half a cosine, updated each step.

    Attributes:
        steps: length in optimiser steps; give either this or ``epochs``.
        epochs: length in passes over the data, rounded up to whole steps.
        batch: pairs in a batch of one process (one device); None for ``BATCH``, or for those in ``progressive``.
        progressive: stages in their order, usually with growing patches and shrinking batches; None for one patch and
            one batch size throughout. The length must then be given in ``steps``. Source: Zamir et al., "Restormer",
            CVPR 2022, section 4 (progressive learning).
        accumulate: batches whose gradients are averaged into a step.
        learning_rate: learning rate at the end of the warm-up.
        warm_up: length of the warm-up from 0, as a fraction of the whole length.
        cosine_from: where the cosine begins, as a fraction of the whole length; until then the learning rate stays
            constant. None for the end of the warm-up.
        cosine_to: where the cosine reaches 0, as a multiple of the whole length; None for a constant learning rate.
        weight_decay: weight decay of AdamW.
        l1: weight of the mean absolute difference.
        fft: weight of the mean absolute difference of the Fourier transforms, real and imaginary part. They are not
            normalised, see ``objective.loss_of``: of noise, this term grows in proportion to the side of the patch.
        clip: largest norm of all gradients together; None for no limit.
        precision: ``"32-true"``, or autocast to ``"bf16-mixed"`` or ``"16-mixed"`` (with a scaled loss); weights,
            losses and updates are in float32 in any case.
        ema: decay per step of the moving average of the weights; None for no average.
        seed: seed of weights, order and degradations.
        train: ``"all"`` parameters; only the ``"new"`` ones of primitives and LoRA, with the host frozen, the running
            statistics of its BatchNorm layers included; or the ``"norms"``, which are all parameters of one dimension:
            those of normalisations, and biases.
        log_every: steps between the lines of the history.
        validate_every: steps between validations; None for a single one at the end.
        validation_images: pairs that each validation shows in ``validation.png``, at most; 0 for none.
        save_every: steps between checkpoints.
        log_to: experiment trackers that get each line of the history and each ``validation.png``: ``"tensorboard"``,
            ``"wandb"``.
    """

    steps: int | None = None
    epochs: int | None = None
    batch: int | None = None
    progressive: tuple[StageConfig, ...] | None = None
    accumulate: int = 1
    learning_rate: float = 2e-4
    warm_up: float = 0.0
    cosine_from: float | None = None
    cosine_to: float | None = 1.0
    weight_decay: float = 0.01
    l1: float = 1.0
    fft: float = 0.0
    clip: float | None = None
    precision: Precision = "32-true"
    ema: float | None = None
    seed: int = 0
    train: Trained = "all"
    log_every: int = 100
    validate_every: int | None = None
    validation_images: int = 3
    save_every: int = 1000
    log_to: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError(
                f"recipe: found steps {self.steps} and epochs {self.epochs}, expected one of the two as the length."
            )
        for name in ("steps", "epochs", "batch", "accumulate", "log_every", "validate_every", "save_every"):
            if getattr(self, name) is not None:
                _at_least(f"recipe.{name}", getattr(self, name), 1)
        _at_least("recipe.seed", self.seed, 0)
        _at_least("recipe.validation_images", self.validation_images, 0)
        _within("recipe.learning_rate", self.learning_rate, "above 0", self.learning_rate > 0)
        _within("recipe.warm_up", self.warm_up, "from 0 to 1", 0 <= self.warm_up <= 1)
        if self.cosine_to is not None:
            _within("recipe.cosine_to", self.cosine_to, "of at least 1", self.cosine_to >= 1)
        if self.cosine_from is not None:
            expected = f"from recipe.warm_up ({self.warm_up:g}) to 1"
            _within("recipe.cosine_from", self.cosine_from, expected, self.warm_up <= self.cosine_from <= 1)
            if self.cosine_to is None:
                raise ConfigError("recipe.cosine_from: needs cosine_to; without it there is no cosine.")
        if self.clip is not None:
            _within("recipe.clip", self.clip, "above 0", self.clip > 0)
        if self.ema is not None:
            _within("recipe.ema", self.ema, "between 0 and 1", 0 < self.ema < 1)
        for name in ("weight_decay", "l1", "fft"):
            _within(f"recipe.{name}", getattr(self, name), "of at least 0", getattr(self, name) >= 0)
        if self.l1 == self.fft == 0:
            raise ConfigError("recipe: the weights l1 and fft are both 0; there is no loss to train with.")
        if self.progressive is not None:
            self._check_stages(self.progressive)

    def stage_ends(self) -> list[int]:
        """Returns the number of steps done at the end of each stage of ``progressive``; the last is ``steps``."""
        assert self.progressive is not None
        assert self.steps is not None
        ends = [stage.until for stage in self.progressive if stage.until is not None]
        return [*(round(end * self.steps) if end < 1 else int(end) for end in ends), self.steps]

    def _check_stages(self, stages: tuple[StageConfig, ...]) -> None:
        key = "recipe.progressive"
        if not stages:
            raise ConfigError(f"{key}: found no stage, expected a list of stages, each with patch, batch and until.")
        if self.steps is None:
            raise ConfigError(
                f"{key}: needs the length in recipe.steps, found epochs {self.epochs}: a step takes other numbers of "
                f"pairs in each stage."
            )
        *others, last = (f"{key}[{number}]" for number in range(len(stages)))
        for name, stage in zip((*others, last), stages, strict=True):
            _at_least(f"{name}.patch", stage.patch, LEAST_PATCH)
            _at_least(f"{name}.batch", stage.batch, 1)
        if stages[-1].until is not None:
            raise ConfigError(
                f"{last}.until: found {stages[-1].until:g}, but the last stage lasts to the end of the run; leave "
                f"until out."
            )
        for name, stage in zip(others, stages, strict=False):
            if stage.until is None:
                raise ConfigError(f"{name}.until: is missing; only the last stage lasts to the end of the run.")
            possible = 0 < stage.until < 1 or (stage.until >= 1 and stage.until.is_integer())
            _within(f"{name}.until", stage.until, "of steps, or a fraction between 0 and 1", possible)
        done = 0
        for name, end in zip(others, self.stage_ends(), strict=False):
            if not done < end < self.steps:
                raise ConfigError(
                    f"{name}.until: the stage would last from step {done} to step {end} of {self.steps}; each stage "
                    f"must end after the one before it, and before the run does."
                )
            done = end


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a run; ``exda_primitives.workbench.training.read_config`` describes the file.

    Attributes:
        model: the network.
        primitives: the primitives to add; None for the network as it is.
        data: the pairs.
        recipe: how to train.
        lora: low-rank adaptation of its layers; None to add no LoRA.
    """

    model: ModelConfig
    data: DataConfig
    recipe: RecipeConfig
    primitives: PrimitivesConfig | None = None
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        if self.model.name == "auto" and self.model.checkpoint is None:
            raise ConfigError("model.name: 'auto' needs model.checkpoint, to tell which network is meant.")
        if self.recipe.validate_every is not None and self.data.validation is None and self.data.held_out is None:
            raise ConfigError("recipe.validate_every: needs images, data.validation or data.held_out.")
        if self.recipe.progressive is None:
            patch, batch = self.data.patch or PATCH, self.recipe.batch or BATCH
            object.__setattr__(self, "data", replace(self.data, patch=patch))
            object.__setattr__(self, "recipe", replace(self.recipe, batch=batch))
            return
        for name, value in (("data.patch", self.data.patch), ("recipe.batch", self.recipe.batch)):
            if value is not None:
                raise ConfigError(
                    f"{name}: found {value}, but each stage of recipe.progressive has its own; leave one of them out."
                )

    @classmethod
    def decoded(cls, given: Mapping[str, Any]) -> TrainConfig:
        """Creates a configuration from plain data; ``TrainConfig.decoded(config.as_dict()) == config``.

        Raises:
            ConfigError: for a key that is unknown or missing, and for a value of a wrong type or out of range.
        """
        return decode(cls, given, "")

    def as_dict(self) -> dict[str, Any]:
        """Returns the configuration as plain data, as it is after writing and reading JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


class Difference(NamedTuple):
    """A value that differs between two configurations.

    Attributes:
        key: key of the value with its section, such as ``"recipe.steps"``.
        was: value in the first configuration.
        now: value in the second one.
    """

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.was!r}, is {self.now!r}"

    def within(self, keys: Collection[str]) -> bool:
        """Returns whether the key is one of these, or inside of a section that is."""
        return any(self.key == key or self.key.startswith(f"{key}.") for key in keys)


def differences(held: Mapping[str, Any], given: Mapping[str, Any], key: str = "") -> list[Difference]:
    """Lists the values in which two configurations differ, ordered by key within each section."""
    found = []
    for name in sorted({*held, *given}):
        path = f"{key}.{name}" if key else name
        ours, theirs = held.get(name), given.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += differences(ours, theirs, path)
        elif ours != theirs:
            found.append(Difference(path, ours, theirs))
    return found


def first_of(found: Sequence[Difference]) -> str:
    """Returns the first difference as text, and how many more there are."""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0]}{more}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _at_least(key: str, given: int, least: int) -> None:
    _within(key, given, f"of at least {least}", given >= least)


def _within(key: str, given: float, expected: str, holds: bool) -> None:
    if not holds or not math.isfinite(given):
        raise ConfigError(f"{key}: found {given!r}, expected a number {expected}.")
