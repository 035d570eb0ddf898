"""Claims about cost."""

import math

import pytest

from benchmarks.claims import files, overhead
from exda_primitives.errors import ConfigError, ExDAError
from exda_primitives.workbench.bench.cases import Case, Comparison
from exda_primitives.workbench.bench.record import Origin, Record, append

from .made import INCONCLUSIVE, MACHINE, REFUTED, REPRODUCED, write_cpu


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ([1.01, 1.0, 1.02], REPRODUCED),
        ([1.2, 1.21, 1.22], REFUTED),
        ([1.0, 1.1, 1.05], INCONCLUSIVE),
        ([1.2], INCONCLUSIVE),
    ],
)
def test_verdict_on_cpu_cost(tmp_path, times, verdict):
    write_cpu(tmp_path, times)
    assert [claim.measure(tmp_path).effect for claim in overhead.CLAIMS[:2]] == [verdict, verdict]
    assert [claim.measure(tmp_path) for claim in overhead.CLAIMS[2:]] == [None, None]


def test_a_time_that_is_nan_is_refused(tmp_path):
    write_cpu(tmp_path, [1.0, math.nan, 1.0])
    with pytest.raises(ExDAError, match="positive, finite"):
        overhead.CLAIMS[0].measure(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"), [("{", "no JSON"), ("[]", "lacks 'command'"), ('{"command": 1}', "lacks 'machine'")]
)
def test_damaged_results_without_an_envelope_are_refused(tmp_path, text, match):
    path = tmp_path / "cpu_forward.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        files.plain(path, ("command", "machine"))


def test_a_result_without_the_times_of_a_path_is_refused(tmp_path):
    write_cpu(tmp_path, [1.0], seconds={"original": [1.0]})
    with pytest.raises(ConfigError, match="lacks times"):
        overhead.CLAIMS[0].measure(tmp_path)


@pytest.fixture
def measured(tmp_path):
    """Writes what the harness measured of one variant into a folder's results."""

    def write(folder, variant, seconds, machine, status="timed"):
        (tmp_path / folder).mkdir(exist_ok=True)
        case = Case(Comparison("restormer", "forward", "bfloat16", 1, 256, 512), variant, "eager")
        record = Record(case, status, Origin("exda bench run", machine, 1e12), seconds=seconds)
        append(tmp_path / folder / "results.jsonl", record)

    return write


GPU = {"gpu": "a GPU", "gpu_gib": 1, "capability": "9.0", "driver": "1", "cuda": "12", "triton": "3"}


def test_concat_free_cost_on_a_cpu_counts_the_harness_too(tmp_path, measured):
    write_cpu(tmp_path, [0.8, 0.81, 0.8])
    for machine, folder in ((MACHINE | GPU, "GPU"), (MACHINE, "CPU")):
        measured(folder, "original", (1.0, 1.0, 1.0), machine)
        measured(folder, "auto", (1.3, 1.31, 1.32), machine)
    printed, concat_free = (claim.measure(tmp_path) for claim in overhead.CLAIMS[:2])
    assert [(row.condition, row.effect) for row in concat_free.rows[1:]] == [
        ("CPU: restormer, 512x256, bfloat16, batch 1", REFUTED)
    ]
    assert (printed.effect, concat_free.effect) == (REPRODUCED, REFUTED)
    assert [source.file for source in concat_free.sources] == ["cpu_forward.json", "CPU/results.jsonl"]


def test_gpu_cost_leaves_out_cpu_records_and_wrong_results(tmp_path, measured):
    for folder, machine in (("GPU", MACHINE | GPU), ("CPU", MACHINE)):
        measured(folder, "original", (1.0, 1.0, 1.0), machine)
        measured(folder, "reference", (1.3, 1.31, 1.32), machine)
        measured(folder, "torch", (), machine, "wrong")
    printed, concat_free = (claim.measure(tmp_path) for claim in overhead.CLAIMS[2:])
    assert concat_free is None
    (row,) = printed.rows
    assert (row.condition, row.effect) == ("GPU: restormer, 512x256, bfloat16, batch 1", REFUTED)
    assert [source.file for source in printed.sources] == ["GPU/results.jsonl"]
    assert printed.sources[0].machine.startswith("a GPU")
