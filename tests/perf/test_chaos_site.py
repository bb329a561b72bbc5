"""A disk that is full at will, where this machine lets us mount one."""

import errno
import os
import threading
from pathlib import Path

import pytest

from perf.chaos.site import DISK_BYTES, Disk


def test_a_disk_is_full_and_then_has_room_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    if not disk.mount():
        assert not disk.mounted, "then chaos leaves the kind out and says so"
        return
    try:
        kept = disk.folder / "kept"
        kept.write_bytes(os.urandom(200_000))
        assert disk.fill() >= 200_000
        with pytest.raises(OSError) as full:
            (disk.folder / "more").write_bytes(os.urandom(200_000))
        assert full.value.errno == errno.ENOSPC
        disk.empty()
        (disk.folder / "more").write_bytes(os.urandom(200_000))
        held = os.statvfs(disk.folder)
        assert held.f_blocks * held.f_frsize == DISK_BYTES
        assert len(kept.read_bytes()) == 200_000
    finally:
        disk.unmount()
    assert not kept.exists()


def test_a_disk_is_filled_while_somebody_writes(tmp_path: Path) -> None:
    """What is used grows between the look and the limit; whoever writes still runs into it."""
    disk = Disk(tmp_path / "disk")
    if not disk.mount():
        return
    ended, full = threading.Event(), threading.Event()

    def grow() -> None:
        with (disk.folder / "growing").open("ab", buffering=0) as file:
            while not ended.is_set():
                try:
                    file.write(bytes(4096))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    full.set()
                    file.truncate(0)

    writing = threading.Thread(target=grow)
    writing.start()
    try:
        for _ in range(20):
            full.clear()
            assert disk.fill() > 0
            assert full.wait(timeout=30)
            disk.empty()
    finally:
        ended.set()
        writing.join()
        disk.unmount()
