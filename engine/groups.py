"""Listings that share policy and fees: what the rules say is kept once a group, not once a row.

A group is (retailer, channel, category, tags), and the listing itself where a policy names it. A
changed policy or fee is resolved a group at a time; the rows follow by their group's number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from engine.deltas import FeesChanged, ScopeKind
from engine.listing_table import ListingText
from engine.policy import POLICY_DTYPE, Policy, PolicyBook, policy_row
from engine.retailers import Retailers
from engine.room import grown

SWEEP_MIN = 1024
"""Fewest groups at which it is looked for those that no listing is in any more."""

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

PLACES: dict[ScopeKind, int] = {"channel": 1, "category": 2}
"""Where a group's key names what a scope of that kind goes by."""


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
        self._keys: list[GroupKey | None] = []  # by number, None: free
        self._free: list[int] = []  # descending, so that a restored shard gives the same number
        self._policies: list[Policy] = []
        self._by_retailer: dict[int, list[GroupKey]] = {}
        self._by_listing: dict[tuple[int, str], list[GroupKey]] = {}  # those of one listing alone

    def number(self, retailer: int, text: ListingText) -> int:
        """Return the number of the group that a listing belongs to, making one if needed."""
        own = f"{text.channel}\x1f{text.sku}"
        if self.book.fields_at(self._retailers.ids[retailer], "listing", own) is None:
            own = ""
        key = (retailer, text.channel, text.category, tuple(sorted(set(text.tags))), own)
        number = self._numbers.get(key)
        if number is None:
            number = self._free.pop() if self._free else self._another()
            self._begin(number, key)
        return number

    @property
    def full(self) -> bool:
        """Return whether another group needs more memory; :meth:`free` first what is unused."""
        return not self._free and len(self._keys) == len(self.table) >= SWEEP_MIN

    def free(self, used: np.ndarray) -> None:
        """Let the numbers of groups be given again that no listing is in.

        Tags change, and without this each set of tags that ever was would stay. Where few are
        unused nothing happens, so that looking costs little for each group that begins.

        Args:
            used: int[n], the groups' numbers of all listings.
        """
        unused = np.setdiff1d(np.arange(len(self._keys)), used)
        if len(unused) < len(self.table) // 4:
            return
        self._free = unused[::-1].tolist()
        for number in self._free:
            key = self._keys[number]
            assert key is not None
            del self._numbers[key]
            self._keys[number] = None
        for retailer, keys in self._by_retailer.items():
            self._by_retailer[retailer] = [key for key in keys if key in self._numbers]
        for place, keys in list(self._by_listing.items()):
            self._by_listing[place] = [key for key in keys if key in self._numbers]
            if not self._by_listing[place]:
                del self._by_listing[place]

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

        Only groups that the scope may concern are resolved: a retailer who names the bounds of each
        listing changes as many scopes as he has groups.

        Raises:
            NotSupported, RejectedInput: nothing has changed.
        """
        self.book.change(self._retailers.ids[retailer], scope, key, fields, priority)
        self.policy_ms[retailer, scope, key] = observed_ms
        changed = []
        for group in self._concerned(retailer, scope, key):
            number, policy = self._numbers[group], self._resolve(group)
            if policy != self._policies[number]:
                self._policies[number] = policy
                self.policy[number] = policy_row(policy)
                changed.append(number)
        own = self.book.retailer_policy(self._retailers.ids[retailer])
        self._retailers.set_thresholds(retailer, own)
        return np.array(changed, dtype=np.int64)

    def _concerned(self, retailer: int, scope: ScopeKind, key: str) -> list[GroupKey]:
        """Return the groups of a retailer's that one of his scopes may change."""
        if scope == "listing":
            return self._by_listing.get((retailer, key), [])
        groups = self._by_retailer.get(retailer, [])
        if scope == "retailer":
            return groups
        if scope == "tag":
            return [group for group in groups if key in group[3]]
        at = PLACES[scope]
        return [group for group in groups if group[at] == key]

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

    def category_of(self, number: int) -> str:
        """Return the category of a group that listings are in."""
        key = self._keys[number]
        assert key is not None
        return key[2]

    def channel_of(self, number: int) -> str:
        """Return the channel of a group that listings are in."""
        key = self._keys[number]
        assert key is not None
        return key[1]

    def named(self, scope: ScopeKind, key: str) -> np.ndarray:
        """Return bool[numbers], whether a channel's, category's or tag's policy is a group's."""
        if scope == "tag":
            found = [each is not None and key in each[3] for each in self._keys]
        else:
            at = PLACES[scope]
            found = [each is not None and each[at] == key for each in self._keys]
        return np.array(found, dtype=bool)

    def policy_of(self, number: int) -> Policy:
        """Return a group's policy."""
        return self._policies[number]

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "book": self.book.state(),
            "fees": [[*place, *_plain(fees)] for place, fees in self.fees.items()],
            "groups": list(self._keys),
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
        for key in state["groups"]:
            number = groups._another()
            if key is None:
                groups._free.insert(0, number)
            else:
                retailer, channel, category, tags, own = key
                groups._begin(number, (retailer, channel, category, tuple(tags), own))
        return groups

    def _another(self) -> int:
        """Return a number that was never given, with memory behind it."""
        number = len(self._keys)
        if number == len(self.table):
            self.table, self.policy = grown(self.table), grown(self.policy)
        self._keys.append(None)
        self._policies.append(Policy())
        return number

    def _begin(self, number: int, key: GroupKey) -> None:
        retailer, channel = key[:2]
        self._numbers[key], self._keys[number] = number, key
        self._by_retailer.setdefault(retailer, []).append(key)
        if key[4]:
            self._by_listing.setdefault((retailer, key[4]), []).append(key)
        self.table[number]["retailer"] = retailer
        self.table[number]["channel"] = self._retailers.channel(retailer, channel)
        self._policies[number] = self._resolve(key)
        self.policy[number] = policy_row(self._policies[number])
        self._set_fees(number, key)

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
