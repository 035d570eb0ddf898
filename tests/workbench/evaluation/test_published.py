"""Published figures: each belongs to one network and benchmark, and they agree with the averages of their tables."""

import pytest
import torch

from exda_primitives.models import create
from exda_primitives.models.architecture import StateShapes
from exda_primitives.models.registry import known_architectures
from exda_primitives.workbench.evaluation import BENCHMARKS, PROTOCOLS, PUBLISHED, Published, published_for

# The column "Average" of each table, in the order of PUBLISHED.
AVERAGES = (32.06, 32.69, 30.20, 32.57, 32.73, 30.08, 30.58)


@pytest.mark.parametrize(("row", "average"), list(zip(PUBLISHED, AVERAGES, strict=True)))
def test_rows_add_up_to_their_average(row: Published, average: float) -> None:
    psnrs = [score.psnr for score in row.scores.values()]
    # Each figure, and their average, is rounded to 0.01.
    assert sum(psnrs) / len(psnrs) == pytest.approx(average, abs=0.0101)


@pytest.mark.parametrize("row", PUBLISHED)
def test_rows_name_known_networks_protocols_and_benchmarks(row: Published) -> None:
    assert row.architecture in known_architectures()
    assert row.protocol in PROTOCOLS
    assert set(row.benchmarks) <= set(BENCHMARKS)
    assert all(0 < score.ssim < 1 for score in row.scores.values())


@pytest.mark.parametrize(
    ("name", "benchmark", "rain"),
    [
        ("promptir", "promptir-3", 36.37),
        ("adair", "moce-ir-3", 38.64),
        ("adair", "promptir-5", 38.02),
        ("moceir-s", "moce-ir-5", 37.21),
        ("moceir", "moce-ir-5", 38.04),
    ],
)
def test_published_figures_are_found_for_their_network(name: str, benchmark: str, rain: float) -> None:
    with torch.device("meta"):
        state = create(name).state_dict()
    architecture = known_architectures()[name.removesuffix("-s")]
    arguments = architecture.infer(StateShapes({key: tuple(tensor.shape) for key, tensor in state.items()}))
    row = published_for(architecture.name, arguments, benchmark)
    assert row is not None
    assert row.scores["rain"].psnr == rain


@pytest.mark.parametrize(
    ("architecture", "arguments", "benchmark"),
    [
        ("promptir", {"dim": 48, "num_blocks": [4, 6, 6, 8]}, "promptir-5"),
        ("promptir", {"dim": 48, "num_blocks": [4, 6, 6, 8]}, None),
        ("promptir", {"dim": 8, "num_blocks": [1, 1, 1, 1]}, "promptir-3"),
        ("restormer", {"dim": 48, "num_blocks": [4, 6, 6, 8]}, "promptir-3"),
    ],
)
def test_other_networks_and_benchmarks_have_no_published_figures(
    architecture: str, arguments: dict[str, object], benchmark: str | None
) -> None:
    assert published_for(architecture, arguments, benchmark) is None
