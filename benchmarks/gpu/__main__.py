"""``python -m benchmarks.gpu``: run a call or one of its stages, prepare a machine, write reports."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .plan import CALLS, MODULE
from .rows import FILE
from .session import Session

SECONDS = {"A": 470.0, "B": 300.0, "C": 200.0}
"""Default time of each call in seconds."""


def call(name: str, options: argparse.Namespace) -> int:
    """Runs a call and writes its report; returns the exit status."""
    # SystemExit runs the ``finally`` blocks, which end the stages' processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    out = options.out.absolute()
    done = Session(CALLS[name], options.seconds or SECONDS[name], out, MODULE).run()
    report(out, [out])
    return 0 if done else 1


def report(out: Path, results: list[Path]) -> None:
    """Writes ``report.md`` to ``out`` from the rows in all folders of results."""
    from .report import markdown  # noqa: PLC0415
    from .rows import read  # noqa: PLC0415

    rows = [row for path in results for row in read(path / FILE)]
    (out / "report.md").write_text(markdown(rows))


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["stage"]:
        from . import stage  # noqa: PLC0415

        return stage.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in CALLS:
        each = commands.add_parser(name, help="run the stages of this call")
        each.add_argument("--seconds", type=float, help=f"time for all stages, by default {SECONDS[name]:.0f}")
        each.add_argument("--out", type=Path, required=True, help="folder that the results are added to")
    commands.add_parser("stage", help="run one process of a call")
    commands.add_parser("specs", help="record again which launches are compiled ahead")
    packing = commands.add_parser("pack", help="put what the GPU's machine may lack into build/gpu")
    packing.add_argument("--kernels", action="store_true", help="also compile the kernels of call A")
    reporting = commands.add_parser("report", help="write results as tables")
    reporting.add_argument("results", type=Path, nargs="+", help="folders of results; the report goes into the first")
    options = parser.parse_args(arguments)
    if options.command in CALLS:
        return call(options.command, options)
    if options.command == "specs":
        from . import specs  # noqa: PLC0415

        specs.write(specs.recorded())
    elif options.command == "pack":
        from .pack import pack  # noqa: PLC0415

        return 0 if pack(options.kernels, MODULE) else 1
    else:
        report(options.results[0], options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
