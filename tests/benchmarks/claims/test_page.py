"""The evidence page is generated from the result files."""

import importlib
import re
import xml.etree.ElementTree as ET

import pytest
from benchmarks.claims.claim import DECIBEL, Finding, Row
from benchmarks.claims.groups import GROUPS, overview, sentence
from benchmarks.claims.verdicts import gain, seen

from .made import (
    BOTH,
    DIGITS,
    FORM_DIGITS,
    INCONCLUSIVE,
    POSITION_DIGITS,
    REFUTED,
    REPRODUCED,
    ROOT,
    g,
    write_cpu,
    write_digits,
)


@pytest.fixture
def evidence(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("evidence")


def test_the_committed_page_and_plots_match_the_results(evidence):
    rendered = evidence.rendered(ROOT / "benchmarks" / "results")
    written = {name: (ROOT / "docs" / name).read_text() for name in rendered}
    # Compares names, not texts: a failure lists the files that differ.
    assert [name for name in rendered if written[name] != rendered[name]] == []


def test_all_plots_are_named_on_the_page(evidence):
    named = re.findall(r"\]\((evidence/[\w-]+\.svg)\)", (ROOT / "docs" / "evidence.md").read_text())
    there = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "evidence").iterdir()]
    assert sorted(named) == sorted(there)
    assert named


def test_commands_on_the_page_hold_no_absolute_path():
    commands = [line for line in (ROOT / "docs" / "evidence.md").read_text().splitlines() if line[:8] == "Command:"]
    assert commands
    assert [command for command in commands if re.search(r"[\s='\"]/", command)] == []


def test_without_results_nothing_is_measured(evidence, tmp_path):
    rendered = evidence.rendered(tmp_path)
    assert list(rendered) == ["evidence.md"]
    assert rendered["evidence.md"].count("**not measured**: there is no result") == len(evidence.CLAIMS)
    for verdict in (REPRODUCED, REFUTED):
        assert f"| **{verdict.value}**" not in rendered["evidence.md"]


def test_a_result_of_another_version_leaves_the_page_as_it_is(evidence, tmp_path, capsys):
    found, docs = tmp_path / "results", tmp_path / "docs"
    write_digits(found, linear=[20.0], residual=[22.0])
    evidence.main(found, docs)
    before = {path: path.read_bytes() for path in docs.rglob("*.*")}
    path = found / "diagnose_digits.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(SystemExit):
        evidence.main(found, docs)
    assert "is of version 2" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in docs.rglob("*.*")} == before


def test_claim_names_are_unique(evidence):
    assert len({claim.name for claim in evidence.CLAIMS}) == len(evidence.CLAIMS)


def test_plots_whose_results_are_gone_are_removed(evidence, tmp_path):
    found, docs = tmp_path / "results", tmp_path / "docs"
    found.mkdir()
    write_cpu(found, [1.0, 1.01, 1.02])
    evidence.main(found, docs)
    assert (docs / "evidence" / "cost-cpu.svg").exists()
    (found / "cpu_forward.json").unlink()
    evidence.main(found, docs)
    assert list((docs / "evidence").iterdir()) == []
    assert (docs / "evidence.md").read_text() == evidence.rendered(found)["evidence.md"]


def test_the_page_says_verdict_rule_seeds_machine_and_command(evidence, tmp_path):
    write_digits(tmp_path, linear=[20, 20.1, 20.2], residual=[26, 26.1, 26.2], widened=[20, 20.1, 20.2])
    page = evidence.rendered(tmp_path)["evidence.md"]
    section = page.partition("## 2. ")[2].partition("\n## ")[0]
    assert "| digits, 7 steps of batch 8: depth 1 |" in section
    assert "+6.00 (+6.00 to +6.00)" in section
    assert "Verdict: **reproduced**; as large as the paper's: **reproduced**. The rule" in section
    assert "`diagnose_digits.json`: seeds 0, 1, 2. a CPU, 1 cores, 1 threads; torch 2, Python 3; commit abc." in section
    assert "Command: `exda diagnose digits`" in section
    assert "Budget: digits: 9 networks of 5 parameters, each 7 steps of batch 8, 3 seeds." in section
    summary = next(line for line in page.splitlines() if line.startswith("| Non-linear values restore"))
    assert summary.split(" | ")[1] == "**reproduced**"
    assert summary.endswith("| **reproduced** |")
    assert "“non-linear values are better” (+6.00 dB)" in page.partition("## In short")[2].partition("\n## ")[0]


def test_every_claim_belongs_to_exactly_one_group(evidence):
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(claim.name for claim in evidence.CLAIMS)


def test_a_groups_sentence_gives_the_verdict_of_each_claim():
    refuted, unclear = Row("a", (), g(-2, -1, 3), REFUTED), Row("b", (), g(-1, 1, 3), INCONCLUSIVE)
    claims = [
        (DIGITS, None),
        (POSITION_DIGITS, Finding((), (unclear,), "", ())),
        (FORM_DIGITS, Finding((), (refuted, unclear), "", ())),
    ]
    visible = DECIBEL.number(seen(unclear.gain))
    assert sentence("Toy networks that restore digits", claims) == (
        "Toy networks that restore digits: "
        "**inconclusive**: “only a non-linearity before the aggregation helps” (+0.00 dB; an effect of "
        f"{visible} dB would have been seen); "
        "**refuted**: “V + g(V) is the best form” (-1.50 to +0.00 dB; refuted in 1 of 2 conditions); "
        "**not measured**: “non-linear values are better”."
    )


def test_the_overview_has_a_line_for_each_measured_claim():
    rows = (Row("a", (), g(1, 2), REPRODUCED), Row("b", (), gain([3.0]), INCONCLUSIVE))
    drawn = ET.fromstring(overview([(DIGITS, Finding((), rows[1:], "", ())), (FORM_DIGITS, None), (BOTH, None)]))
    assert len(drawn.findall("{*}circle")) == 1
    drawn = ET.fromstring(overview([(DIGITS, Finding((), rows, "", ())), (BOTH, Finding((), rows[:1], "", ()))]))
    # A row of few repeats does not count where another row has more.
    assert len(drawn.findall("{*}circle")) == 2
    assert len(drawn.findall("{*}g")) == 2
