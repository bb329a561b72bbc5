"""The retailers of a shard: mode, halts, thresholds and counts, one packed record each."""

from typing import Any

import numpy as np

from engine.policy import Policy
from engine.room import grown

WINDOW_SLOTS = 60
"""Slots that a window of the breaker is counted in; the running one comes on top."""

RETAILERS_MAX = 10_000
"""Retailers a shard takes; each has memory and shares of his own."""

COUNTS = ("moved", "floored", "decided", "shocked")
"""What is counted in windows: large moves, arrivals on floors, changes, large changes of cost."""

RETAILER_DTYPE = np.dtype(
    [
        ("live", "u1"),  # 0: shadow
        ("halted", "u1"),  # by a command
        ("tripped", "u1"),  # by the breaker
        ("currency", "<u2"),
        ("listings", "<i4"),
        ("costs", "<i4"),  # listings whose cost is known
        ("waiting", "<i4"),  # listings in the backlog
        ("added_ms", "<i8"),
        ("mode_ms", "<i8"),
        ("rate_ms", "<i8"),  # when a currency rate last changed, -1: never
        ("halt_ms", "<i8"),  # newest word on halting the whole retailer
        ("costs_trusted_until_ms", "<i8"),  # a person resumed: big changes of cost pass until then
        ("history_ms", "<i8"),  # first change of a price, -1: none yet
        ("usual", "<f8"),  # changes in a window that has any, usually
        ("window", "<i8"),  # number of the window that `in_window` counts
        ("in_window", "<i4"),
        ("slot", "<i8"),  # number of the running slot, of each of the two windows
        ("cost_slot", "<i8"),
        ("moved", "<i4", (WINDOW_SLOTS + 1,)),  # newest slot first
        ("floored", "<i4", (WINDOW_SLOTS + 1,)),
        ("decided", "<i4", (WINDOW_SLOTS + 1,)),
        ("shocked", "<i4", (WINDOW_SLOTS + 1,)),
        ("quota", "<i4"),  # facts a second, 0: no limit
        ("quota_second", "<i8"),
        ("quota_used", "<i4"),
        # thresholds, from the retailer's policy
        ("breaker_move", "<f8"),
        ("breaker_moved_share", "<f8"),
        ("breaker_floor_share", "<f8"),
        ("breaker_rate_factor", "<f8"),
        ("breaker_listings_min", "<i4"),
        ("breaker_window_ms", "<i8"),
        ("breaker_history_ms", "<i8"),
        ("cost_shock_move", "<f8"),
        ("cost_shock_share", "<f8"),
        ("cost_shock_window_ms", "<i8"),
    ]
)

THRESHOLDS = tuple(
    name for name in RETAILER_DTYPE.names or () if name.startswith(("breaker_", "cost_shock_"))
)


class Retailers:
    """Numbers for retailers' ids, and what is known of each."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.ids: list[str] = []
        self.table = np.zeros(8, dtype=RETAILER_DTYPE)
        self.facts: list[dict[str, Any]] = []  # name, primary channel, spread: for people
        self.channels: dict[tuple[int, str], int] = {}  # (retailer, channel) -> number
        self.halted_channels = np.zeros(8, dtype=bool)  # by channel number
        self.channel_halt_ms: list[int] = []
        self._told = b""  # the table when its changes were last asked for

    def add(self, retailer: str, now_ms: int) -> int:
        """Return the number of a new retailer, in shadow mode."""
        assert retailer not in self.numbers
        number = self.numbers[retailer] = len(self.ids)
        self.ids.append(retailer)
        self.facts.append({})
        if number == len(self.table):
            self.table = grown(self.table)
        row = self.table[number]
        row["added_ms"] = now_ms
        row["mode_ms"] = row["rate_ms"] = row["halt_ms"] = row["history_ms"] = row["window"] = -1
        row["slot"] = row["cost_slot"] = -1
        row["costs_trusted_until_ms"] = -1
        return number

    def share(self, most: int, least: int) -> int:
        """Return what each retailer may use up of a memory for ``most``: as much as any other.

        It depends on how many they are and not on what they send, so that no retailer's flood
        changes what another's deltas get.
        """
        return max(most // max(len(self.ids), 1), least)

    def set_thresholds(self, number: int, policy: Policy) -> None:
        """Take the breaker's thresholds from the retailer's policy.

        A window of another length begins anew, because its slots are of another length.
        """
        row = self.table[number]
        if row["breaker_window_ms"] != policy.breaker_window_ms:
            row["slot"] = row["window"] = -1
            for name in ("moved", "floored", "decided"):
                row[name] = 0
        if row["cost_shock_window_ms"] != policy.cost_shock_window_ms:
            row["cost_slot"] = -1
            row["shocked"] = 0
        for name in THRESHOLDS:
            row[name] = getattr(policy, name)

    def channel(self, number: int, channel: str) -> int:
        """Return the number of a retailer's channel, giving it one."""
        key = (number, channel)
        found = self.channels.get(key)
        if found is None:
            found = self.channels[key] = len(self.channels)
            self.channel_halt_ms.append(-1)
            if found == len(self.halted_channels):
                self.halted_channels = grown(self.halted_channels)
        return found

    def changed(self) -> bytes:
        """Return the number and record of every retailer of whom anything changed since last asked.

        Counters decide later, so the digest must see each change at the mark of its cause. Whoever
        changes one need not remember to say so: the records are compared.
        """
        table = self.table[: len(self.ids)]
        told, now = self._told, table.tobytes()
        if now == told:
            return b""
        self._told = now
        size = RETAILER_DTYPE.itemsize
        before = np.zeros(len(now), dtype=np.uint8)
        before[: len(told)] = np.frombuffer(told, dtype=np.uint8)
        differ = (before != np.frombuffer(now, dtype=np.uint8)).reshape(-1, size).any(axis=1)
        differ[len(told) // size :] = True
        numbers = np.flatnonzero(differ)
        return numbers.tobytes() + table.take(numbers).tobytes()

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        channels = len(self.channels)
        return {
            "ids": self.ids,
            "facts": self.facts,
            "table": self.table[: len(self.ids)].tobytes(),
            "channels": [[retailer, channel] for retailer, channel in self.channels],
            "halted_channels": self.halted_channels[:channels].tolist(),
            "channel_halt_ms": self.channel_halt_ms,
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Retailers":
        """Return what :meth:`state` described."""
        retailers = cls()
        for retailer in state["ids"]:
            retailers.add(retailer, 0)
        table = np.frombuffer(state["table"], dtype=RETAILER_DTYPE)
        retailers.table[: len(table)] = table
        retailers.facts = [dict(facts) for facts in state["facts"]]
        for retailer, channel in state["channels"]:
            retailers.channel(retailer, channel)
        retailers.halted_channels[: len(state["halted_channels"])] = state["halted_channels"]
        retailers.channel_halt_ms = list(state["channel_halt_ms"])
        retailers._told = retailers.table[: len(retailers.ids)].tobytes()
        return retailers
