"""One start of a shard's owner: its number, its name, and where it came to run."""

from typing import Literal

from msgspec import Struct

Phase = Literal["starting", "standby", "live"]


class Start(Struct, frozen=True, kw_only=True):
    """One start of one shard's owner."""

    shard: int
    number: int
    owner: bytes  # 16 bytes, the owner's id in the log
    standby: bool = False
    cautious: bool = False
    pardoned: tuple[bytes, ...] = ()  # owners whose deaths are held against no record (0121)

    @property
    def name(self) -> str:
        """Return the name of its process, which Ray's dashboard shows."""
        return f"shard-{self.shard:03d}-s{self.number:04d}"


class Launched(Struct, frozen=True, kw_only=True):
    """Where a start runs."""

    start: Start
    pid: int
    address: str  # its own loopback port: health, metrics, control
