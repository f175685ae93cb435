"""The memory that a process on a CPU computes in stays with it.

glibc asks the kernel anew for each large block and returns it when it is freed: the tensors of every step are pages that the
kernel maps and fills with zeros again, a tenth to a quarter of the time of a small network's step. Values do not depend on it.
"""

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of mallopt(3), malloc.h
NEVER, NONE, AT_ONCE = -1, 0, 64 * 2**20


def keep_heap() -> None:
    """From now on large blocks come from the heap, which only grows. Does nothing with an allocator other than glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for what, value in ((MMAP_MAX, NONE), (TRIM_THRESHOLD, NEVER), (TOP_PAD, AT_ONCE)):
            mallopt(what, value)
