"""Memory: how much is available, how much is needed, and that a budget is not exceeded."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import exda_primitives as exda
from exda_primitives.errors import ExDAError, ImageError
from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.restoration import Restorer, memory
from exda_primitives.workbench.restoration.memory import GIB, MemoryEstimate, available_bytes, largest_tile
from exda_primitives.workbench.shared import packages
from exda_primitives.workbench.shared.live_bytes import LiveBytes


@torch.inference_mode()
def test_need_grows_with_the_pixels() -> None:
    model = tiny_restormer().eval()
    per_pixel = []
    for height, width in ((64, 64), (128, 96)):
        with LiveBytes() as live:
            model(torch.zeros(1, 3, height, width))
        per_pixel.append(live.peak / height / width)
    # Matrices whose size does not grow with the image weigh more in the small one.
    assert per_pixel[1] <= per_pixel[0] <= 1.1 * per_pixel[1]


NEED = MemoryEstimate(per_pixel=1000, channels=3)


@given(
    height=st.integers(2, 60),
    width=st.integers(2, 60),
    megabytes=st.integers(100, 500),
    multiple=st.sampled_from([8, 24, 64]),
)
@settings(deadline=None, max_examples=40)
def test_the_tile_fits_and_is_a_multiple(height: int, width: int, megabytes: int, multiple: int) -> None:
    height, width, free = height * multiple, width * multiple, megabytes * 10**6
    try:
        tile = largest_tile(NEED, height, width, multiple, lambda tile: tile // 2 // multiple * multiple, free)
    except ImageError:
        assert NEED.of(height, width, -(-128 // multiple) * multiple) > free
        return
    if tile is None:
        assert NEED.of(height, width, None) <= free
    else:
        assert NEED.of(height, width, None) > free
        assert NEED.of(height, width, tile) <= free
        assert tile % multiple == 0


def test_the_tile_is_the_smallest_for_the_same_number_of_tiles() -> None:
    free = NEED.of(3000, 4000, 2000)
    tile = largest_tile(NEED, 3000, 4000, 8, lambda tile: 128, free)
    # Two rows of 1564 and three columns of 1419 suffice; 1568 is the next multiple of 8.
    assert tile == 1568
    assert -(-(4000 - 128) // (tile - 128)) == 3


def test_too_little_memory_for_the_smallest_tile_is_refused() -> None:
    with pytest.raises(ImageError, match=r"0\.15 GiB are needed even in tiles of 128 pixels, 0\.01 GiB"):
        largest_tile(NEED, 800, 800, 8, lambda tile: 64, 10**7)


def test_a_budget_includes_memory_in_use_already(monkeypatch: pytest.MonkeyPatch) -> None:
    in_use = SimpleNamespace(rss=3 * GIB)
    module = SimpleNamespace(
        Process=lambda: SimpleNamespace(memory_info=lambda: in_use),
        virtual_memory=lambda: SimpleNamespace(available=10 * GIB),
    )
    monkeypatch.setattr(memory, "psutil", lambda: module)
    monkeypatch.setattr(memory, "_control_group_bytes", lambda: iter([]))
    cpu = torch.device("cpu")
    assert available_bytes(cpu, 8) == 5 * GIB
    assert available_bytes(cpu, 2) == -GIB
    assert available_bytes(cpu, None) == int(0.9 * 10 * GIB)
    monkeypatch.setattr(memory, "_control_group_bytes", lambda: iter([4 * GIB, 20 * GIB]))
    assert available_bytes(cpu, None) == int(0.9 * 4 * GIB)


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_limits_of_control_groups_version_2(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/batch/job\n")
    write(root / "batch", memory__max=1000, memory__current=400, memory__stat="anon 300\ninactive_file 50")
    write(root / "batch/job", memory__max="max", memory__current=100, memory__stat="inactive_file 50")
    assert list(memory._control_group_bytes(root, own)) == [650]


def test_limits_of_control_groups_version_1(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/here\n4:memory:/somewhere/else\n1:name=systemd:/here\n")
    write(
        root / "memory",
        **{"memory__limit_in_bytes": 1000, "memory__usage_in_bytes": 900, "memory__stat": "total_inactive_file 10"},
    )
    assert list(memory._control_group_bytes(root, own)) == [110]


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert list(memory._control_group_bytes(tmp_path, tmp_path / "none")) == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ExDAError, match=r'pip install "psutil>=5\.9" "pyvips\[binary\]>=3"'):
        packages.psutil()


CHILD = """
import resource, psutil, torch
from pathlib import Path
from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.restoration import Restorer
import exda_primitives as exda
network = tiny_restormer()
{before}
restorer = Restorer(network, overlap=32)
image = torch.rand(3, 352, 352)
budget = psutil.Process().memory_info().rss / 2**30 + 0.27
restorer.memory = budget
tile = restorer(image).tile
status = Path("/proc/self/status")
if status.exists():
    # The peak of this program alone; that of getrusage includes the peak of the process that started it.
    peak = 2**10 * int(status.read_text().split("VmHWM:")[1].split()[0])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(tile, budget, peak / 2**30)
"""


@pytest.mark.parametrize("before", ["", "exda.memory.keep(), exda.fuse(network)"], ids=["given-back", "kept-and-fused"])
def test_a_budget_is_not_exceeded(before: str) -> None:
    program = CHILD.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    tile, budget, peak = done.stdout.split()
    # The whole image would take 0.37 GiB by the estimate, and more where freed memory is kept.
    assert 128 <= int(tile) < 352
    assert float(peak) <= float(budget)


def test_fused_blocks_need_less_memory_per_pixel_in_a_larger_image() -> None:
    network = tiny_restormer()
    exda.fuse(network)
    restorer = Restorer(network, overlap=32)
    before = restorer.need.per_pixel
    # Too little for an image of 512 x 512 by the first measurement, enough by that of a larger one.
    restorer.memory = psutil.Process().memory_info().rss / GIB + restorer.need.of(384, 384, None) / GIB
    assert restorer(torch.rand(3, 512, 512)).tile is None
    assert restorer.need.per_pixel < 0.7 * before
