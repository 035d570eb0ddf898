"""Results as files: JSON with their full configuration, CSV with a line per image, Markdown, and a plot."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError
from ...files import write_bytes, write_text
from ..shared import results
from ..shared.files import fingerprint
from .plot import figure
from .protocols import Protocol
from .published import Published
from .run import ImageResult, as_record, figures, from_record, summaries
from .table import markdown

KIND = "evaluate"
FILE = "evaluate.json"
_BESIDE = (".csv", ".md", ".png")
_MATTER = ("torchmetrics", "numpy", "pillow")
"""Packages besides PyTorch that results depend on, for PSNR, noise, and the decoding of images."""


def configuration(
    protocol: Protocol,
    network: Mapping[str, Any],
    source: Mapping[str, Any],
    *,
    degradations: Sequence[str],
    restoring: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Returns all that two results must share for one to replace the other, as JSON restores it.

    Args:
        protocol: protocol of the comparison.
        network: architecture, parameters and files of the network.
        source: where the images come from.
        degradations: the degradations that are evaluated.
        restoring: device, tiles and number format.
        seed: seed of noise and degradations.
    """
    # Without the note, which affects no result.
    steps = {name: value for name, value in asdict(protocol).items() if name != "note"}
    given = {
        "protocol": steps,
        "network": dict(network),
        "source": dict(source),
        "degradations": list(degradations),
        "restoring": dict(restoring),
        "seed": seed,
        "versions": {package: version(package) for package in _MATTER},
    }
    plain: dict[str, Any] = json.loads(json.dumps(given))
    return plain


def file_digest(path: Path) -> dict[str, str]:
    """Returns a file's name and the SHA-256 of its content."""
    return {"file": path.name, "sha256": fingerprint(path)}


def refuse_others(folder: Path, config: Mapping[str, Any]) -> None:
    """Checks, before the work starts, that no other results would be replaced.

    Args:
        folder: folder for the results.
        config: the configuration, see ``configuration``, or the part of it that is known yet.

    Raises:
        ConfigError: the folder holds results of another configuration, kind or version, or other files of the same
            names.
    """
    path = folder / FILE
    if path.exists():
        held = results.read(path, KIND)["config"]
        differing = [name for name in config if held.get(name) != config[name]]
        if differing:
            raise ConfigError(
                f"{path} holds results of another {differing[0]}; give another folder, or --overwrite replaces them"
            )
        return
    others = [path.with_suffix(suffix) for suffix in _BESIDE if path.with_suffix(suffix).exists()]
    if others:
        raise ConfigError(f"{others[0]} exists without {FILE}; give another folder, or --overwrite replaces it")


class Record:
    """Results that are saved as they come, and continued after an interruption.

    Use it in a ``with`` block: new results are saved every few seconds, and at the end of the block even after an
    error. Each file is written whole or not at all.

    Args:
        folder: folder for the results; created if missing.
        config: the configuration, see ``configuration``.
        note: note of the protocol.
        total: number of images to evaluate.
        published: authors' row to show next to the results, or None.
        command: command line that gives the same results.
        device: device that computes.
        overwrite: replace any results in the folder.

    Attributes:
        found: results so far, those already in the folder first.

    Raises:
        ConfigError: as ``refuse_others``, or the results come from another machine, unless ``overwrite``; nothing was
            changed.
    """

    EVERY = 5.0
    """Seconds between two saves."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        note: str,
        total: int,
        published: Published | None,
        *,
        command: str,
        device: torch.device,
        overwrite: bool = False,
    ) -> None:
        self._path, self._note, self._total, self._published = folder / FILE, note, total, published
        self._overwrite = overwrite
        if not overwrite:
            refuse_others(folder, config)
        self._envelope = results.begin(self._path, KIND, config, [config["seed"]], command, device, replace=overwrite)
        self.found: list[ImageResult] = [] if overwrite or not self._path.exists() else self._held()
        self._new, self._written = False, time.monotonic()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        if self._new:
            self._write()

    def add(self, result: ImageResult) -> None:
        """Adds the result of the next image."""
        self.found.append(result)
        self._new = True
        if time.monotonic() >= self._written + self.EVERY:
            self._write()

    def finish(self) -> results.Result:
        """Writes ``evaluate.json``, ``.csv``, ``.md`` and ``.png``, and returns the content of the first.

        Raises:
            ExDAError: Matplotlib is missing.
            OSError: a file cannot be written.
        """
        result = self._write()
        drawn = io.BytesIO()
        figure(result).savefig(drawn, format="png", dpi=150)
        write_text(self._path.with_suffix(".csv"), _csv(result["pictures"]))
        write_text(self._path.with_suffix(".md"), markdown(result))
        write_bytes(self._path.with_suffix(".png"), drawn.getvalue())
        return result

    def _write(self) -> results.Result:
        rows = [
            {
                "degradation": row.degradation,
                "pictures": row.images,
                **figures(row.restored, row.degraded),
                "published": _published_score(self._published, row.degradation),
            }
            for row in summaries(self.found)
        ]
        result = self._envelope | {
            "note": self._note,
            "runs": rows,
            "missing": self._total - len(self.found),
            "published": None
            if self._published is None
            else {
                "trained_on": self._published.trained_on,
                "protocol": self._published.protocol,
                "source": self._published.source,
            },
            "pictures": [as_record(each) for each in self.found],
        }
        results.write(self._path, result, replace=self._overwrite)
        # Once written, the file is this record's own: no further overwriting is needed.
        self._new, self._written, self._overwrite = False, time.monotonic(), False
        return result

    def _held(self) -> list[ImageResult]:
        try:
            return [from_record(row) for row in results.read(self._path, KIND)["pictures"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self._path}: is damaged ({type(error).__name__}: {error}); give another folder, or --overwrite "
                "replaces it"
            ) from None


def _published_score(published: Published | None, degradation: str) -> dict[str, float] | None:
    score = published.scores.get(degradation) if published else None
    return score and score._asdict()


def _csv(images: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    lines = csv.DictWriter(text, fieldnames=list(images[0]), lineterminator="\n")
    lines.writeheader()
    lines.writerows(images)
    return text.getvalue()
