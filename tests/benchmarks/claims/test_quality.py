"""Claims about the quality of restoration."""

import json

import pytest

from .made import BOTH, DEMO, IN_TIME, INCONCLUSIVE, MACHINE, REFUTED, REPRODUCED, TOKENS, VALUE, trained, write_quality


@pytest.mark.parametrize(
    ("ours", "wider", "verdict"),
    [
        ([21, 21.1, 21.2], [20, 20.1, 20.2], REPRODUCED),
        ([21, 21.1, 21.2], [21, 21.1, 21.2], REFUTED),
        ([19, 19.1, 19.2], [20, 20.1, 20.2], REFUTED),
        ([21, 19, 20.2], [20, 20.1, 20.2], INCONCLUSIVE),
        # One run diverged; two pairs are too few.
        ([21, 21.1, None], [20, 20.1, 20.2], INCONCLUSIVE),
    ],
)
def test_verdict_on_quality(tmp_path, ours, wider, verdict):
    write_quality(tmp_path, trained("host", [20, 20.1, 20.2]) + trained("value", ours) + trained("widened", wider))
    claim = VALUE
    found = claim.measure(tmp_path)
    assert found.effect is verdict
    assert any("1 trainings diverged" in note for note in found.notes) is (None in ours)
    assert TOKENS.measure(tmp_path) is None


@pytest.mark.parametrize(
    ("parameters", "verdict"),
    [
        # With the host's number of parameters, the host alone is the control; with the wider network's, the wider
        # network is, and it does equally well.
        (1005, REPRODUCED),
        (1099, REFUTED),
        # Between the two there is no control.
        (1050, INCONCLUSIVE),
    ],
)
def test_a_control_has_as_many_parameters(tmp_path, parameters, verdict):
    ours = [21, 21.1, 21.2]
    write_quality(
        tmp_path,
        trained("host", [20, 20.1, 20.2], parameters=1000)
        + trained("tokens", ours, parameters=parameters)
        + trained("widened", ours, parameters=1100),
    )
    assert TOKENS.measure(tmp_path).effect is verdict


def test_only_seeds_that_both_arms_have_are_compared(tmp_path):
    write_quality(tmp_path, trained("host", [20, 30, 40]) + trained("tokens", [20.5]))
    (row,) = TOKENS.measure(tmp_path).rows
    assert row.cells[:3] == ["20.00 (1)", "20.50 (1)", "+0.50 (no interval)"]


def test_settings_are_compared_with_their_own_host(tmp_path):
    runs = trained("host", [20, 20]) + trained("widened", [20, 20]) + trained("widened", [20.5], budget="time")
    runs += trained("both, identity", [21], "decoder", changes={"primitives": {"include": ["decoder"]}})
    longer = {"recipe": {"steps": 9}, "primitives": {}}
    runs += trained("host", [25], "steps", changes=longer)
    runs += trained("both, identity", [28], "steps", changes=longer)
    runs += trained("both, identity", [22], budget="time")
    write_quality(tmp_path, runs)
    found = BOTH.measure(tmp_path)
    gains = {row.condition: row.gain.mean for row in found.rows}
    assert gains == {"cpu, the decoder, equal steps": pytest.approx(1), "cpu, the steps, equal steps": pytest.approx(3)}
    over_wider = {row.condition: row.cells[-1] for row in found.rows}
    assert over_wider["cpu, the steps, equal steps"] == "-"
    # At equal time the host's run is that of equal steps; the wider network has a run of its own.
    (row,) = IN_TIME.measure(tmp_path).rows
    assert row.condition == "both, identity: cpu, the base, equal time"
    assert row.gain.mean == pytest.approx(2)
    assert row.cells[-1] == "+1.50 (no interval)"


def test_the_demo_is_one_training_and_inconclusive(tmp_path):
    phases = {name: {"steps": 5, "parameters": 7, "machine": MACHINE} for name in ("host", "exda")}
    psnr = {"host": [20.0, 21.0, 22.0, 23.0], "exda": [22.0, 23.1, 24.0, 25.1]}
    demo = {"command": "c", "seed": 0, "settings": {"batch": 4}, "phases": phases, "training_crops": 3}
    (tmp_path / "demo_weights.json").write_text(json.dumps(demo | {"held_out_psnr": psnr}))
    found = DEMO.measure(tmp_path)
    assert found.rows[0].gain.low > 0
    assert found.effect is INCONCLUSIVE
