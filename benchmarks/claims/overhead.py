"""Claims about the overhead of the primitives in time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.bench.cases import AUTO, EAGER, FORWARD, ORIGINAL
from exda_primitives.workbench.bench.record import TIMED, Record
from exda_primitives.workbench.bench.record import read as read_bench
from exda_primitives.workbench.bench.table import TITLES
from exda_primitives.workbench.shared.machine import machine_line

from .claim import MORE, Claim, Finding, Row, Source
from .files import plain
from .verdicts import COST, cost, gain, log_ratios

REFERENCE, CONCAT_FREE = "reference", "torch"
HEAD = ("original (s)", "patched (s)", MORE.title)


def _row(condition: str, original: list[float], patched: list[float]) -> Row:
    more = gain(log_ratios(patched, original))
    cells = [*(f"{sorted(times)[len(times) // 2]:.3g}" for times in (original, patched)), MORE.interval(more)]
    return Row(condition, cells, more, cost(more))


def _cpu(name: str, folder: Path) -> Finding | None:
    path = folder / "cpu_forward.json"
    keys = ("command", "machine", "model", "parameters", "extra_parameters", "input", "dtype", "seconds")
    result = plain(path, keys)
    if result is None:
        return None
    times = result["seconds"]
    if not {"original", name} <= times.keys():
        raise ConfigError(f"{path}: lacks times of 'original' or {name!r}; it is of another version, measure again")
    turns = len(times["original"])
    size = "x".join(map(str, result["input"]))
    budget = f"{result['model']}, {size}, {result['dtype']}, {turns} turns"
    more = result["extra_parameters"] / result["parameters"]
    notes = (
        "Times are medians over turns, in each of which both networks ran once; “more time” is the geometric mean of "
        "the turns' ratios.",
        f"The primitives add {more:.1%} to the network's parameters: {result['extra_parameters']:,} on "
        f"{result['parameters']:,}.",
    )
    source = Source(path.name, "0 (weights and input)", machine_line(result["machine"]), result["command"])
    rows = [_row(f"CPU, forward, {size}", times["original"], times[name])]
    return Finding(HEAD, rows, budget, [source], notes)


def _concat_free_on_cpu(folder: Path) -> Finding | None:
    found, (rows, sources) = _cpu("concat_free", folder), _by_harness(AUTO, folder, on_gpu=False)
    if found is None:
        return None
    notes = list(found.notes)
    if rows:
        notes.append(
            "The harness keeps freed memory (`exda.memory.keep()`), as the `exda` commands do; the first row does not."
        )
    budget = f"{found.budget}; {len(rows)} cases by the harness"
    return Finding(HEAD, [*found.rows, *rows], budget, [*found.sources, *sources], notes)


def _gpu(variant: str, folder: Path) -> Finding | None:
    rows, sources = _by_harness(variant, folder, on_gpu=True)
    budget = f"{TITLES[variant]}, forward, eager, {len(rows)} cases"
    return Finding(HEAD, rows, budget, sources, ("Times are medians over turns.",)) if rows else None


def _by_harness(variant: str, folder: Path, *, on_gpu: bool) -> tuple[list[Row], list[Source]]:
    """Returns rows and sources of ``exda bench run``: a variant's forward passes in eager mode against the original."""
    rows, sources = [], []
    for path in sorted(folder.glob("*/results.jsonl")):
        timed = [
            each
            for each in read_bench(path)
            if (each.status, each.case.mode, each.case.comparison.task) == (TIMED, EAGER, FORWARD)
            and ("gpu" in each.origin.machine) == on_gpu
        ]
        originals = {each.case.comparison: each for each in timed if each.case.variant == ORIGINAL}
        ours = [each for each in timed if each.case.variant == variant and each.case.comparison in originals]
        for each in ours:
            compared = each.case.comparison
            title = f"{path.parent.name}: {compared.backbone}, {compared.size}, {compared.precision}"
            title += f", batch {compared.batch}"
            rows.append(_row(title, list(originals[compared].seconds), list(each.seconds)))
        sources += [_bench_source(path, folder, each) for each in ours[:1]]
    return rows, sources


def _bench_source(path: Path, folder: Path, record: Record) -> Source:
    origin = record.origin
    return Source(str(path.relative_to(folder)), "0", machine_line(origin.machine), origin.command)


_NEGLIGIBLE = "the overhead is negligible, on a GPU that it does not name"
_BENCH = "exda bench run --out benchmarks/results/GPU"
_CPU = "python benchmarks/cpu_forward.py"

CLAIMS = (
    Claim(
        "cost-cpu-printed",
        "The overhead is negligible: formulas as printed, on a CPU",
        _NEGLIGIBLE,
        None,
        MORE,
        COST,
        _CPU,
        partial(_cpu, "reference"),
    ),
    Claim(
        "cost-cpu",
        "The overhead is negligible: this library's concat-free form, on a CPU",
        _NEGLIGIBLE,
        None,
        MORE,
        COST,
        _CPU,
        _concat_free_on_cpu,
    ),
    Claim(
        "cost-gpu-printed",
        "The overhead is negligible: formulas as printed, on a GPU",
        _NEGLIGIBLE,
        None,
        MORE,
        COST,
        _BENCH,
        partial(_gpu, REFERENCE),
    ),
    Claim(
        "cost-gpu",
        "The overhead is negligible: this library's concat-free form, on a GPU",
        _NEGLIGIBLE,
        None,
        MORE,
        COST,
        _BENCH,
        partial(_gpu, CONCAT_FREE),
    ),
)
