"""What ``--keep`` keeps of a run whose site is taken away: logs, as files and as lines to read.

Every record that the checker heard becomes a line of JSON as it is heard, so that a violation,
which names shard and offset, is looked up with ``grep``. When the run is over the broker's data and
what the processes wrote of themselves are copied beside them. Passwords and keys are left out.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

import msgspec

from engine.errors import CorruptRecord
from persistence.decision_records import DecisionRecord, decode
from persistence.ports import DECISIONS, Record

FOLDERS: Final = {
    "broker/data": "broker",
    "folder/data/logs": "engine",
}
"""Folders of the site, and what they are called where they are kept."""

FILES: Final = (
    *("folder/up.log", "broker/kafka.log"),
    *("postgres/postgres.log", "questdb/questdb.log", "redis/redis.log"),
)

_encode = msgspec.json.Encoder(enc_hook=lambda each: each.tolist()).encode


@final
class Lines:
    """Writes every record down, one file a topic and shard; nothing where nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.stopped = ""  # why nothing more was kept
        self._folder = folder

    def note(self, topic: str, shard: int, records: list[Record]) -> None:
        """Write records down. Blocks for as long as the disk does.

        A disk that takes no more ends the keeping and not the judging.
        """
        if self._folder is None or self.stopped or not records:
            return
        lines = b"".join(_encode(line(topic, each)) + b"\n" for each in records)
        try:
            with (self._folder / f"{topic}-{shard}.jsonl").open("ab") as file:
                file.write(lines)
        except OSError as error:
            self.stopped = str(error)


def line(topic: str, record: Record) -> Mapping[str, Any]:
    """Return a record as a line shows it."""
    place: dict[str, Any] = {"offset": record.offset, "appended_ms": record.appended_ms}
    if topic != DECISIONS:
        return place | {"value": record.value.decode(errors="replace")}
    try:
        decoded = decode(record.value)
    except CorruptRecord as fault:
        return place | {"corrupt": str(fault)}
    stamp = decoded.stamp
    place |= {"kind": type(decoded).__name__, "epoch": stamp.epoch}
    return place | {"owner": stamp.owner.hex()} | dict(_fields(decoded))


def _fields(decoded: Any) -> Iterator[tuple[str, Any]]:
    told = decoded.decided if isinstance(decoded, DecisionRecord) else decoded
    for name in told.__struct_fields__:
        value = getattr(told, name)
        if name == "quotes":
            names = value.dtype.names
            yield name, [dict(zip(names, each, strict=True)) for each in value.tolist()]
        elif name != "stamp":
            yield name, value


def keep_site(root: Path, folder: Path) -> None:
    """Copy what a site's processes wrote; they have ended."""
    for name, kept in FOLDERS.items():
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / kept, dirs_exist_ok=True)
    for name in FILES:
        if (root / name).is_file():
            shutil.copy(root / name, folder / Path(name).name)
