"""Listings that share policy and fees: what the rules say is kept once a group, not once a row.

A group is (retailer, channel, category, tags), and the listing itself where a policy names it. A
changed policy or fee is resolved a group at a time; the rows follow by their group's number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from engine.deltas import FeesChanged, ScopeKind
from engine.listing_table import ListingText, grown
from engine.policy import POLICY_DTYPE, Policy, PolicyBook, policy_row
from engine.retailers import Retailers

GROUP_DTYPE = np.dtype(
    [
        ("retailer", "<u4"),
        ("channel", "<u4"),  # number in Retailers.channels
        ("vat", "<f8"),
        ("commission", "<f8"),
        ("fixed_fee_minor", "<i4"),
        ("minimum_fee_minor", "<i4"),
    ]
)


class Fees(Struct, frozen=True, array_like=True):
    """What a channel takes of a sale."""

    observed_ms: int = -1
    vat: float = 0.0
    commission: float = 0.0
    fixed_fee_minor: int = 0
    minimum_fee_minor: int = 0


NO_FEES = Fees()

GroupKey = tuple[int, str, str, tuple[str, ...], str]
"""(retailer, channel, category, tags sorted, "channel\\x1fsku" or "")."""


class Groups:
    """All groups of a shard, and the policies and fees they resolve from."""

    def __init__(self, retailers: Retailers, book: PolicyBook | None = None) -> None:
        self._retailers = retailers
        self.book = PolicyBook() if book is None else book
        self.fees: dict[tuple[int, str, str], Fees] = {}  # category "": every category
        self.policy_ms: dict[tuple[int, str, str], int] = {}  # (retailer, scope, key)
        self.table = np.zeros(16, dtype=GROUP_DTYPE)
        self.policy = np.zeros(16, dtype=POLICY_DTYPE)
        self._numbers: dict[GroupKey, int] = {}
        self._policies: list[Policy] = []
        self._by_retailer: dict[int, list[GroupKey]] = {}

    def number(self, retailer: int, text: ListingText) -> int:
        """Return the number of the group that a listing belongs to, making one if needed."""
        own = f"{text.channel}\x1f{text.sku}"
        if self.book.fields_at(self._retailers.ids[retailer], "listing", own) is None:
            own = ""
        key = (retailer, text.channel, text.category, tuple(sorted(set(text.tags))), own)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            if number == len(self.table):
                self.table, self.policy = grown(self.table), grown(self.policy)
            self._by_retailer.setdefault(retailer, []).append(key)
            channel = self._retailers.channel(retailer, text.channel)
            self.table[number]["retailer"], self.table[number]["channel"] = retailer, channel
            self._policies.append(self._resolve(key))
            self.policy[number] = policy_row(self._policies[number])
            self._set_fees(number, key)
        return number

    def change_policy(
        self,
        retailer: int,
        scope: ScopeKind,
        key: str,
        fields: dict[str, object],
        priority: int,
        observed_ms: int,
    ) -> np.ndarray:
        """Set a scope's fields; return the numbers of the groups whose policy is another now.

        Raises:
            NotSupported, RejectedInput: nothing has changed.
        """
        self.book.change(self._retailers.ids[retailer], scope, key, fields, priority)
        self.policy_ms[retailer, scope, key] = observed_ms
        changed = []
        for group in self._by_retailer.get(retailer, ()):
            number, policy = self._numbers[group], self._resolve(group)
            if policy != self._policies[number]:
                self._policies[number] = policy
                self.policy[number] = policy_row(policy)
                changed.append(number)
        own = self.book.retailer_policy(self._retailers.ids[retailer])
        self._retailers.set_thresholds(retailer, own)
        return np.array(changed, dtype=np.int64)

    def change_fees(self, retailer: int, delta: FeesChanged) -> np.ndarray:
        """Set what a channel takes; return the numbers of the groups that it concerns."""
        place = (retailer, delta.channel, delta.category or "")
        self.fees[place] = Fees(
            delta.observed_ms,
            delta.vat,
            delta.commission,
            delta.fixed_fee_minor,
            delta.minimum_fee_minor,
        )
        changed = []
        for group in self._by_retailer.get(retailer, ()):
            if group[1] == delta.channel:
                number = self._numbers[group]
                before = self.table[number].copy()
                self._set_fees(number, group)
                if before != self.table[number]:
                    changed.append(number)
        return np.array(changed, dtype=np.int64)

    def fees_ms(self, retailer: int, channel: str, category: str) -> int:
        """Return when these fees were observed, -1 if never."""
        return self.fees.get((retailer, channel, category), NO_FEES).observed_ms

    def policy_of(self, number: int) -> Policy:
        """Return a group's policy."""
        return self._policies[number]

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "book": self.book.state(),
            "fees": [[*place, *_plain(fees)] for place, fees in self.fees.items()],
            "groups": list(self._numbers),
            "policy_ms": [[*place, at_ms] for place, at_ms in self.policy_ms.items()],
        }

    @classmethod
    def restore(cls, state: dict[str, Any], retailers: Retailers) -> "Groups":
        """Return what :meth:`state` described."""
        groups = cls(retailers, PolicyBook.restore(state["book"]))
        for retailer, channel, category, *fees in state["fees"]:
            groups.fees[retailer, channel, category] = Fees(*fees)
        for retailer, scope, key, at_ms in state["policy_ms"]:
            groups.policy_ms[retailer, scope, key] = at_ms
        for retailer, channel, category, tags, own in state["groups"]:
            number = groups._number_again((retailer, channel, category, tuple(tags), own))
            assert number == len(groups._numbers) - 1
        return groups

    def _number_again(self, key: GroupKey) -> int:
        retailer, channel, category, tags, own = key
        sku = own.partition("\x1f")[2]
        return self.number(retailer, ListingText(channel, sku, "", category, tags))

    def _resolve(self, key: GroupKey) -> Policy:
        retailer, channel, category, tags, own = key
        return self.book.resolve(self._retailers.ids[retailer], channel, category, tags, own)

    def _set_fees(self, number: int, key: GroupKey) -> None:
        retailer, channel, category, _, _ = key
        fees = self.fees.get((retailer, channel, category))
        if fees is None:
            fees = self.fees.get((retailer, channel, ""), NO_FEES)
        for name in ("vat", "commission", "fixed_fee_minor", "minimum_fee_minor"):
            self.table[number][name] = getattr(fees, name)


def _plain(fees: Fees) -> Sequence[Any]:
    return [
        fees.observed_ms,
        fees.vat,
        fees.commission,
        fees.fixed_fee_minor,
        fees.minimum_fee_minor,
    ]
