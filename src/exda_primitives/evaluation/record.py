"""Results as files: JSON with all that they came from, CSV with a line for each picture, Markdown, and a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import results
from ..bench.machine import machine
from ..errors import ConfigError
from ..files import fingerprint
from ..restoration.images import replace
from .plot import figure
from .protocols import Protocol
from .published import Published
from .run import PictureResult, as_record, figures, summaries
from .table import markdown

KIND = "evaluate"
FILE = "evaluate.json"
_BESIDE = (".csv", ".md", ".png")
_MATTER = ("torchmetrics", "numpy", "pillow")
"""Packages beside PyTorch that figures depend on: PSNR, noise, and the decoding of pictures."""


def configuration(
    protocol: Protocol,
    network: Mapping[str, Any],
    source: Mapping[str, Any],
    *,
    degradations: Sequence[str],
    restoring: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """All that two results must share to replace one another, as JSON gives it back.

    Args:
        protocol: by which pictures are compared.
        network: its architecture, parameters and files.
        source: of the pictures.
        degradations: that are evaluated.
        restoring: device, tiles and number format.
        seed: of noise and degradations.
    """
    # What is only said about a protocol changes no figure.
    steps = {name: value for name, value in asdict(protocol).items() if name != "note"}
    given = {
        "protocol": steps,
        "network": dict(network),
        "source": dict(source),
        "degradations": list(degradations),
        "restoring": dict(restoring),
        "seed": seed,
    }
    plain: dict[str, Any] = json.loads(json.dumps(given))
    return plain


def file_digest(path: Path) -> dict[str, str]:
    """A file's name and the SHA-256 of what it holds."""
    return {"file": path.name, "sha256": fingerprint(path)}


def refuse_others(folder: Path, config: Mapping[str, Any]) -> None:
    """Makes sure, before the work, that no result of anything else would be replaced.

    Raises:
        ConfigError: for a folder that holds results of another configuration, kind or version, or files in the place of
            results.
    """
    path = folder / FILE
    if path.exists():
        held = results.read(path, KIND)["config"]
        unlike = [name for name in {**config, **held} if held.get(name) != config.get(name)]
        if unlike:
            raise ConfigError(
                f"{path} holds results of another {unlike[0]}; give another folder, or --overwrite replaces them"
            )
        return
    others = [path.with_suffix(suffix) for suffix in _BESIDE if path.with_suffix(suffix).exists()]
    if others:
        raise ConfigError(f"{others[0]} exists without {FILE}; give another folder, or --overwrite replaces it")


def write(
    folder: Path,
    config: Mapping[str, Any],
    note: str,
    found: Sequence[PictureResult],
    published: Published | None,
    *,
    command: str,
    device: torch.device,
    overwrite: bool = False,
) -> results.Result:
    """Writes ``evaluate.json``, ``.csv``, ``.md`` and ``.png``, each whole or not at all.

    Args:
        folder: is made if need be.
        config: see :func:`configuration`.
        note: of the protocol.
        found: results, at least one.
        published: authors' row to show beside them.
        command: what to type to get the same.
        device: where it was computed.
        overwrite: replace whatever results are there.

    Returns:
        What the JSON holds.

    Raises:
        ConfigError: as :func:`refuse_others`, unless told to overwrite; nothing was changed.
        ExDAError: where Matplotlib is missing; nothing was changed.
    """
    if not overwrite:
        refuse_others(folder, config)
    result: results.Result = {
        "kind": KIND,
        "schema": results.SCHEMA,
        "command": command,
        "machine": machine(device) | {package: version(package) for package in _MATTER},
        "config": dict(config),
        "note": note,
        "seeds": [config["seed"]],
        "runs": [
            {
                "degradation": row.degradation,
                "pictures": row.pictures,
                **figures(row.restored, row.degraded),
                "published": _published_score(published, row.degradation),
            }
            for row in summaries(found)
        ],
        "published": None
        if published is None
        else {
            "trained_on": published.trained_on,
            "protocol": published.protocol,
            "source": published.source,
        },
        "pictures": [as_record(each) for each in found],
    }
    drawn = io.BytesIO()
    figure(result).savefig(drawn, format="png", dpi=150)
    path = folder / FILE
    results.write(path, result, replace=overwrite)
    replace(path.with_suffix(".csv"), _csv(result["pictures"]).encode())
    replace(path.with_suffix(".md"), markdown(result).encode())
    replace(path.with_suffix(".png"), drawn.getvalue())
    return result


def _published_score(published: Published | None, degradation: str) -> dict[str, float] | None:
    score = published.scores.get(degradation) if published else None
    return score and score._asdict()


def _csv(pictures: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    lines = csv.DictWriter(text, fieldnames=list(pictures[0]), lineterminator="\n")
    lines.writeheader()
    lines.writerows(pictures)
    return text.getvalue()
