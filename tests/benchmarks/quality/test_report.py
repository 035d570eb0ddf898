"""Differences, their intervals, tables and the plot."""

import numpy as np
import pytest
from benchmarks.quality.differences import groups, interval
from benchmarks.quality.forms import BASE, COMPARED, HOST, WIDENED
from benchmarks.quality.plot import draw
from benchmarks.quality.report import markdown, write_report
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import exda_primitives as exda

CONFIG = {
    "form": "of a test",
    "model": {"name": "restormer", "dim": 8, "ffn_expansion_factor": 2.66},
    "widened": {"ffn_expansion_factor": 3.38},
    "data": {"degradations": ["rain", "haze"], "patch": 64},
    "recipe": {"steps": 300, "batch": 2, "learning_rate": 2e-3},
    "test": {"crop": 96, "seed": 1, "protocol": "PSNR"},
    "pictures": {"train": {"name": "crops.zip", "pictures": 3}, "test": {"name": "photographs", "pictures": 4}},
}
MACHINE = {"cpu": "none", "cores": 1, "threads": 1, "torch": "2", "python": "3", "commit": "abc"}
IMAGES = 4


def run(arm, seed, gain, *, setting=BASE, what="the base", changes=None, budget="steps", diverged=None):
    """A run whose PSNR is 20 to 23 dB plus the gain in rain, and 30 dB plus half the gain in haze; plus the seed."""
    base = np.arange(20.0, 20.0 + IMAGES) + seed
    psnr = {"rain": base + gain, "haze": np.full(IMAGES, 30.0 + seed) + gain / 2}
    scores = {
        name: {"psnr": each.tolist(), "ssim": (each / 100).tolist(), "degraded_psnr": 15.0}
        for name, each in psnr.items()
    }
    return {
        "name": f"{setting}-{budget}-{arm}-{seed}",
        "setting": setting,
        "what": what,
        "changes": changes or {},
        "budget": budget,
        "arm": arm,
        "seed": seed,
        "steps": 300,
        "parameters": 1234,
        "diverged": diverged,
        "scores": None if diverged else scores,
        "legs": [{"after_step": 0, "seconds": 1800.0, "not_bit_for_bit": []}],
    }


def result(*runs, paces=None):
    return {
        "kind": "quality",
        "schema": 1,
        "command": "python -m benchmarks.quality",
        "machine": MACHINE,
        "config": CONFIG,
        "seeds": [0],
        "runs": list(runs),
        "paces": paces or {},
    }


def hosts(seeds, **more):
    return [run(HOST, seed, 0.0, **more) for seed in seeds]


def test_the_interval_of_equal_differences_has_no_width():
    assert interval(np.full((3, 5), 0.25)) == pytest.approx((0.25, 0.25, 0.25))


def test_the_interval_spans_seeds_that_differ():
    found = interval(np.array([[-1.0] * 6, [0.0] * 6, [1.0] * 6]))
    # A draw of three seeds takes one of them alone with probability 1 / 27 = 0.037, more than the 0.025 of each tail.
    assert found == pytest.approx((-1.0, 0.0, 1.0))


def test_photographs_are_drawn_for_all_seeds_together():
    """Many seeds do not narrow an interval whose width comes from the photographs."""
    images = np.random.default_rng(0).standard_normal(24)
    one, many = interval(images[None]), interval(np.tile(images, (50, 1)))
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.05)
    # By the formula of the standard error; 24 photographs, 10,000 draws.
    assert one.high - one.low == pytest.approx(2 * 1.96 * images.std() / 24**0.5, rel=0.05)


@given(
    st.integers(1, 4).flatmap(
        lambda seeds: st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=seeds, max_size=seeds)
    ),
    st.floats(-3, 3),
)
@settings(max_examples=25, deadline=None)
def test_adding_a_constant_moves_the_interval(values, shift):
    differences = np.array(values)
    found, moved = interval(differences, draws=200), interval(differences + shift, draws=200)
    assert differences.min() - 1e-9 <= found.low <= found.high <= differences.max() + 1e-9
    assert np.subtract(moved, found) == pytest.approx(np.full(3, shift), abs=1e-9)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan]])])
