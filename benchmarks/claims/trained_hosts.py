"""Claims about trained hosts: trained further, and taught a new degradation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from exda_primitives.workbench.shared.results import read

from .claim import DECIBEL, Claim, Finding
from .files import source
from .quality import CLOSE, HOST, PSNR, WIDENED, budget_of, rows_of
from .verdicts import EFFECT

KIND = "continued"
LORA = "frozen, LoRA"

_SEEDS = (
    "PSNR in dB: mean over photographs, then over degradations, ± standard deviation over seeds (number of seeds). "
)


@dataclass(frozen=True)
class _Question:
    """What is compared in a form of the benchmark of trained hosts.

    Attributes:
        files: the forms' result files.
        arms: the arms, each a condition for each setting.
        host: the arm that they are compared with.
        wider: the arm that has as many parameters as the host with both primitives.
        head: headings of the rows' cells.
        note: what the reader has to know about the comparison.
    """

    files: Sequence[str]
    arms: Sequence[str]
    host: str
    wider: str
    head: Sequence[str]
    note: str


def _measured(of: _Question, folder: Path) -> Finding | None:
    rows, sources, budgets = [], [], []
    for path in (folder / name for name in of.files):
        if not path.exists():
            continue
        result = read(path, KIND)
        found = [
            replace(row, condition=f"{arm}: {row.condition}")
            for arm in of.arms
            for row in rows_of(arm, "steps", result, PSNR, host=of.host, wider=of.wider)
        ]
        if found:
            rows += found
            sources.append(source(path, folder, result))
            budgets.append(f"{budget_of(result)}; the host: {result['config']['host']['name']}")
    return Finding(of.head, rows, "; ".join(budgets), sources, (_SEEDS + of.note,)) if rows else None


_PRIMITIVES = ("both, identity", "value", "tokens")
_FURTHER = _Question(
    ("continued.json", "continued_gpu.json"),
    _PRIMITIVES,
    HOST,
    WIDENED,
    ("host", "with it", DECIBEL.title, "over the wider host"),
    "The wider host has as many parameters as the host with both primitives; its new channels start without effect. A "
    f"control is of equal size within {CLOSE:.0%}.",
)
_LEARNS = _Question(
    ("adaptation.json", "adaptation_long.json", "adaptation_gpu.json"),
    _PRIMITIVES,
    HOST,
    "host, LoRA",
    ("host", "with it", DECIBEL.title, "over the host with LoRA"),
    "Every parameter is trained. The host with LoRA has as many parameters as the host with both primitives. A control "
    f"is of equal size within {CLOSE:.0%}.",
)
_FROZEN = _Question(
    ("adaptation.json", "adaptation_long.json", "adaptation_gpu.json"),
    ("frozen, both", "frozen, value", "frozen, tokens", "frozen, half both, half LoRA"),
    LORA,
    LORA,
    ("LoRA", "these", DECIBEL.title, "over LoRA"),
    "The host's own parameters are frozen; LoRA is in the layers of the attentions, and has as many parameters as both "
    "primitives.",
)

_RUN = "python -m benchmarks.continued run --form {} --train CROPS --test PHOTOGRAPHS"


def _claim(name: str, title: str, paper: str, form: str, question: _Question) -> Claim:
    return Claim(name, title, paper, None, DECIBEL, EFFECT, _RUN.format(form), partial(_measured, question))


_SILENT = "does not train networks that were trained before"
CLAIMS = (
    _claim(
        "continued",
        "A trained host gains more from further training with the primitives",
        _SILENT,
        "continued",
        _FURTHER,
    ),
    _claim(
        "adapt-all",
        "A trained host learns a new degradation better with the primitives",
        _SILENT,
        "adaptation",
        _LEARNS,
    ),
    _claim(
        "adapt-frozen",
        "The primitives' parameters teach a frozen host a new degradation better than LoRA",
        _SILENT,
        "adaptation",
        _FROZEN,
    ),
)
