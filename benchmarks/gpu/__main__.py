"""``python -m benchmarks.gpu``: a call, one of its stages, and what is made beforehand and afterwards."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .plan import CALLS, MODULE
from .rows import FILE
from .sitting import Sitting

SECONDS = {"A": 470.0, "B": 300.0, "C": 200.0}
"""Of a call, by default."""


def call(name: str, options: argparse.Namespace) -> int:
    # So that what runs is ended when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    out = options.out.absolute()
    done = Sitting(CALLS[name], options.seconds or SECONDS[name], out, MODULE).run()
    report(out, [out])
    return 0 if done else 1


def report(out: Path, results: list[Path]) -> None:
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
        each = commands.add_parser(name, help="a call")
        each.add_argument("--seconds", type=float, help=f"in which it has to be done, by default {SECONDS[name]:.0f}")
        each.add_argument("--out", type=Path, required=True, help="folder of the results; they are added to it")
    commands.add_parser("stage", help="one process of a call")
    commands.add_parser("specs", help="record anew which launches are compiled ahead")
    packing = commands.add_parser("pack", help="put what may be missing there into build/gpu")
    packing.add_argument("--kernels", action="store_true", help="compile those of call A as well")
    reporting = commands.add_parser("report", help="write results as tables")
    reporting.add_argument("results", type=Path, nargs="+", help="folders; the report goes into the first")
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
