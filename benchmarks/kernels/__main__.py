"""``python -m benchmarks.kernels``: measure the kernels without a GPU."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exda_primitives.workbench.bench.precision import PRECISIONS

from . import host, report, tables

_WIDTH = 180
"""Width in characters of output that does not go to a terminal."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    of_host = commands.add_parser("host", help=host.__doc__)
    of_host.add_argument("--turns", type=int, default=100)
    of_host.add_argument("--out", type=Path, default=host.RESULTS, help="folder of the results")
    of_report = commands.add_parser("report", help=report.__doc__)
    of_report.add_argument("--size", type=int, default=1024, help="side of the square image, in pixels")
    of_report.add_argument("--dtype", nargs="+", default=["bf16"], choices=PRECISIONS)
    of_report.add_argument("--tb-per-second", type=float, default=3.0, help="bandwidth of the GPU's memory")
    of_report.add_argument("--training", action="store_true", help="include a training step's passes")
    of_report.add_argument("--every", action="store_true", help="compile all configurations, not only the first")
    of_report.add_argument("--out", type=Path, default=host.RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    if options.command == "host":
        print(host.run(options.turns, options.out))
    else:
        of = options.size, options.dtype, options.tb_per_second, options.training, options.every, options.out
        _show(report.run(*of))


def _show(result: dict[str, Any]) -> None:
    if find_spec("rich") is None:
        # A machine with a GPU may lack Rich.
        print(tables.markdown(result))
        return
    from rich.console import Console  # noqa: PLC0415

    Console(width=None if sys.stdout.isatty() else _WIDTH).print(tables.printed(result))


if __name__ == "__main__":
    main()
