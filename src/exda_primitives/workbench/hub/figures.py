"""Measured figures for a model card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import ConfigError
from ..shared.packages import huggingface_hub
from ..shared.tables import markdown_table
from .config import PretrainedConfig

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "image-to-image"
"""The Hub's name of the task, in the card and in each figure."""

Results = str | PathLike[str] | Sequence["str | PathLike[str] | EvalResult"]
"""What ``save_pretrained`` takes as ``results``."""


class Measured(NamedTuple):
    """Measured figures, for programs and for people.

    Attributes:
        entries: ``huggingface_hub.EvalResult`` objects, for the front matter.
        lines: lines of Markdown, for the text.
    """

    entries: list[Any]
    lines: list[str]


def measured(results: Results, config: PretrainedConfig) -> Measured:
    """Prepares measured figures for a card.

    Args:
        results: one path of an ``evaluate.json`` that ``exda evaluate`` wrote, or a sequence of such paths and of
            ``huggingface_hub.EvalResult`` for what was measured by other means.
        config: configuration of the network, which the files must match.

    Raises:
        ConfigError: for a file that is no such result, is incomplete, or was measured with another network.
    """
    entries: list[Any] = []
    lines: list[str] = []
    others = []
    for each in [results] if isinstance(results, str | PathLike) else results:
        if isinstance(each, str | PathLike):
            found = _evaluated(Path(each), config)
            entries += found.entries
            lines += found.lines
        else:
            others.append(each)
    if others:
        head = ["data", "metric", "value"]
        rows = [[each.dataset_name, each.metric_name or each.metric_type, str(each.metric_value)] for each in others]
        lines += [*markdown_table(head, rows), ""]
    return Measured(entries + others, lines)


def _evaluated(path: Path, config: PretrainedConfig) -> Measured:
    # Imported here: loading a network does not need the evaluation.
    from ..evaluation.record import KIND  # noqa: PLC0415
    from ..evaluation.table import remarks, rows_of  # noqa: PLC0415
    from ..shared import results  # noqa: PLC0415

    result = results.read(path, KIND)
    try:
        network = result["config"]["network"]
        known = config.architecture or network["architecture"]
        if (network["architecture"], network["parameters"]) != (known, config.parameters):
            raise ConfigError(
                f"{path}: was measured with a {network['architecture']} of {network['parameters']:,} parameters, this "
                f"network is a {known} of {config.parameters:,}; give the results of this one."
            )
        if result["missing"]:
            raise ConfigError(
                f"{path}: lacks {result['missing']} images; run the same exda evaluate command again to complete it."
            )
        protocol, data = result["config"]["protocol"]["name"], _data(result["config"]["source"])
        entries = list(_entries(result, data))
        told = f"{data}; by protocol {protocol} of `exda evaluate`, seed {', '.join(map(str, result['seeds']))}."
        table = markdown_table(*rows_of(result))
        return Measured(entries, [told, "", *table, "", *(f"{line}\n" for line in remarks(result))])
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged ({type(error).__name__}: {error}); measure again.") from error


def _data(source: dict[str, Any]) -> str:
    """Returns the benchmark's or the folders' names, without paths: the card is public."""
    folders = [Path(source[key]).name for key in ("degraded", "clean") if key in source]
    return str(source["benchmark"] or ", ".join(folders))


def _entries(result: dict[str, Any], data: str) -> Iterator[Any]:
    kind = huggingface_hub().EvalResult
    source, protocol = result["config"]["source"], result["config"]["protocol"]["name"]
    for run in result["runs"]:
        for metric in ("psnr", "ssim"):
            value = float(run[metric])
            # The Hub's YAML has no infinity, which is what equal images give.
            if math.isfinite(value):
                yield kind(
                    task_type=TASK,
                    dataset_type=source["benchmark"] or "custom",
                    dataset_name=f"{data} ({run['degradation']})",
                    dataset_config=run["degradation"],
                    metric_type=metric,
                    metric_name=f"{metric.upper()}, protocol {protocol}",
                    metric_value=round(value, 4),
                )
