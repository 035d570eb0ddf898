"""Claims about the non-linear value: functions, positions, forms, digits."""

import json
import math

import pytest

from exda_primitives.errors import ConfigError, ExDAError

from .made import (
    DIGITS,
    FORM_DIGITS,
    FORM_ERRORS,
    FUNCTION,
    INCONCLUSIVE,
    LINEAR,
    NONLINEAR,
    POSITION,
    POSITION_DIGITS,
    REFUTED,
    REPRODUCED,
    WINDOWS,
    runs_of,
    write,
    write_digits,
    write_errors,
)


@pytest.mark.parametrize(
    ("residual", "widened", "verdict", "at_size"),
    [
        (NONLINEAR, LINEAR, REPRODUCED, REPRODUCED),
        ([0.9, 0.99, 0.81], LINEAR, REPRODUCED, INCONCLUSIVE),
        ([2.0, 2.3, 1.8], LINEAR, REFUTED, REFUTED),
        (NONLINEAR, NONLINEAR, REFUTED, REFUTED),
        ([0.5, 2.0, 1.0], LINEAR, INCONCLUSIVE, INCONCLUSIVE),
    ],
)
def test_verdict_on_functions(tmp_path, residual, widened, verdict, at_size):
    write_errors(tmp_path, "function", {"order 2": {"linear": LINEAR, "residual": residual, "widened": widened}})
    found = FUNCTION.measure(tmp_path)
    assert (found.effect, found.size) == (verdict, at_size)


def test_one_condition_that_refutes_is_enough(tmp_path):
    good = {"linear": LINEAR, "residual": NONLINEAR, "widened": LINEAR}
    write_errors(tmp_path, "function", {"order 2": good, "order 4": {**good, "widened": NONLINEAR}})
    found = FUNCTION.measure(tmp_path)
    assert [row.effect for row in found.rows] == [REPRODUCED, REFUTED]
    assert found.effect is REFUTED


def test_only_seeds_that_both_have_are_compared(tmp_path):
    write_digits(tmp_path, linear=[20, 20.1, 20.2], residual=[22, 22.1], widened=[20, 20.1, 20.2])
    (row,) = DIGITS.measure(tmp_path).rows
    assert row.gain.repeats == 2
    assert row.effect is INCONCLUSIVE


def test_an_unfinished_file_says_which_seeds_it_has(tmp_path):
    runs = runs_of("psnr", "depth 1", linear=[20], residual=[22])
    write(tmp_path / "diagnose_digits.json", "digits", runs, {"steps": 7, "batch": 8})
    found = DIGITS.measure(tmp_path)
    assert found.sources[0].seeds == "0 (of 0, 1, 2)"
    assert found.budget.endswith(", 1 seeds")


def test_files_in_folders_are_further_conditions(tmp_path):
    write_digits(tmp_path, linear=[20, 20.1], residual=[22, 22.1], widened=[20, 20.1])
    write_digits(tmp_path / "deep", linear=[20, 20.1], residual=[22, 22.1], widened=[20, 20.1])
    found = DIGITS.measure(tmp_path)
    assert [source.file for source in found.sources] == ["diagnose_digits.json", "deep/diagnose_digits.json"]
    assert len(found.rows) == 2


@pytest.mark.parametrize(
    ("after", "verdict"), [(LINEAR, REPRODUCED), (NONLINEAR, REFUTED), ([0.9, 1.4, 0.6], INCONCLUSIVE)]
)
def test_verdict_on_positions(tmp_path, after, verdict):
    variants = {"linear": LINEAR, "widened": LINEAR, "residual": NONLINEAR, "after": after}
    write_errors(tmp_path, "position", {"a mixture": variants})
    assert POSITION.measure(tmp_path).effect is verdict


@pytest.mark.parametrize(
    ("after", "verdict"), [([20, 20.1, 20.2], REPRODUCED), ([22, 22.1, 22.1], REFUTED), ([20, 23, 20.2], INCONCLUSIVE)]
)
def test_verdict_on_positions_in_digits(tmp_path, after, verdict):
    host, before = [20, 20.1, 20.2], [22, 22.1, 22.2]
    write_digits(tmp_path, linear=host, widened=host, residual=before, after=after)
    found = POSITION_DIGITS.measure(tmp_path)
    assert found.effect is verdict
    assert found.rows[0].cells[4] == "+2.00 (+2.00 to +2.00)"


@pytest.mark.parametrize(
    ("claim", "kind"), [(FORM_ERRORS, "function"), (FORM_ERRORS, "position"), (FORM_DIGITS, "digits")]
)
@pytest.mark.parametrize(("better", "verdict"), [(True, REPRODUCED), (False, REFUTED)])
def test_verdict_on_forms(tmp_path, claim, kind, better, verdict):
    low, high = ([20.0, 20.1, 20.2], [22.0, 22.1, 22.2])
    ours, others = (high, low) if better is (kind == "digits") else (low, high)
    variants = {"residual": ours, "replace": others, "gelu": others, "sigmoid": others}
    if kind == "digits":
        write_digits(tmp_path, **variants)
    else:
        write_errors(tmp_path, kind, {"condition": variants})
    assert claim.measure(tmp_path).effect is verdict


def test_a_claim_without_its_variants_is_not_measured(tmp_path):
    write_digits(tmp_path, linear=[20, 20.1], gelu=[22, 22.1])
    assert DIGITS.measure(tmp_path) is None
    assert FORM_DIGITS.measure(tmp_path) is None


@pytest.mark.parametrize(("change", "match"), [({"schema": 0}, "version 0"), ({"kind": "digits"}, "kind 'digits'")])
def test_files_of_another_version_or_kind_are_refused(tmp_path, change, match):
    write_errors(tmp_path, "function", {"order 2": {"linear": LINEAR, "residual": NONLINEAR}})
    path = tmp_path / "diagnose_function.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=match):
        FUNCTION.measure(tmp_path)


def test_a_figure_that_is_not_a_number_is_refused(tmp_path):
    write_digits(tmp_path, linear=[20, math.nan, 20.2], residual=[22, 22.1, 22.2], widened=[20, 20.1, 20.2])
    with pytest.raises(ExDAError, match="not finite"):
        DIGITS.measure(tmp_path)


def test_digits_within_windows_are_a_claim_of_their_own(tmp_path):
    write_digits(tmp_path, linear=[20, 20.1, 20.2], residual=[22, 22.2, 22.1], widened=[20, 20.1, 20.2])
    assert WINDOWS.measure(tmp_path) is None
    saved = json.loads((tmp_path / "diagnose_digits.json").read_text())
    (tmp_path / "diagnose_windows.json").write_text(json.dumps({**saved, "kind": "windows"}))
    found = WINDOWS.measure(tmp_path)
    assert (found.effect, found.size) == (REPRODUCED, None)
    assert len(DIGITS.measure(tmp_path).rows) == 1
