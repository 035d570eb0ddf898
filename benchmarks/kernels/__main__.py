"""``python -m benchmarks.kernels``: what can be measured of the kernels without a GPU."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import host


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    of_host = commands.add_parser("host", help=host.__doc__)
    of_host.add_argument("--turns", type=int, default=100)
    of_host.add_argument("--out", type=Path, default=host.RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    print(host.run(options.turns, options.out))


if __name__ == "__main__":
    main()
