"""Room that nobody has written to takes no memory, and belongs to one process."""

from pathlib import Path

import numpy as np
import pytest

from engine.room import MAPPED_BYTES_MIN, grown, room

PAGE = 4096


def resident(array: np.ndarray) -> int:
    """Return how many pages of an array are there, by the kernel's own book."""
    begin = array.__array_interface__["data"][0] // PAGE
    with Path("/proc/self/pagemap").open("rb") as book:
        book.seek(8 * begin)
        entries = np.frombuffer(book.read(8 * (array.nbytes // PAGE)), dtype=np.uint64)
    return int((entries >> np.uint64(63)).sum())


@pytest.mark.parametrize("size", [MAPPED_BYTES_MIN, 1 << 20, 6 << 20])
@pytest.mark.parametrize("times", [0, 2])
def test_only_what_is_written_to_takes_memory(size: int, times: int) -> None:
    used = [np.ones(2 * size, dtype=np.uint8) for _ in range(4)]
    del used[::2]  # what the allocator gives next is not fresh
    half = np.ones(size, dtype=np.uint8)
    longer = grown(half, times * size)
    assert longer[:size].all()
    assert resident(longer) <= size // PAGE + 1
    assert not longer[size:].any()


def test_a_forked_process_writes_into_its_own() -> None:
    array = room((4, MAPPED_BYTES_MIN), np.int32)
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line for line in lines if _holds(line, array.__array_interface__["data"][0])]
    assert len(spans) == 1
    assert spans[0].split()[1] == "rw-p"


def _holds(line: str, address: int) -> bool:
    begin, end = (int(each, 16) for each in line.split()[0].split("-"))
    return begin <= address < end


def test_room_grows_by_rows_and_keeps_them() -> None:
    for rows in (1, 3000):
        array = room((rows, 8), np.int32)
        assert not array.any()
        array[:] = np.arange(8)
        longer = grown(array)
        assert longer.shape == (2 * rows, 8)
        assert (longer[:rows] == array).all()
        assert not longer[rows:].any()
        longer[-1] = 1


def test_room_grows_at_once_to_what_is_needed() -> None:
    array = np.arange(256, dtype=np.int32)
    for rows, length in ((0, 512), (512, 512), (513, 1024), (100_000, 131_072)):
        longer = grown(array, rows)
        assert len(longer) == length
        assert (longer[:256] == array).all()
        assert not longer[256:].any()
