"""The launches that are compiled ahead; ``python -m benchmarks.gpu specs`` records them again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from . import stage
from .launches import Spec, record
from .plan import CALLS

FILE = Path(__file__).parent / "specs.json.gz"


def recorded() -> dict[str, list[Spec]]:
    """Returns for each call the launches of its stages, each once, in the order of the stages."""
    seen: dict[str, Spec] = {}
    calls: dict[str, list[Spec]] = {}
    for call, stages in CALLS.items():
        calls[call] = []
        processes = (process.split() for each in stages for process in each.processes)
        for module, options in map(stage.parsed, processes):
            for recording in module.recordings(options):
                for spec in record(recording):
                    _add(spec, seen, calls[call])
    return {call: specs for call, specs in calls.items() if specs}


def _add(spec: Spec, seen: dict[str, Spec], call: list[Spec]) -> None:
    key = json.dumps({name: value for name, value in spec.items() if name != "all"}, sort_keys=True)
    known = seen.get(key)
    if known is None:
        call.append(spec)
        seen[key] = spec
    elif spec["all"] and not known["all"]:
        # So far only the first configuration was needed. An earlier call keeps to that; this call needs all.
        if any(each is known for each in call):
            known["all"] = True
        else:
            call.append(spec)
            seen[key] = spec


def write(calls: dict[str, list[Spec]], path: Path = FILE) -> None:
    """Writes the launches; without a time stamp, so that equal launches give equal files."""
    path.write_bytes(gzip.compress(json.dumps(calls).encode(), mtime=0))


def read(path: Path = FILE) -> dict[str, list[Spec]]:
    """Reads the launches that ``write`` wrote, by call."""
    calls: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return calls
