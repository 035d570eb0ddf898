"""The committed pages of results have the wording and the figures that the benchmarks write today."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("pages").rendered()


def test_each_page_is_what_its_result_file_gives(pages):
    # Which ones differ is enough to know.
    assert [str(path.relative_to(ROOT)) for path, text in pages.items() if path.read_text() != text] == []


def test_no_page_lacks_a_result_file(pages):
    assert sorted(path for path in (ROOT / "benchmarks" / "results").rglob("*.md") if path not in pages) == []
