"""The SVG plots of the evidence page."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from benchmarks.claims.claim import Finding, Row
from benchmarks.claims.plot import svg
from benchmarks.claims.verdicts import gain

from exda_primitives.workbench.shared import results

from .made import DIGITS, INCONCLUSIVE, REPRODUCED, g, runs_of


@pytest.mark.parametrize("figure", [None, 5.92])
def test_a_plot_is_an_svg_with_all_rows(figure):
    rows = [Row("a < b", (), g(1, 2), REPRODUCED), Row("single", (), gain([-3.0]), INCONCLUSIVE)]
    drawn = ET.fromstring(svg(replace(DIGITS, figure=figure), Finding((), rows, "", ())))
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b", "single", "+1.50 (+1.00 to +2.00)", "-3.00 (no interval)"} <= set(texts)
    assert ("paper +5.92" in texts) is (figure is not None)
    circles = [float(each.get("cx")) for each in drawn.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles[0] > circles[1]
    assert all(0 < place < float(drawn.get("width")) for place in circles)


def test_results_are_read_as_the_library_writes_them(tmp_path):
    path = tmp_path / "diagnose_digits.json"
    result = results.begin(path, "digits", {"steps": 7, "batch": 8}, [0, 1], "exda diagnose digits")
    result["runs"] = runs_of("psnr", "depth 1", linear=[20, 20.1], residual=[22, 22.1])
    results.write(path, result)
    (row,) = DIGITS.measure(tmp_path).rows
    assert row.gain.mean == pytest.approx(2)
