"""``memory.keep`` and ``release``, in a process of their own: the setting lasts until a process ends."""

import ctypes
import subprocess
import sys

import pytest

from exda_primitives import memory

BLOCK = 64 * 2**20
PAGES = BLOCK // 4096

PROGRAM = """
import resource, torch
from exda_primitives import memory

def faults_of_ten_blocks():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones({block}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

print(memory.release(), faults_of_ten_blocks(), memory.keep(), memory.keep())
for _ in range(20):
    # glibc's tcache first keeps up to seven freed pieces of each size, which do not merge with their neighbours.
    torch.ones({block}, dtype=torch.uint8)
print(faults_of_ten_blocks(), resident(), memory.release(), resident())
"""


@pytest.fixture(scope="module")
def printed():
    if memory._glibc() is None:
        pytest.skip("there is no glibc here")
    # Counts page faults of 4 KiB pages.
    program = PROGRAM.format(block=BLOCK)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_freed_memory_is_used_again(printed):
    released, before, kept, again, after, *_ = printed
    assert (released, kept, again) == ("False", "True", "True")
    assert int(before) > 9 * PAGES
    assert int(after) < PAGES


def test_release_returns_unused_memory_to_the_system(printed):
    *_, held, released, left = printed
    assert released == "True"
    assert int(held) - int(left) > 0.9 * PAGES


def test_without_glibc_nothing_happens(monkeypatch):
    for cached in (memory.keep, memory._glibc):
        cached.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    try:
        assert not memory.keep()
        assert not memory.release()
    finally:
        for cached in (memory.keep, memory._glibc):
            cached.cache_clear()
