"""The model of CUDA's caching allocator. Facts from c10/cuda/CUDACachingAllocator.cpp."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablation.vram.allocator import CachingAllocator, OutOfMemory

MIB = 2**20


def reserved_for(*sizes: int) -> int:
    allocator = CachingAllocator()
    for size in sizes:
        allocator.allocate(size)
    return allocator.reserved


@pytest.mark.parametrize(
    ("sizes", "reserved"),
    [
        ([1], 2 * MIB),  # small requests share segments of 2 MiB
        ([MIB, MIB], 2 * MIB),
        ([MIB, MIB, 1], 4 * MIB),
        ([MIB + 1], 20 * MIB),  # up to 10 MiB: segments of 20 MiB
        ([8 * MIB, 8 * MIB], 20 * MIB),
        ([9 * MIB, 9 * MIB, 9 * MIB], 40 * MIB),
        ([10 * MIB], 10 * MIB),  # from 10 MiB on: a segment of its own, in steps of 2 MiB
        ([11 * MIB + 1], 12 * MIB),
    ],
)
def test_segments(sizes, reserved):
    assert reserved_for(*sizes) == reserved


def test_sizes_are_rounded_to_512_bytes():
    allocator = CachingAllocator()
    allocator.allocate(1)
    assert allocator.allocated == 512
    allocator.allocate(513)
    assert allocator.allocated == 512 + 1024


def test_a_large_block_is_not_split_for_a_rest_of_up_to_one_mib():
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(30 * MIB))
    block = allocator.allocate(29 * MIB)
    assert block.size == 30 * MIB
    allocator.free(block)
    assert allocator.allocate(28 * MIB).size == 28 * MIB


def test_best_fit_takes_the_smallest_block_that_is_large_enough():
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    where = small.address
    allocator.free(large)
    allocator.free(small)
    assert allocator.allocate(25 * MIB).address == where


def test_free_neighbours_join():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(8 * MIB), allocator.allocate(8 * MIB)]
    for block in blocks:
        allocator.free(block)
    allocator.allocate(16 * MIB)
    assert allocator.reserved == 20 * MIB


def test_what_is_only_kept_is_given_back_before_memory_runs_out():
    allocator = CachingAllocator(limit=50 * MIB)
    allocator.free(allocator.allocate(30 * MIB))
    allocator.allocate(40 * MIB)
    assert allocator.reserved == 40 * MIB and allocator.retries == 1
    with pytest.raises(OutOfMemory) as error:
        allocator.allocate(20 * MIB)
    assert (error.value.requested, error.value.allocated, error.value.reserved) == (20 * MIB, 40 * MIB, 40 * MIB)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60 * MIB)), max_size=60))
def test_whatever_is_asked_for(requests):
    """Live blocks never overlap, the counts are right, and at the end everything can be given back."""
    allocator, live = CachingAllocator(), []
    for free, size in requests:
        if free and live:
            allocator.free(live.pop(size % len(live)))
        else:
            live.append(allocator.allocate(size))
            assert live[-1].size >= size
        spans = sorted((block.address, block.address + block.size) for block in live)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert allocator.allocated == sum(block.size for block in live) <= allocator.reserved <= allocator.peak_reserved
    for block in live:
        allocator.free(block)
    allocator.empty_cache()
    assert allocator.allocated == allocator.reserved == 0
