"""Memory for weights: what arrays get is theirs alone, aligned, and freed with them."""

import itertools
import mmap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nemojax import arena
from nemojax.arena import ALIGNMENT, HUGE_PAGE, Arena, aligned


def addresses(array):
    return array.ctypes.data, array.ctypes.data + array.nbytes


@pytest.mark.parametrize("shape, dtype", [((), np.float32), ((0, 3), np.int8), ((5, 7), np.float16), ((129,), np.int8)])
def test_an_array_of_its_own_is_aligned(shape, dtype):
    array = aligned(shape, np.dtype(dtype))
    assert array.shape == shape and array.dtype == dtype and array.ctypes.data % ALIGNMENT == 0
    array[...] = 1


@pytest.mark.parametrize("pages, huge", [(1, True), (0.95, True), (0.8, False), (4, True), (8.1, False), (10.1, True)])
def test_an_array_that_fills_huge_pages_has_them(pages, huge, monkeypatch):
    asked, memory = [], arena._huge
    monkeypatch.setattr(arena, "_huge", lambda size: asked.append(size) or memory(size))
    size = round(pages * HUGE_PAGE)
    array = aligned((size,), np.dtype(np.int8))
    assert len(array) == size and asked == [size] * huge and array.ctypes.data % ALIGNMENT == 0
    array[[0, -1]] = 1


def test_arrays_of_an_arena_do_not_overlap(monkeypatch):
    monkeypatch.setattr(arena, "BLOCK_BYTES", 1000)
    memory, sizes = Arena(), [1, 64, 65, 300, 5000, 0, 999, 1000, 1001, 7] * 20
    with ThreadPoolExecutor(4) as threads:
        arrays = list(threads.map(lambda size: memory.empty((size,), np.dtype(np.int8)), sizes))
    assert [len(array) for array in arrays] == sizes
    ranges = sorted(addresses(array) for array in arrays if len(array))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ranges))
    assert all(begin % ALIGNMENT == 0 for begin, _ in ranges)
    for number, array in enumerate(arrays):
        array[...] = number % 100
    assert all((array == number % 100).all() for number, array in enumerate(arrays))


@pytest.mark.parametrize("left_over", [0, 1, 63, 64])
def test_an_array_is_whole_where_a_block_is_nearly_full(left_over, monkeypatch):
    monkeypatch.setattr(arena, "BLOCK_BYTES", 640)
    memory = Arena()
    for _ in range(2):
        first, second = (memory.empty((size,), np.dtype(np.int8)) for size in (513, 127 - left_over))
        assert len(second) == 127 - left_over and second.ctypes.data % ALIGNMENT == 0
        first[...], second[...] = 1, 2
        assert (first == 1).all() and (second == 2).all()


def test_a_block_begins_with_a_huge_page_and_is_filled_before_the_next_one():
    memory, whole = Arena(), np.dtype(np.int32)
    first, second = memory.empty((3,), whole), memory.empty((2, 2), whole)
    assert first.ctypes.data % HUGE_PAGE == 0 and second.ctypes.data == first.ctypes.data + ALIGNMENT
    assert second.shape == (2, 2) and second.dtype == whole


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no huge pages")
def test_a_block_asks_for_huge_pages_and_can_do_without(monkeypatch):
    advised = []

    class Watched(mmap.mmap):
        def madvise(self, option):
            advised.append(option)
            raise OSError  # Linux without huge pages

    monkeypatch.setattr(mmap, "mmap", Watched)
    memory = Arena().empty((10,), np.dtype(np.int8))
    memory[...] = 3
    assert advised == [mmap.MADV_HUGEPAGE]


def test_a_system_without_huge_pages(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    array = Arena().empty((10,), np.dtype(np.int8))
    array[...] = 3
    assert array.ctypes.data % HUGE_PAGE == 0
