"""Sums up a comparison in a sentence, from its records."""

from __future__ import annotations

from collections.abc import Sequence

from .cases import CAPTURED, COMPILED, EAGER, FUSED, FUSED_ORIGINAL, ONNX, OPENVINO, ORIGINAL
from .record import TIMED, Record

_NAMES = {
    (FUSED_ORIGINAL, EAGER): "fused",
    (FUSED_ORIGINAL, CAPTURED): "fused, as a CUDA graph",
    (FUSED, EAGER): "patched and fused",
    (FUSED, CAPTURED): "patched and fused, as a CUDA graph",
    (ORIGINAL, CAPTURED): "as a CUDA graph",
    (ORIGINAL, COMPILED): "torch.compile",
    (ORIGINAL, ONNX): "onnxruntime",
    (ORIGINAL, OPENVINO): "OpenVINO",
}


def sentence(records: Sequence[Record]) -> str:
    """Returns one line: the first timed case in detail, the others as ratios, then where the original's time goes.

    Args:
        records: the records of one comparison, timed or not; at least one.
    """
    found = {(record.case.variant, record.case.mode): record for record in records}
    base, size = found.get((ORIGINAL, EAGER)), records[0].case.comparison.size
    if base is None or base.percentiles is None:
        why = "it was not measured" if base is None else f"{base.status}, {base.reason}"
        return f"At {size} there is nothing to compare with; the network as it is: {why}."
    before = base.percentiles.p50
    said = []
    for key, name in _NAMES.items():
        record = found.get(key)
        if record is None or (record.status != TIMED and key[1] == CAPTURED):
            continue
        if record.percentiles is None or record.ratio_to_eager is None:
            said.append(f"{name} not timed ({record.status})")
        elif any(" of the time" in each for each in said):
            said.append(f"{name} {record.ratio_to_eager:.2f}")
        else:
            times = f"{_duration(record.percentiles.p50)} for {_duration(before)} at {size}"
            said.append(f"{name}: {record.ratio_to_eager:.2f} of the time as it is ({times}){_memory(record, base)}")
    if not said:
        said = [f"{_duration(before)} as it is at {size}"]
    return f"{'; '.join(said)}.{_where(base)}"


def _memory(record: Record, base: Record) -> str:
    if not record.peak_bytes or not base.peak_bytes:
        return ""
    return f", {record.peak_bytes / base.peak_bytes:.2f} of the memory"


def _where(base: Record) -> str:
    cost = base.cost
    if cost is None or cost.share_in_blocks is None:
        return ""
    return (
        f" Of the time as it is, {cost.share_in_blocks:.0%} is in blocks that fuse takes, {cost.share_fused:.0%} in "
        "the parts that it computes."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
