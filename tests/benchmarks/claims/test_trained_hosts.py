"""Claims about trained hosts."""

import pytest

from benchmarks.claims import trained_hosts

from .made import INCONCLUSIVE, REFUTED, REPRODUCED, trained, write

FURTHER, LEARNS, FROZEN = trained_hosts.CLAIMS
LOW = {"data": {"degradations": ["low"]}, "primitives": {}}


def write_form(folder, form, runs):
    images = {name: {"pictures": 3} for name in ("train", "test")}
    config = {"form": form, "recipe": {"steps": 7, "batch": 2}, "data": {"patch": 8}, "pictures": images}
    write(folder / f"{form}.json", "continued", runs, config | {"host": {"name": "the demo's"}})


@pytest.mark.parametrize(
    ("ours", "lora", "verdict"),
    [
        ([21, 21.1, 21.2], [20, 20.1, 20.2], REPRODUCED),
        # LoRA of equal size does equally well.
        ([21, 21.1, 21.2], [21, 21.1, 21.2], REFUTED),
        ([21, 21.1], [20, 20.1], INCONCLUSIVE),
    ],
)
def test_what_is_learnt_is_compared_with_the_host_and_with_lora(tmp_path, ours, lora, verdict):
    runs = trained("host", [20, 20.1, 20.2][: len(ours)], "low", changes=LOW)
    runs += trained("value", ours, "low", changes=LOW) + trained("host, LoRA", lora, "low", changes=LOW)
    write_form(tmp_path, "adaptation", runs)
    found = LEARNS.measure(tmp_path)
    assert found.effect is verdict
    (row,) = found.rows
    assert row.condition == "value: adaptation, the low, equal steps"
    assert found.budget.endswith("the host: the demo's")
    assert FROZEN.measure(tmp_path) is None


@pytest.mark.parametrize(
    ("ours", "verdict"), [([21, 21.1, 21.2], REPRODUCED), ([19, 19.1, 19.2], REFUTED), ([19, 21, 20.2], INCONCLUSIVE)]
)
def test_with_a_frozen_host_lora_is_what_is_compared_with(tmp_path, ours, verdict):
    runs = trained("frozen, LoRA", [20, 20.1, 20.2], "low", changes=LOW)
    write_form(tmp_path, "adaptation", runs + trained("frozen, both", ours, "low", changes=LOW))
    assert FROZEN.measure(tmp_path).effect is verdict


def test_further_training_is_compared_with_the_wider_host(tmp_path):
    assert FURTHER.measure(tmp_path) is None
    runs = trained("host", [20, 20.1, 20.2]) + trained("tokens", [20.1, 20.2, 20.3])
    write_form(tmp_path, "continued", runs + trained("widened", [20.3, 20.4, 20.5], parameters=9))
    (row,) = FURTHER.measure(tmp_path).rows
    assert row.cells[2:] == ["+0.10 (+0.10 to +0.10)", "-0.20 (-0.20 to -0.20)"]
