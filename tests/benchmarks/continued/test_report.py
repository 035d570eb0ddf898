"""Tables, verdicts, and the plot."""

import pytest
from benchmarks.continued.forms import FORMS, LORA
from benchmarks.continued.report import markdown, verdict, write_report
from benchmarks.quality.forms import COMPARED, HOST, WIDENED, Job, Setting
from rich.console import Console

MACHINE = {"cpu": "none", "cores": 1, "threads": 1, "torch": "2", "python": "3", "commit": "abc"}
OWN = "haze, rain and noise"


def scores(*names, gain=0.0):
    """Scores of two photographs: 20 and 22 dB plus the gain."""
    one = {"psnr": [20.0 + gain, 22.0 + gain], "ssim": [0.5, 0.6], "degraded_psnr": 15.0}
    return dict.fromkeys(names, one)


def run(arm, seed, gain, *, setting="base", what="the base", names=("rain", "haze"), diverged=None, **more):
    return {
        "name": Job(Setting(setting, what), arm, seed, "steps").name,
        "setting": setting,
        "what": what,
        "changes": {} if setting == "base" else {"data": {"degradations": [setting]}},
        "budget": "steps",
        "arm": arm,
        "seed": seed,
        "steps": 5000,
        "parameters": 1234,
        "trained_parameters": 123,
        "learning_rate": 1e-3,
        "diverged": diverged,
        "scores": None if diverged else scores(*names, gain=seed + gain),
        "curve": {} if diverged else {"1000": scores(*names, gain=seed + gain / 2)},
        "legs": [{"after_step": 0, "seconds": 1800.0, "not_bit_for_bit": []}],
        **more,
    }


def result(form, *runs):
    config = FORMS[form]
    arms = dict.fromkeys(each["arm"] for each in runs)
    return {
        "kind": "continued",
        "schema": 1,
        "command": "python -m benchmarks.continued",
        "machine": MACHINE,
        "seeds": [0],
        "runs": list(runs),
        "paces": {"ratio": dict.fromkeys(arms, 1.25)},
        "searched": {HOST: {"0.0003": 0.05, "0.001": None}},
        "untrained": scores("rain", "haze", "low", OWN, gain=-4),
        "config": {
            "form": form,
            "host": {
                "name": "a host",
                "model": {"name": "restormer", **config.model},
                "degradations": list(config.host.degradations),
                "phases": [{"patch": each.patch, "recipe": dict(each.recipe)} for each in config.host.phases],
            },
            "widened": {"ffn_expansion_factor": 2.4},
            "ranks": {LORA: 21},
            "data": dict(config.data),
            "recipe": dict(config.recipe),
            "search": {"steps": 400, "seed": 100},
            "test": {"crop": 256, "protocol": "PSNR"},
            "pictures": {"train": {"pictures": 3}, "test": {"pictures": 2}},
        },
    }


def continued():
    gains = {HOST: (0, 0, 0), COMPARED: (0.1, 0.2, 0.3), WIDENED: (0.1, -0.1, 0.0), "value": (0.4, None)}
    runs = [
        run(arm, seed, gain or 0.0, diverged="NaN" if gain is None else None)
        for arm, of_seeds in gains.items()
        for seed, gain in enumerate(of_seeds)
    ]
    return result("continued", *runs)


