"""A model of PyTorch's CUDA caching allocator: which segments it asks the driver for, given what is allocated and freed.

After ``c10/cuda/CUDACachingAllocator.cpp`` with its default settings: one stream, no expandable segments, no limit on
splitting. Sizes and addresses are bytes; addresses are made up, in the order in which segments are asked for.
"""

from bisect import bisect_left, insort

MIN_BLOCK = 512
SMALL_SIZE = 2**20  # requests up to this come from the pool of small segments
SMALL_SEGMENT = 2 * 2**20
MIN_LARGE = 10 * 2**20  # requests from this on get a segment of their own size
LARGE_SEGMENT = 20 * 2**20
ROUND_LARGE = 2 * 2**20
GAP = 2**44  # between the addresses of segments, so that blocks of two never look like neighbours


class OutOfMemory(Exception):
    """The allocator cannot serve a request within its limit, whatever it gives back."""

    def __init__(self, requested: int, allocated: int, reserved: int):
        super().__init__(f"{requested} bytes asked for, {allocated} allocated, {reserved} reserved")
        self.requested, self.allocated, self.reserved = requested, allocated, reserved


class Block:
    """A piece of a segment. ``before`` and ``after`` are its neighbours there."""

    __slots__ = ("address", "after", "before", "free", "size", "small")

    def __init__(self, address: int, size: int, small: bool, before: "Block | None" = None, after: "Block | None" = None):
        self.address, self.size, self.small, self.free, self.before, self.after = address, size, small, True, before, after


class CachingAllocator:
    """``limit``: bytes it may reserve, or None. ``reserved`` and ``allocated`` are now, ``peak_*`` the most so far."""

    def __init__(self, limit: int | None = None):
        self.limit = limit
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = self.retries = 0
        self._segments = 0
        self._pools: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])  # free blocks: large, small
        self._free: dict[int, Block] = {}  # by address

    def allocate(self, size: int) -> Block:
        """A block for ``size`` bytes. Raises :class:`OutOfMemory`."""
        size = -(-size // MIN_BLOCK) * MIN_BLOCK or MIN_BLOCK
        small = size <= SMALL_SIZE
        pool = self._pools[small]
        index = bisect_left(pool, (size, 0))
        block = self._free.pop(pool.pop(index)[1]) if index < len(pool) else self._segment(size, small)
        if block.size - size >= MIN_BLOCK if small else block.size - size > SMALL_SIZE:
            self._split(block, size, pool)
        block.free = False
        self.allocated += block.size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return block

    def free(self, block: Block) -> None:
        """Take a block back, and join it with free neighbours."""
        self.allocated -= block.size
        pool = self._pools[block.small]
        before, after = block.before, block.after
        if before is not None and before.free:
            self._forget(before, pool)
            block.address, block.size, block.before = before.address, before.size + block.size, before.before
            if block.before is not None:
                block.before.after = block
        if after is not None and after.free:
            self._forget(after, pool)
            block.size, block.after = block.size + after.size, after.after
            if block.after is not None:
                block.after.before = block
        block.free = True
        self._free[block.address] = block
        insort(pool, (block.size, block.address))

    def empty_cache(self) -> None:
        """Give back every segment that is wholly free."""
        for pool in self._pools:
            for size, address in list(pool):
                block = self._free[address]
                if block.before is None and block.after is None:
                    self._forget(block, pool)
                    self.reserved -= size

    def _segment(self, size: int, small: bool) -> Block:
        """A new segment, as one free block that is in no pool."""
        wanted = SMALL_SEGMENT if small else LARGE_SEGMENT if size < MIN_LARGE else -(-size // ROUND_LARGE) * ROUND_LARGE
        if self.limit is not None and self.reserved + wanted > self.limit:
            self.retries += 1
            self.empty_cache()
            if self.reserved + wanted > self.limit:
                raise OutOfMemory(size, self.allocated, self.reserved)
        self.reserved += wanted
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._segments += 1
        return Block(self._segments * GAP, wanted, small)

    def _split(self, block: Block, size: int, pool: list[tuple[int, int]]) -> None:
        rest = Block(block.address + size, block.size - size, block.small, block, block.after)
        if rest.after is not None:
            rest.after.before = rest
        block.size, block.after = size, rest
        self._free[rest.address] = rest
        insort(pool, (rest.size, rest.address))

    def _forget(self, block: Block, pool: list[tuple[int, int]]) -> None:
        del self._free[block.address]
        del pool[bisect_left(pool, (block.size, block.address))]
