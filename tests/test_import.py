"""Importing the package is cheap and touches no device."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import torch
import exda_primitives
print(json.dumps({
    "loaded": sorted({name.split(".")[0] for name in sys.modules}),
    "cuda": torch.cuda.is_initialized(),
    "exported": [name for name in exda_primitives.__all__ if not hasattr(exda_primitives, name)],
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
    assert state["exported"] == []
