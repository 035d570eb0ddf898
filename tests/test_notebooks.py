"""The notebooks run from their first cell to their last and print what they should."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


@pytest.fixture
def _global_state():
    seed, backend = torch.random.get_rng_state(), mpl.get_backend()
    mpl.use("Agg")
    yield
    mpl.use(backend)
    torch.random.set_rng_state(seed)


@pytest.mark.usefixtures("_global_state")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("patch_and_look_at_tokens", ["bit for bit the same: True"]),
        ("learn_a_new_degradation", ["without: dark", "with: dark", " KiB"]),
    ],
)
def test_notebook_runs_and_prints(name, says, capsys):
    (path,) = [each for each in NOTEBOOKS if each.stem == name]
    variables = {"__name__": "__main__"}
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), variables)
    printed = capsys.readouterr().out
    assert [text for text in says if text not in printed] == []


def test_every_notebook_is_tested():
    assert [path.stem for path in NOTEBOOKS] == ["learn_a_new_degradation", "patch_and_look_at_tokens"]