def test_differences_that_are_empty_or_not_finite_are_refused(bad):
    with pytest.raises(exda.ExDAError, match="expected finite ones"):
        interval(bad)


def test_a_difference_is_to_the_host_of_the_same_seed():
    (group,) = groups(result(*hosts((0, 1, 2)), *(run(COMPARED, seed, 0.2 * seed) for seed in (2, 1, 0, 7))))
    # Seed 7 has no host. The gain in haze is half of that in rain.
    assert sorted(group.runs) == [0, 1, 2]
    assert group.by_seed("psnr") == pytest.approx([0.0, 0.15, 0.3])
    assert group.difference("psnr").mean == pytest.approx(0.15)
    assert group.difference("psnr", ["haze"]).mean == pytest.approx(0.1)
    assert group.difference("ssim").mean == pytest.approx(0.0015)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.1, 0.2, 0.3), "better"),
        ((-0.1, -0.2, -0.3), "worse"),
        ((-0.1, 0.2, 0.3), "not enough to tell"),
        ((1.0, 1.0), "too few seeds (2)"),
    ],
)
def test_verdicts(gains, verdict):
    (group,) = groups(
        result(*hosts(range(len(gains))), *(run(COMPARED, seed, gain) for seed, gain in enumerate(gains)))
    )
    assert group.verdict == verdict


def test_a_variation_of_the_primitives_is_compared_with_the_host_of_the_base():
    tokens = {"setting": "tokens4", "what": "K = 4", "changes": {"primitives": {"tokens": 4}}}
    rate = {"setting": "rate", "what": "rate", "changes": {"recipe": {"learning_rate": 1.0}, "primitives": {}}}
    found = groups(
        result(*hosts([0]), run(HOST, 0, 2.0, **rate), run(COMPARED, 0, 1.0, **tokens), run(COMPARED, 0, 1.0, **rate))
    )
    assert [group.by_seed("psnr")[0] for group in found] == pytest.approx([0.75, -0.75])


def full_result():
    seeds = (0, 1, 2)
    varied = {"setting": "tokens4", "what": "K = 4 tokens", "changes": {"primitives": {"tokens": 4}}}
    return result(
        *hosts(seeds),
        *(run(WIDENED, seed, 0.2) for seed in seeds),
        *(run(COMPARED, seed, -0.4) for seed in seeds),
        *(run(COMPARED, seed, 0.0, budget="time") for seed in seeds[:1]),
        *(run("value", seed, 0.0, budget="time", diverged="step 3: NaN") for seed in seeds[:1]),
        run(COMPARED, 0, 0.8, **varied),
        paces={BASE: {"clock": "a clock", "host_seconds": 0.5, "ratio": {HOST: 1.0, COMPARED: 1.4}}},
    )


def test_tables():
    text = markdown(full_result())
    lines = text.splitlines()
    assert lines.count("## The base, equal steps") == lines.count("## The base, equal time") == 1
    host = "Host: 1,234 parameters, 26.750 dB (seeds: 3, standard deviation over seeds 1.000); the degraded photographs"
    assert f"{host} have 15.000 dB." in text
    assert "each crop is seen 100 times" in text
    # Both before the widened host, as in the list of arms.
    both = f"| {COMPARED} | 1,234 | 300 | 3 | 26.450 | -0.300 [-0.300, -0.300] | -0.0030 [-0.0030, -0.0030] | worse |"
    widened = "| widened | 1,234 | 300 | 3 | 26.900 | +0.150 [+0.150, +0.150] | +0.0015 [+0.0015, +0.0015] | better |"
    assert lines.index(both) + 1 == lines.index(widened)
    assert "| rain | -0.400 [-0.400, -0.400] | +0.200 [+0.200, +0.200] |" in lines
    assert "| haze | -0.200 [-0.200, -0.200] | +0.100 [+0.100, +0.100] |" in lines
    assert "| value | - | - | 0 | - | - | - | 1 diverged |" in lines
    assert "too few seeds (1)" in text
    assert "| K = 4 tokens | 1 | 26.350 | +0.600 [+0.600, +0.600] | too few seeds (1) |" in lines
    assert "both, identity 1.40 times as long" in text
    assert "11 runs" not in text
    assert "12 runs, 6.00 hours of training" in text
    assert text.endswith("Command: `python -m benchmarks.quality`\n")


