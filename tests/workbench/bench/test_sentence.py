"""The sentence that sums up a comparison."""

from dataclasses import replace

from tests.workbench.bench.stubs import COST, ORIGIN, timed

from exda_primitives.workbench.bench.record import Record
from exda_primitives.workbench.bench.sentence import sentence

ORIGINAL = replace(timed(seconds=(1.95,)), peak_bytes=200)
FUSED = replace(timed("fused-original", seconds=(1.21,), ratio=0.62), peak_bytes=110)
PATCHED = replace(timed("fused", seconds=(0.5,), ratio=0.25), peak_bytes=150)


def test_a_sentence_about_all_variants() -> None:
    records = [
        replace(ORIGINAL, cost=replace(COST, share_in_blocks=0.968, share_fused=0.9)),
        timed(mode="onnxruntime", ratio=0.912),
        FUSED,
        timed("fused", ratio=0.7),
        timed(mode="compiled", ratio=1.04),
    ]
    assert sentence(records) == (
        "fused: 0.62 of the time as it is (1.21 s for 1.95 s at 24x16), 0.55 of the memory; patched and fused 0.70; "
        "torch.compile 1.04; onnxruntime 0.91. Of the time as it is, 97% is in blocks that fuse takes, 90% in the "
        "parts that it computes."
    )


def test_variants_that_were_not_timed_are_named() -> None:
    fused = Record(FUSED.case, "skipped", ORIGIN, "no block")
    compiled = Record(timed(mode="compiled").case, "left", ORIGIN, "too long")
    captured = Record(timed(mode="captured").case, "skipped", ORIGIN, "no CUDA device")
    records = [ORIGINAL, fused, compiled, captured, PATCHED]
    assert sentence(records) == (
        "fused not timed (skipped); patched and fused: 0.25 of the time as it is (500 ms for 1.95 s at 24x16), 0.75 of "
        "the memory; torch.compile not timed (left)."
    )


def test_memory_that_was_not_measured_is_not_compared() -> None:
    records = [replace(ORIGINAL, peak_bytes=None), FUSED]
    assert sentence(records) == "fused: 0.62 of the time as it is (1.21 s for 1.95 s at 24x16)."


def test_the_original_alone() -> None:
    assert sentence([ORIGINAL]) == "1.95 s as it is at 24x16."


def test_nothing_to_compare_with() -> None:
    wrong = Record(ORIGINAL.case, "out of memory", ORIGIN, "none left")
    assert sentence([FUSED, wrong]) == (
        "At 24x16 there is nothing to compare with; the network as it is: out of memory, none left."
    )
    assert "it was not measured" in sentence([FUSED])
