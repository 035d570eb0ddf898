"""Importing the package is cheap and touches no device."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import exda_primitives
from exda_primitives import workbench

SCRIPT = """
import json, sys
import exda_primitives
alone = sorted({name.split(".")[0] for name in sys.modules})
missing = [name for name in exda_primitives.__all__ if not hasattr(exda_primitives, name)]
import torch
print(json.dumps({
    "alone": alone,
    "loaded": sorted({name.split(".")[0] for name in sys.modules}),
    "cuda": torch.cuda.is_initialized(),
    "missing": missing,
    "listed": dir(exda_primitives),
    "modules": exda_primitives.errors.__name__,
}))
"""


@pytest.fixture(scope="module")
def state():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("package", ["timm", "matplotlib", "triton", "torchmetrics", "rich", "typer", "PIL"])
def test_heavy_packages_stay_unloaded(state, package):
    assert package not in state["loaded"]


def test_cuda_is_not_initialised(state):
    assert state["cuda"] is False


def test_every_exported_name_exists(state):
    assert state["missing"] == []
    assert {"patch", "models", "ExDAConfig", "__version__"} <= set(state["listed"])
    assert state["modules"] == "exda_primitives.errors"


def test_tools_are_attributes_of_the_package() -> None:
    tools = {path.parent.name for path in Path(workbench.__file__).parent.glob("*/__init__.py")} - {"shared"}
    assert tools >= {"data", "restoration", "training"}
    assert {getattr(exda_primitives, tool).__name__ for tool in tools} == {f"{workbench.__name__}.{t}" for t in tools}


def test_pytorch_is_imported_with_the_first_attribute(state):
    assert "torch" not in state["alone"]
    assert "torch" in state["loaded"]


def test_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="module 'exda_primitives' has no attribute 'nothing'"):
        exda_primitives.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from exda_primitives import nothing  # noqa: F401


def test_every_package_is_in_the_distributions() -> None:
    root = Path(__file__).parents[1]
    folders = {path.parent for path in (root / "src/exda_primitives").rglob("*.py")}
    expected = {".".join(path.relative_to(root / "src").parts) for path in folders}
    assert set(re.findall(r'^    "(exda_primitives[\w.]*)",$', (root / "pyproject.toml").read_text(), re.M)) == expected
