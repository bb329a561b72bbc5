"""How far one shard's decision log was read, and how old an answer about it is."""

from collections.abc import Collection

from msgspec import Struct

from actors.clock import ClockKind
from gateway.money import rfc3339
from persistence.decision_records import LogPosition

STALE_MS = 2000
"""An answer is stale when nothing was heard from its shard for longer."""

NO_POSITION = LogPosition(b"", -1, 0, b"", 0)


class Age(Struct, frozen=True):
    """How old an answer may be, as every answer says it.

    ``as_of`` is the append time of the last record that was read, of the shard where that was
    longest ago. ``stale`` says that nothing was heard of one of them for over two seconds.
    """

    as_of: str
    stale: bool


class ShardView:
    """How far one shard's decision log was read, and how long ago."""

    __slots__ = (
        "_tails",
        "appended_ms",
        "caught_up",
        "clock",
        "decided_ms",
        "failure",
        "position",
        "read_ms",
        "target",
    )

    def __init__(self, clock: ClockKind = "wall") -> None:
        self.position = NO_POSITION
        self.appended_ms = 0  # of the last accepted record
        self.read_ms = 0  # monotonic time at which it was read
        self.decided_ms = 0  # time of the last decision, by the owner's clock
        self.clock: ClockKind = clock
        self.target = -1  # end of the log when following began
        self.caught_up = False
        self.failure = ""  # why following stopped, if it did
        self._tails: tuple[bytes, bytes] | None = None

    def heard(self, position: LogPosition, appended_ms: int, read_ms: int) -> None:
        """Note that a record was accepted."""
        self.position = position
        self.appended_ms = appended_ms
        self.read_ms = read_ms
        self._tails = None

    def age_ms(self, now_ms: int, monotonic_ms: int) -> int:
        """Return for how long nothing was heard; the worse of the log's clock and our own."""
        if self.read_ms == 0:
            return now_ms
        return max(now_ms - self.appended_ms, monotonic_ms - self.read_ms)

    def tail(self, now_ms: int, monotonic_ms: int) -> bytes:
        """Return the end of a JSON object that says how old it is."""
        if self._tails is None:
            as_of = rfc3339(self.appended_ms)
            self._tails = (
                f',"as_of":"{as_of}","stale":false}}'.encode(),
                f',"as_of":"{as_of}","stale":true}}'.encode(),
            )
        return self._tails[self.age_ms(now_ms, monotonic_ms) > STALE_MS]


def oldest(views: Collection[ShardView], now_ms: int, monotonic_ms: int) -> Age:
    """Return the age of an answer that was put together from these shards."""
    assert views
    return Age(
        as_of=rfc3339(min(view.appended_ms for view in views)),
        stale=any(view.age_ms(now_ms, monotonic_ms) > STALE_MS for view in views),
    )
