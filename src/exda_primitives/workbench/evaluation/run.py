"""Restores degraded images and compares each with its clean one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from typing import Protocol as Callback

from torch import Tensor

from ...errors import ConfigError, ImageError
from ..restoration import Restored, Restorer
from .cases import Case
from .metrics import Score, cropped, measure
from .noise import Noise, sigma_of
from .protocols import Protocol


class Progress(Callback):
    """A callback that is told how far the work is."""

    def __call__(self, case: Case, done: float, total: int) -> None:
        """Receives the current case and the number of cases done, with fractions, out of ``total``."""


def _silent(case: Case, done: float, total: int) -> None:
    pass


@dataclass(frozen=True)
class ImageResult:
    """The result of one case.

    Attributes:
        name: name of the image.
        degradation: ``"rain"``, ``"noise25"``, ...
        height: height of the restored image in pixels.
        width: width of the restored image in pixels.
        restored: score of the restored image against the clean one.
        degraded: score of the degraded image against the clean one, by the same procedure.
        tile: side of the tiles in pixels; None if the image was restored in one piece.
    """

    name: str
    degradation: str
    height: int
    width: int
    restored: Score
    degraded: Score
    tile: int | None


class Summary(NamedTuple):
    """Means over images, or over degradations.

    Attributes:
        degradation: name of the degradation, or ``"average"`` for the mean over all of them.
        images: number of images.
        restored: mean PSNR (infinite if any image's is) and mean SSIM of the restored images.
        degraded: mean PSNR and SSIM of the degraded images.
    """

    degradation: str
    images: int
    restored: Score
    degraded: Score


def selected_degradations(cases: Sequence[Case], degradations: Iterable[str]) -> frozenset[str]:
    """Returns the degradations to evaluate: those given, or all that the cases have.

    Raises:
        ConfigError: there are no cases, or none with one of the given degradations.
    """
    if not cases:
        raise ConfigError("there is nothing to evaluate: no image was given")
    known = dict.fromkeys(case.degradation for case in cases)
    wanted = frozenset(degradations) or frozenset(known)
    unknown = sorted(wanted - set(known))
    if unknown:
        raise ConfigError(f"there are no images of {unknown[0]!r}, only of {', '.join(known)}")
    return wanted


def check(
    cases: Sequence[Case], protocol: Protocol, degradations: Iterable[str] = (), progress: Progress = _silent
) -> str:
    """Reads every image, so that errors show before hours of work.

    Args:
        cases: all cases, also those that are not evaluated.
        protocol: protocol of the evaluation.
        degradations: degradations to evaluate; all by default.
        progress: called after each case.

    Returns:
        Hexadecimal SHA-256 of all names, and of the pixels of the images to evaluate.

    Raises:
        ConfigError: there is nothing to evaluate, or the protocol has no noise or no units for a degradation.
        ImageError: an image cannot be read, is too small, or has another size than its partner.
    """
    wanted = selected_degradations(cases, degradations)
    without_units = sorted(wanted - set(protocol.units)) if protocol.units else ()
    if without_units:
        raise ConfigError(
            f"protocol {protocol.name!r} is only for {', '.join(protocol.units)}, not for {without_units[0]!r}"
        )
    if any(case.is_noise and case.degradation in wanted for case in cases):
        # Raises ConfigError if the protocol adds no noise.
        Noise(protocol, seed=0)
    found = hashlib.sha256()
    for number, case in enumerate(cases, 1):
        images = _read(case, protocol) if case.degradation in wanted else ()
        sizes = [None if image is None else tuple(image.shape) for image in images]
        # File names need not be valid UTF-8.
        found.update(f"{case}\0{sizes}\n".encode("utf-8", "surrogateescape"))
        for image in images:
            if image is not None:
                found.update(image.numpy().tobytes())
        progress(case, number, len(cases))
    return found.hexdigest()


def evaluate(
    restorer: Restorer,
    cases: Sequence[Case],
    protocol: Protocol,
    *,
    degradations: Iterable[str] = (),
    seed: int = 0,
    done: int = 0,
    progress: Progress = _silent,
) -> Iterator[ImageResult]:
    """Evaluates the cases in order.

    Args:
        restorer: restores an image with the network.
        cases: all cases, in the order in which the protocol draws its noise.
        protocol: protocol of the evaluation.
        degradations: degradations to evaluate; all by default.
        seed: seed of the protocol's noise.
        done: number of cases to skip, from the first to evaluate; the others get the same noise as without skipping.
        progress: called before each case, after each tile, and at the end.

    Yields:
        A result for each case that is evaluated and not skipped, in order.

    Raises:
        ConfigError: as ``check``.
        ImageError: as ``check``, or the network does not accept the image or returns NaN or infinity; the message
            names the image.
    """
    wanted = selected_degradations(cases, degradations)
    noise = Noise(protocol, seed) if protocol.noise else None
    for number, case in enumerate(cases):
        progress(case, number, len(cases))
        if case.degradation not in wanted:
            if noise and case.is_noise:
                noise.skip(_cropped(case, case.clean(), protocol).shape)
            continue
        if done > 0:
            done -= 1
            # Drawn and dropped, to bring the generator to where it was.
            if noise and case.is_noise:
                noise.add(_cropped(case, case.clean(), protocol), sigma_of(case.degradation))
            continue
        clean, degraded = _read(case, protocol)
        if degraded is None:
            degraded = (noise or Noise(protocol, seed)).add(clean, sigma_of(case.degradation))

        def on_tile(done: int, total: int, case: Case = case, number: int = number) -> None:
            progress(case, number + done / total, len(cases))

        try:
            restored = restorer(degraded, on_tile)
            result = _result(case, clean, degraded, restored, protocol, restorer)
        except ImageError as error:
            raise ImageError(f"{case}: {error}") from error
        yield result
    progress(cases[-1], len(cases), len(cases))


def summaries(results: Sequence[ImageResult]) -> list[Summary]:
    """Returns a row for each degradation in the order of the results, and their average if there are several.

    The average is over the degradations, not over the images, as in the papers' tables.
    """
    groups: dict[str, list[ImageResult]] = {}
    for result in results:
        groups.setdefault(result.degradation, []).append(result)
    rows = [
        Summary(name, len(group), _mean(each.restored for each in group), _mean(each.degraded for each in group))
        for name, group in groups.items()
    ]
    if len(rows) > 1:
        overall = (_mean(row.restored for row in rows), _mean(row.degraded for row in rows))
        rows.append(Summary("average", len(results), *overall))
    return rows


def as_record(result: ImageResult) -> dict[str, object]:
    """Returns a result as plain data; an infinite PSNR becomes the text ``"inf"``, since JSON has no infinity."""
    return {
        "name": result.name,
        "degradation": result.degradation,
        "height": result.height,
        "width": result.width,
        **figures(result.restored, result.degraded),
        "tile": result.tile,
    }


def from_record(row: Mapping[str, Any]) -> ImageResult:
    """Restores a result from what ``as_record`` returned."""
    restored, degraded = (Score(float(row[f"{of}psnr"]), row[f"{of}ssim"]) for of in ("", "degraded_"))
    return ImageResult(row["name"], row["degradation"], row["height"], row["width"], restored, degraded, row["tile"])


def figures(restored: Score, degraded: Score) -> Mapping[str, float | str]:
    """Returns both scores by name, as plain data."""
    return {
        "psnr": _plain(restored.psnr),
        "ssim": restored.ssim,
        "degraded_psnr": _plain(degraded.psnr),
        "degraded_ssim": degraded.ssim,
    }


def _plain(psnr: float) -> float | str:
    return str(psnr) if psnr == float("inf") else psnr


def _mean(scores: Iterable[Score]) -> Score:
    psnrs, ssims = zip(*scores, strict=True)
    return Score(sum(psnrs) / len(psnrs), sum(ssims) / len(ssims))


def _read(case: Case, protocol: Protocol) -> tuple[Tensor, Tensor | None]:
    """Reads the clean image and the degraded one (None if it is noise to be added), both cropped."""
    clean = case.clean()
    degraded = case.stored() if case.stored else case.made(clean) if case.made else None
    if degraded is not None and degraded.shape != clean.shape:
        sizes = (" x ".join(map(str, image.shape[-2:])) for image in (degraded, clean))
        raise ImageError("{}: the degraded image has {} pixels, the clean one {}".format(case, *sizes))
    return _cropped(case, clean, protocol), None if degraded is None else _cropped(case, degraded, protocol)


def _cropped(case: Case, image: Tensor, protocol: Protocol) -> Tensor:
    try:
        return cropped(image, protocol)
    except ImageError as error:
        raise ImageError(f"{case}: {error}") from error


def _result(
    case: Case, clean: Tensor, degraded: Tensor, restored: Restored[Tensor], protocol: Protocol, restorer: Restorer
) -> ImageResult:
    target = clean.to(restorer.device)
    after, before = (
        measure(image.to(restorer.device), target, protocol, case.degradation) for image in (restored.image, degraded)
    )
    height, width = clean.shape[-2:]
    return ImageResult(case.name, case.degradation, height, width, after, before, restored.tile)
