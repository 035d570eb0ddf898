"""Short names of claims and verdicts, and writers of made-up result files."""

import json
from pathlib import Path

from benchmarks.claims.verdicts import Gain, Verdict

from benchmarks.claims import quality, values

ROOT = Path(__file__).parents[3]
REPRODUCED, INCONCLUSIVE, REFUTED, NOT_MEASURED = Verdict
FUNCTION, DIGITS, WINDOWS, POSITION, POSITION_DIGITS, FORM_ERRORS, FORM_DIGITS = values.CLAIMS
BOTH, _, VALUE, TOKENS, IN_TIME, DEMO = quality.CLAIMS
MACHINE = {"cpu": "a CPU", "cores": 1, "threads": 1, "python": "3", "torch": "2", "commit": "abc"}


def g(low, high, repeats=3):
    """A gain with the interval from low to high."""
    return Gain(low, (low + high) / 2, high, repeats)


def write(path, kind, runs, config, seeds=(0, 1, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"kind": kind, "schema": 1, "command": f"exda diagnose {kind}", "machine": MACHINE, "config": config}
    path.write_text(json.dumps({**result, "seeds": list(seeds), "runs": runs}))


def runs_of(metric, condition, **variants):
    return [
        {"condition": condition, "variant": name.replace("_", "-"), "seed": seed, "parameters": 5, metric: value}
        for name, figures in variants.items()
        for seed, value in enumerate(figures)
    ]


def write_digits(folder, **variants):
    write(folder / "diagnose_digits.json", "digits", runs_of("psnr", "depth 1", **variants), {"steps": 7, "batch": 8})


def write_errors(folder, kind, conditions):
    runs = [run for name, variants in conditions.items() for run in runs_of("error", name, **variants)]
    write(folder / f"diagnose_{kind}.json", kind, runs, {"steps": 7, "batch": 8})


# Errors of three seeds; the non-linear ones are half the linear ones.
LINEAR, NONLINEAR = [1.0, 1.1, 0.9], [0.5, 0.56, 0.44]


def trained(arm, psnr, setting="base", budget="steps", changes=None, parameters=5):
    """Runs of the quality benchmark: one per seed, with these mean PSNRs (None: the run diverged)."""
    return [
        {
            "setting": setting,
            "what": f"the {setting}",
            "changes": changes or {},
            "budget": budget,
            "arm": arm,
            "seed": seed,
            "parameters": parameters,
            "scores": value and {"noise25": {"psnr": [value - 1, value]}, "rain": {"psnr": [value, value + 1]}},
        }
        for seed, value in enumerate(psnr)
    ]


def write_quality(folder, runs):
    images = {name: {"pictures": 3} for name in ("train", "test")}
    config = {"form": "cpu", "recipe": {"steps": 7, "batch": 2}, "data": {"patch": 8}, "pictures": images}
    write(folder / "quality.json", "quality", runs, config)


def write_cpu(folder, times, **change):
    result = {
        "command": "c",
        "machine": MACHINE,
        "model": "Restormer",
        "parameters": 10,
        "extra_parameters": 1,
        "input": [1, 3, 8, 8],
        "dtype": "float32",
        "seconds": {"original": [1.0] * len(times), "concat_free": times, "reference": times},
    }
    (folder / "cpu_forward.json").write_text(json.dumps(result | change))