def quiet_result():
    """A result with two recipes, the second with a hundredth of the scatter between seeds."""
    gains = (0.4, -0.4, 0.8, -0.8)
    quieter = {"setting": "quieter", "what": "all three", "changes": {"recipe": {"batch": 8}}}
    made = result(
        *hosts(range(4)),
        *hosts(range(4), **quieter),
        *(run("both, paper", seed, gain) for seed, gain in enumerate(gains)),
        *(run("both, paper", seed, gain / 100, **quieter) for seed, gain in enumerate(gains)),
    )
    made["config"] = {**CONFIG, "form": "quiet"}
    return made


def test_the_scatter_between_seeds_is_reported():
    lines = markdown(quiet_result()).splitlines()
    # Standard deviation of 0.75 times the gains (mean of the whole in rain and half in haze); the bounds by chi squared
    # with 3 degrees of freedom, variance times 3 / 9.348 and 3 / 0.2158.
    base = next(line for line in lines if line.startswith("| the base | 4 |"))
    assert "| 1.291 | 0.548 [0.310, 2.042] | 61 | 61.0 |" in base
    assert any("| 0.005 [0.003, 0.020] | 2 | 2.0 |" in line for line in lines)
    assert "| haze | 0.365 | 0.004 |" in lines
    # All photographs have the same differences, so that one tells as much as four.
    assert "| 4 | 0.548 | 0.005 |" in lines
    assert "| 1 | 0.548 | 0.005 |" in lines
    assert "## How quiet it is" not in markdown(full_result())


def test_differences_at_the_marks():
    runs = [*hosts([0, 1]), *(run(COMPARED, seed, 0.2) for seed in (0, 1)), *(run("value", 0, 0.2) for _ in "1")]
    assert "steps, difference" not in markdown(result(*runs))
    for each, gain in zip(runs, (0, 0, 0.4, 0.8, 0.4), strict=True):
        each["curve"] = {"100": run(each["arm"], each["seed"], gain)["scores"]}
    lines = markdown(result(*runs)).splitlines()
    # Differences 0.3 and 0.6: Student's interval of two is 12.706 half-differences to either side.
    assert "| 100 | +0.450 [-1.456, +2.356] | +0.300 |" in lines
    assert "| 300 | +0.150 [+0.150, +0.150] | +0.150 |" in lines


def test_clustering_scores_of_degradations_are_reported():
    host, ours = run(HOST, 0, 0.0), run(COMPARED, 0, 0.0)
    older = [run("value", 0, 0.0), *(run(arm, 1, 0.0) for arm in (HOST, COMPARED))]
    assert "NMI" not in markdown(result(host, ours, *older))
    host["told_apart"] = {"nmi": [0.2, 0.4], "ari": [0.0, 0.1]}
    assert "NMI" not in markdown(result(host, ours, *older))
    ours["told_apart"] = {"nmi": [0.5, 0.6], "ari": [0.3, 0.3]}
    lines = markdown(result(host, ours, *older)).splitlines()
    assert f"| {COMPARED} | 1 | 0.300 -> 0.550 | 0.050 -> 0.300 |" in lines


def test_missing_runs_are_listed():
    made = result(*({**each, "name": f"base-steps-host-seed{each['seed']}"} for each in hosts([0])))
    made["config"] = {**CONFIG, "form": "cpu"}
    assert "- the base, equal steps (29)" in markdown(made)


def test_a_report_is_three_files(tmp_path):
    path = tmp_path / "quality.json"
    write_report(full_result(), path, Console(quiet=True))
    assert path.with_suffix(".md").read_text() == markdown(full_result())
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_no_image_without_a_difference(tmp_path):
    draw(groups(result(*hosts([0]))), tmp_path / "quality.png")
    assert list(tmp_path.iterdir()) == []
