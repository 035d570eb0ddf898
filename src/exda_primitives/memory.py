"""Memory of the process that is used again, instead of being given back to the system after every layer.

glibc's ``malloc`` maps each large block by itself and unmaps it when it is freed; the next layer's map is then made of
fresh pages, which the kernel clears one by one. On a CPU that is up to half of the time that a restoration network
takes on large images.
"""

from __future__ import annotations

import ctypes
from functools import cache

# mallopt(3)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


@cache
def keep() -> bool:
    """Lets this process keep the memory that it frees, for the maps of the next layer.

    It is for networks on a CPU, anyone's, and holds for the whole process, all threads, until it ends. Call it first,
    before large tensors are made. Between images of different sizes call ``release``, or what the process holds
    grows with every size. The commands of ``exda`` do both. Without code the environment does the same::

        GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647 python ...

    Returns:
        Whether it can be done here: with glibc (Linux, but for Alpine and other musl systems). Where not, nothing
        happens.

    Example:
        >>> import exda_primitives as exda
        >>> kept = exda.memory.keep()
        >>> exda.memory.release() == kept
        True
    """
    libc = _glibc()
    if libc is None:
        return False
    # Both return 1 when they are done. Without the first, blocks of 32 MiB and more are always mapped by themselves.
    return libc.mallopt(_MMAP_MAX, 0) == 1 and libc.mallopt(_TRIM_THRESHOLD, _NEVER) == 1


def kept() -> bool:
    """Whether ``keep`` has been called here, and could do its work."""
    return bool(keep.cache_info().currsize) and keep()


def release() -> bool:
    """Gives the memory that is kept and not in use back to the system; what is next needed is made anew, once.

    Returns:
        ``kept``; if not, nothing is done.
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
        # musl has none of them; a malloc that was preloaded may take the first call and do nothing.
        _ = libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):
        # TypeError: Windows loads no library without a name.
        return None
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    return libc
