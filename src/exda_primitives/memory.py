"""Keeps freed memory in the process for reuse, instead of returning it to the system after every layer.

glibc's ``malloc`` maps each large block separately and unmaps it when it is freed; the next layer's map then gets fresh
pages, which the kernel clears one by one. On a CPU this takes up to half of a restoration network's time on large
images.
"""

from __future__ import annotations

import ctypes
from functools import cache

# Parameter numbers of mallopt(3): M_TRIM_THRESHOLD and M_MMAP_MAX in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


@cache
def keep() -> bool:
    """Makes this process keep the memory that it frees, for the maps of the next layer.

    It speeds up any network on a CPU, and holds for the whole process, all threads, until it ends. Call it before large
    tensors are created. Between images of different sizes call ``release``, or the memory held grows with every new
    size. The commands of ``exda`` do both. The environment variable does the same without code::

        GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647 python ...

    Returns:
        Whether it is in effect: it needs glibc (Linux, except Alpine and other musl systems). Elsewhere nothing
        happens.

    Examples:
        >>> import exda_primitives as exda
        >>> kept = exda.memory.keep()
        >>> exda.memory.release() == kept
        True
    """
    libc = _glibc()
    if libc is None:
        return False
    # mallopt returns 1 on success. Without the first call, blocks of 32 MiB and more are always mapped separately.
    return libc.mallopt(_MMAP_MAX, 0) == 1 and libc.mallopt(_TRIM_THRESHOLD, _NEVER) == 1


def kept() -> bool:
    """Whether ``keep`` has been called in this process and took effect."""
    # ``keep`` is cached: its cache is empty until the first call, and calling it again only reads the result.
    return bool(keep.cache_info().currsize) and keep()


def release() -> bool:
    """Returns memory that is kept but unused to the system; later allocations take fresh pages once.

    Returns:
        ``kept()``; if False, nothing is done.
    """
    libc = _glibc()
    if libc is None or not kept():
        return False
    libc.malloc_trim(0)
    return True


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        # musl lacks these functions. (A preloaded malloc may accept ``mallopt`` and do nothing.)
        _ = libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):
        # TypeError: on Windows CDLL needs a name.
        return None
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    return libc
