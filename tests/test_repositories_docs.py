"""The page of public repositories shows what the benchmark found, as expected; the benchmark on a made-up repository.

The repositories of the page are not fetched here.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "repositories.json").read_text())
ROWS = RESULT["classes"]
HOST = """

import sys
from torch import nn
from basicsr.utils.registry import ARCH_REGISTRY
from cv2.typing import Mat
from mmengine.model import BaseModule
from .neighbour import WIDTH
from models.elsewhere import heads

sys.path.append("elsewhere")

@ARCH_REGISTRY.register()
class Attention(BaseModule):
    def __init__(self, width):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads(), 1, 1))
        self.qkv = nn.Conv2d(width, WIDTH * width, 1)
        self.qkv_dwconv = nn.Conv2d(WIDTH * width, WIDTH * width, 3, padding=1, groups=WIDTH * width)
        self.project_out = nn.Conv2d(width, width, 1)

    def forward(self, x):
        q, k, v = self.qkv_dwconv(self.qkv(x)).unflatten(1, (3, heads(), -1)).flatten(4).unbind(1)
        q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        return self.project_out(((q @ k.mT * self.temperature).softmax(-1) @ v).reshape(x.shape))

class Idle(Attention):
    def forward(self, x):
        super().forward(x)
        return x
"""


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("repositories")


@pytest.fixture
def checkouts(tmp_path):
    """A folder with one repository, whose files import each other, their package, and packages not installed."""
    checkout = tmp_path / "someone+network"
    (checkout / "code" / "models").mkdir(parents=True)
    (checkout / "code" / "archs").mkdir()
    (checkout / "code" / "models" / "elsewhere.py").write_text("def heads():\n    return 2\n")
    (checkout / "code" / "archs" / "neighbour.py").write_text("WIDTH = 3\n")
    (checkout / "code" / "archs" / "host.py").write_text(f"import torch\n{HOST}")
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def case(benchmark, name="Attention", **others):
    settings = {
        "repository": "someone/network",
        "file": "code/archs/host.py",
        "name": name,
        "expected": "mdta",
        "formula": "MDTA",
        "make": lambda kind: kind(8),
        "inputs": lambda: [torch.rand(1, 8, 6, 4, dtype=torch.float64)],
        "search": ("code",),
    }
    return benchmark.Case(**settings | others)


def test_page_is_the_rendered_result(benchmark):
    assert (ROOT / "docs" / "repositories.md").read_text() == benchmark.render(RESULT)


def test_result_file_has_the_written_format(benchmark):
    assert (ROOT / "benchmarks" / "results" / "repositories.json").read_text() == benchmark.dumps(RESULT)


def test_rows_are_the_benchmarks_cases(benchmark):
    keys = ("repository", "file", "class", "formula", "expected", "backbone_expected")
    expected = [(c.repository, c.file, c.name, c.formula, c.expected, c.backbone) for c in benchmark.CASES]
    assert [tuple(row.get(key) for key in keys) for row in ROWS] == expected


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['repository']}-{row['file']}-{row['class']}" for row in ROWS])
def test_every_class_is_seen_as_expected_and_computes_the_same(benchmark, row):
    assert benchmark.as_expected(row)
    if "attentions" in row:
        assert row["difference"] < 1e-12
        assert row["keys_kept"]
    assert len(row["commit"]) == 40


def test_class_is_imported_recognised_and_compared(benchmark, checkouts):
    before, paths = {*sys.modules}, [*sys.path]
    row = benchmark.examine(case(benchmark), checkouts)
    assert (row["seen"], row["attentions"], row["backbone"]) == ("mdta", {"mdta": 1}, None)
    assert row["difference"] < 1e-12
    assert row["keys_kept"]
    assert not {name for name in {*sys.modules} - before if name.startswith(("checkout.", "basicsr", "models"))}
    assert sys.path == paths
    assert "| 1 mdta |" in benchmark.render(RESULT | {"classes": [row]})


def test_link_to_a_file_is_quoted(benchmark):
    page = benchmark.render(RESULT | {"classes": [ROWS[0] | {"file": "a folder/host.py"}]})
    assert "/a%20folder/host.py)" in page


def test_unexpected_outcome_is_marked(benchmark, checkouts):
    row = benchmark.examine(case(benchmark, "Idle"), checkouts)
    page = benchmark.render(RESULT | {"classes": [row]})
    assert "| mdta | **near miss** |" in page
    assert "Otherwise than expected: Idle of someone/network (near miss)." in page
    assert row["near_misses"][0]["reason"].startswith("its output differs")


def test_outputs_that_ignore_the_attention_are_an_error(benchmark, checkouts):
    def make(kind):
        unused = torch.nn.Identity()
        unused.attention = kind(8)
        return unused

    row = benchmark.examine(case(benchmark, make=make), checkouts)
    assert row["error"] == "ValueError: the outputs do not depend on the attentions"


def test_missing_repository_is_listed(benchmark, checkouts):
    row = benchmark.examine(case(benchmark, repository="someone/else"), checkouts)
    assert "else" in row["error"]
    page = benchmark.render(RESULT | {"classes": [row]})
    assert "| mdta | not looked at | - | - |" in page
    assert "Not looked at: Attention of someone/else (" in page