def test_report_of_further_training():
    text = markdown(continued())
    lines = text.splitlines()
    assert "15,000 steps" not in text
    assert "10,000 steps with patches of 64, learning rate 0.001; then 5,000 steps with patches of 96" in text
    assert "Of these degradations the input has 15.000 dB, the host as it is makes 17.000 dB." in lines
    # Student's interval of 0.1, 0.2, 0.3: 0.2 -+ 4.303 * 0.1 / sqrt(3); its power: 5.653 * 0.1 / sqrt(3).
    ours = "| both, identity | 1,234 | 123 | 0.001 | 3 | 22.200 | 0.5500 | +0.200 [-0.048, +0.448] | 0.326 | 1.25 |"
    assert f"{ours} inconclusive |" in lines
    assert '"both, identity" to "widened": +0.200 [-0.230, +0.630] dB, 3 seeds, visible 0.565.' in lines
    assert any(line.endswith("| too few seeds (1), 1 diverged |") for line in lines)
    assert "| 1,000 | +0.100 [-0.024, +0.224] | +0.000 [-0.124, +0.124] | +0.200 |" in lines
    assert "| 5,000 | +0.200 [-0.048, +0.448] | +0.000 [-0.248, +0.248] | +0.400 |" in lines
    assert "| host | 0.05000 | diverged | 0.001, the largest |" in lines
    assert "- the base: 4 runs, first tokens 0" in lines


def test_report_of_tiles():
    runs = [
        run(arm, seed, 0.0, tiled=scores("rain", "haze", gain=seed - 1)) for arm in (HOST, COMPARED) for seed in (0, 1)
    ]
    runs[0]["tiled"]["rain"] = scores("rain", gain=2)["rain"]
    lines = markdown(result("continued", *runs)).splitlines()
    # Of the host's seeds, rain gains 2 and -1, haze -1 each.
    assert "| in tiles of 96, difference to whole (dB) | host (2) | both, identity (2) |" in lines
    assert "| rain | +0.50 [-18.56, +19.56] | -1.00 [-1.00, -1.00] |" in lines
    assert "| average | -0.25 [-9.78, +9.28] | -1.00 [-1.00, -1.00] |" in lines
    assert not any("in tiles of" in line for line in markdown(continued()).splitlines())


def test_report_of_a_variation_of_the_primitives():
    of_hosts = [run(HOST, seed, 0.0) for seed in (0, 1, 2)]
    changes = {"setting": "mean", "what": "tokens of mean 1", "changes": {"primitives": {"scale": "mean"}}}
    varied = [run(COMPARED, seed, 0.1 * seed, **changes) for seed in (0, 1, 2)]
    lines = markdown(result("continued", *of_hosts, *varied)).splitlines()
    # It has no hosts of its own: those of the base serve.
    row = next(line for line in lines[lines.index("## Tokens of mean 1") :] if line.startswith("| both, identity |"))
    assert "+0.100 [-0.148, +0.348]" in row


def test_report_of_a_new_degradation():
    more = {"setting": "low", "what": "low light", "names": ("low",), "given_back": True, "bytes": 151_234}
    runs = [
        run(arm, seed, gain, own=scores(OWN, gain=-1), **more)
        for arm, gain in ((HOST, 0.0), (COMPARED, 0.1), (LORA, 0.0), ("frozen, both", -0.5))
        for seed in (0, 1, 2)
    ]
    lines = markdown(result("adaptation", *runs)).splitlines()
    assert lines.count("### Everything is trained") == lines.count("### The host is frozen") == 1
    assert any("of its own the input has 15.000 dB, the host as it is makes 17.000 dB." in line for line in lines)
    frozen = next(line for line in lines if line.startswith("| frozen, both |"))
    assert "-0.500 [-0.500, -0.500] | 0.000 | 20.000 | yes | 151 kB | 1.25 | worse |" in frozen
    # Both primitives are compared with the host, not with LoRA.
    assert "+0.100 [+0.100, +0.100]" in next(line for line in lines if line.startswith("| both, identity |"))
    assert "widened" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([0.5], "too few seeds (1)"),
        ([0.1, 0.11, 0.12], "better"),
        ([-0.1, -0.11, -0.12], "worse"),
        ([0.1, 0.2, 0.3], "inconclusive"),
    ],
)
def test_verdicts(differences, said):
    assert verdict(differences) == said


def test_a_report_is_three_files(tmp_path):
    path = tmp_path / "continued.json"
    write_report(continued(), path, Console(quiet=True))
    assert path.with_suffix(".md").read_text() == markdown(continued())
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
