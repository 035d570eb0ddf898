"""The figures in the README are those that the benchmarks wrote, and its adapters are accepted as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["demo_weights", "cpu_forward", "restore_seam"])
def test_tables_are_those_of_the_results(name: str) -> None:
    rows = [
        line for line in (ROOT / "benchmarks" / "results" / f"{name}.md").read_text().splitlines() if line[:1] == "|"
    ]
    assert rows
    assert [row for row in rows if row not in README] == []


def test_pictures_and_files_that_are_named_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    paths = re.findall(r"`((?:src|benchmarks|adapters|examples|docs)/[\w./-]*)`", README)
    assert links
    assert paths
    assert [path for path in links + paths if not (ROOT / path).exists()] == []
