"""Results as Markdown and on the terminal."""

from io import StringIO

from rich.console import Console
from tests.workbench.bench.stubs import ORIGIN, timed

from exda_primitives.workbench.bench.record import Record
from exda_primitives.workbench.bench.table import left_out, markdown, printed

RECORDS = [
    timed(),
    timed("torch", seconds=(0.3, 0.3, 0.6), ratio=1.5),
    timed(mode="compiled", seconds=(0.05,)),
    timed(precision="bf16", batch=4),
    Record(timed("triton").case, "skipped", ORIGIN, "no | device"),
    Record(timed("triton", mode="compiled").case, "skipped", ORIGIN, "no | device"),
]


def test_variants_stand_side_by_side() -> None:
    lines = markdown(RECORDS).splitlines()
    start = lines.index("## Forward pass, float32, 1 image at a time")
    assert lines[start + 2] == (
        "| network | size | mode | original (ms) | patched, concat-free (ms) | original (GiB) "
        "| patched, concat-free (GiB) |"
    )
    assert lines[start + 4] == "| restormer-tiny | 24x16 | eager | 200 | 300 (1.500) | 1 | 1 |"
    assert lines[start + 5] == "| restormer-tiny | 24x16 | compiled | 50 | - | 1 | - |"
    assert "## Forward pass, bf16, 4 images at a time" in lines


def test_all_that_was_measured_is_in_the_details() -> None:
    text = markdown(RECORDS)
    detail = next(line for line in text.splitlines() if "| torch | eager |" in line)
    for figure in ("300", "480", "1.500", "float64, output", "2e-07", "0.00128", "0.1"):
        assert f"| {figure} |" in detail, figure
    assert "a processor, 2 cores" in text
    assert "10 GB/s" in text
    assert "Command: `exda bench run`" in text


def test_all_rows_of_a_table_have_the_same_number_of_cells() -> None:
    table: list[int] = []
    for line in [*markdown(RECORDS).splitlines(), ""]:
        if line.startswith("|"):
            table.append(line.replace("\\|", "").count("|"))
        elif table:
            assert len(set(table)) == 1
            assert len(table) > 2
            table = []


def test_cases_that_were_not_timed_are_grouped_by_reason() -> None:
    _, rows = left_out(RECORDS)
    case = "restormer-tiny forward float32 1 x 24x16 triton"
    assert rows == [["skipped", "no | device", f"{case} eager, {case} compiled"]]
    assert "no \\| device" in markdown(RECORDS)


def test_the_terminal_shows_the_same_in_80_columns() -> None:
    console = Console(width=80, record=True, file=StringIO())
    for table in printed(RECORDS):
        console.print(table)
    text = console.export_text()
    row = next(line for line in text.splitlines() if "torch" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "restormer-tiny",
        "24x16",
        "eager",
        "torch",
        "300",
        "1.500",
        "1.500",
        "1",
    ]
    assert "Not timed" in text


def test_one_ratio_is_enough_where_all_is_eager() -> None:
    assert [column.header for column in printed(RECORDS[:2])[0].columns][4:] == ["ms", "ratio", "GiB"]
    assert [column.header for column in printed(RECORDS[:3])[0].columns][4:] == ["ms", "ratio", "to eager", "GiB"]


def test_nothing_timed() -> None:
    assert "## Not timed" in markdown(RECORDS[4:])
    assert len(printed(RECORDS[4:])) == 1
