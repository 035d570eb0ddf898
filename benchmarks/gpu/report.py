"""Renders results as Markdown tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from exda_primitives.workbench.bench.cases import CAPTURED, EAGER, ORIGINAL
from exda_primitives.workbench.bench.check import MARGIN
from exda_primitives.workbench.shared.machine import machine_line
from exda_primitives.workbench.shared.tables import markdown_table

from .rows import Row

_GIB = 2**30
_TUNED = 30
"""Number of tuning choices that are shown, the slowest kernels first."""

_ERRORS = ("error", "failed", "does not compile", "does not fit", "unreadable")
_WRONG = "wrong"
_STALE = 0.05
"""Relative difference between a replay and the pass above which the replay is wrong: more than any rounding, and less
than the difference between two images."""


def markdown(rows: Sequence[Row]) -> str:
    """Returns all results as a page: machine, errors and correctness first, then measurements."""
    parts = ["# The kernels on a GPU", ""]
    for title, section in _SECTIONS.items():
        lines = section(rows)
        if lines:
            parts += [f"## {title}", "", *lines, ""]
    return "\n".join(parts)


def _machine(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in _of(rows, "machine"):
        lines += [f"{machine_line(row)} Fingerprint of the code: {row['fingerprint']}.", ""]
    for row in _of(rows, "ceilings"):
        lines += [
            f"A copy: {row['copy_terabytes_per_second']:.2f} TB/s; a product in bfloat16: "
            f"{row['product_teraflops']:.0f} TFLOP/s; PyTorch starts a kernel in "
            f"{row['microseconds_of_an_addition']:.1f} us.",
            "",
        ]
    return lines[:-1]


def _fates(rows: Sequence[Row]) -> list[str]:
    errors = Counter(row["stage"] for row in rows if row["kind"] in _ERRORS)
    cells = [
        [row["stage"], row["fate"], _seconds(row.get("process_seconds")), str(errors[row["stage"]] or "-")]
        for row in _of(rows, "stage")
    ]
    return _table(["stage", "", "seconds", "errors"], cells)


def _errors(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        if row["kind"] in _ERRORS:
            named = [str(row[name]) for name in ("case", "kernel", "variant", "precision", "size") if name in row]
            where = f" ({', '.join(named)})" if named else ""
            lines.append(f"- {row['stage'] or '?'}, {row['kind']}{where}: {row.get('error', row.get('line'))}")
        elif row["kind"] == "stage" and "exit_status" in row:
            # The process could not report its own error: the end of its log tells.
            said = " / ".join(row["said"].splitlines()[-2:])
            lines.append(f"- {row['stage']}, exit status {', '.join(map(str, row['exit_status']))}: {said}")
    return lines


def _blocks(rows: Sequence[Row]) -> list[str]:
    cells = [
        [
            row["case"],
            row["precision"],
            _shape(row["shape"]),
            *(f"{row[name]:.2g}" for name in ("error", "channels_last", "own_error")),
            "yes" if row["same_bits_again"] else "no",
            "right" if row["ok"] else _why(row),
        ]
        for row in _of(rows, "block")
    ]
    head = ["block", "format", "map", "error", "channels_last", "the modules' own", "same bits again", ""]
    return _table(head, cells)


def _why(row: Row) -> str:
    return f"{_WRONG}: {'; '.join(row['not_on_kernels'])}" if row["not_on_kernels"] else _WRONG


def _configurations(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"{row['configurations']} configurations wrote to poisoned outputs; {row['disagreeing']} of them disagree with "
        f"the chosen one."
        for row in _of(rows, "correctness")
        if row["configurations"]
    ]
    for row in _of(rows, "disagrees"):
        apart = ", ".join(f"{name} by {each:.2g}" for name, each in row["differences"].items()) or "no output is known"
        lines.append(f"- {row['kernel']}, {row['config']}, against {row['chosen']}: {apart}")
    return lines


def _gradients(rows: Sequence[Row]) -> list[str]:
    cells = [
        [
            row["case"],
            row["precision"],
            f"{row['error']:.2g}",
            f"{row['own_error']:.2g}",
            ", ".join(f"{name} {ours:.2g} ({own:.2g})" for name, (ours, own) in row["worst"].items()),
            "right" if row["ok"] else f"{_WRONG}: {', '.join(row['wrong']) or 'all together'}",
        ]
        for row in _of(rows, "gradients")
    ]
    return _table(["block", "format", "error", "the modules' own", "the worst (the modules' own)", ""], cells)


def _times(rows: Sequence[Row]) -> list[str]:
    # A later row of the same case replaces an earlier one: its turns include more variants.
    timed = {(_where(row), row["variant"], row["mode"]): row for row in _of(rows, "time")}
    lines = []
    for where in dict.fromkeys(key[0] for key in timed):
        cells = [_time(rows, row) for key, row in timed.items() if key[0] == where]
        head = ["network", "", "ms (20 % to 80 %)", "to the original", "to its graph", "GiB", "error"]
        lines += [f"{', '.join(where)}:", "", *_table(head, cells), ""]
    return lines[:-1]


def _time(rows: Sequence[Row], row: Row) -> list[str]:
    def own(kind: str, variant: str) -> Row:
        found = [each for each in _of(rows, kind) if _where(each) == _where(row) and each["variant"] == variant]
        return found[-1] if found else {}

    variant = row["variant"]
    peak = {**own("prepared", variant), **own("training", variant)}.get("peak_bytes")
    error, allowed = own("accuracy", variant).get("error"), own("accuracy", ORIGINAL).get("error")
    error = own("training", variant).get("gradient_error", error)
    allowed = own("training", ORIGINAL).get("gradient_error", allowed)
    apart = own("captured", variant).get("differences", []) if row["mode"] == CAPTURED else []
    # ``not <=`` instead of ``>``, so that NaN counts as wrong.
    wrong = error is not None and allowed is not None and not error <= MARGIN * allowed
    stale = not all(each <= _STALE for each in apart)
    times = f"{row['p50_ms']:.1f} ({row['p20_ms']:.1f} to {row['p80_ms']:.1f})"
    if wrong or stale:
        times = f"{_WRONG}: the replay computes something else" if stale else _WRONG
    ratios = [_number(None if wrong or stale else row[name]) for name in ("ratio_to_eager", "ratio_to_captured")]
    memory = "-" if peak is None or row["mode"] != EAGER else f"{peak / _GIB:.2f}"
    mode = f"{row['mode']}, {max(apart):.1g} from eager" if any(apart) else row["mode"]
    return [variant, mode, times, *ratios, memory, "not checked" if error is None else f"{error:.2g}"]


def _passes(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in _of(rows, "passes"):
        cells = [
            [
                each["kernel"][:70],
                str(each["launches"]),
                f"{each['ms']:.3f}",
                "-" if each["megabytes"] is None else f"{each['megabytes'] / 1e3:.2f}",
                _number(each["terabytes_per_second"]),
            ]
            for each in row["passes"]
        ]
        where = f"{', '.join(_where(row))}, {row['variant']}: {row['launches']} launches, {row['ms']:.1f} ms"
        lines += [f"{where}.", "", *_table(["kernel", "launches", "ms", "GB", "TB/s"], cells), ""]
    return lines[:-1]


def _tuned(rows: Sequence[Row]) -> list[str]:
    found = sorted(_of(rows, "tuned"), key=lambda row: -row["ms"])
    cells = [
        [
            row["stage"],
            row["kernel"],
            row["key"],
            row["best"],
            f"{row['ms']:.3f}",
            _number(row["terabytes_per_second"]),
            f"{row['seconds']:.1f}",
        ]
        for row in found[:_TUNED]
    ]
    head = ["stage", "kernel", "key", "chosen", "ms", "TB/s", "seconds of tuning"]
    total = sum(row["seconds"] for row in found)
    more = f"{len(found)} choices took {total:.0f} s, including compilation of what was not compiled ahead."
    return [*_table(head, cells), "", more] if cells else []


def _host(rows: Sequence[Row]) -> list[str]:
    cells = [[row["variant"], f"{row['ms']:.1f}", f"{row['microseconds_a_block']:.0f}"] for row in _of(rows, "host")]
    return _table(["network", "ms per forward pass", "us per block"], cells)


_SECTIONS: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "Machine": _machine,
    "Stages": _fates,
    "Errors": _errors,
    "Blocks against float64": _blocks,
    "Configurations": _configurations,
    "Gradients of blocks against float64": _gradients,
    "Times": _times,
    "Passes": _passes,
    "What Python costs": _host,
    "Tuning": _tuned,
}


def _of(rows: Iterable[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _where(row: Row) -> tuple[str, str, str]:
    """Returns the key of rows that may be compared: those of one stage took turns; others may be from another GPU."""
    return row["stage"], row["size"], row["precision"]


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return markdown_table(head, rows) if rows else []
