"""Writes a result file and its page, for the scripts in this folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console


def write(name: str, result: Mapping[str, Any], page: Callable[[Mapping[str, Any]], str], out: Path) -> None:
    """Writes ``name.json`` and ``name.md`` into a folder, and prints the page."""
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / f"{name}.md").write_text(page(result))
    Console().print(page(result), markup=False, highlight=False, soft_wrap=True)
