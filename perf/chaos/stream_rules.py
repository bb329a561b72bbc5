"""What a subscriber of the price stream may rely on, judged message by message.

A message covers a range of each shard's ``seq``: it begins where the last one ended, it tells every
price that changed in its range (the newest, perhaps a newer one), and its token leads back to where
it ended. Who applies all of it holds the log's newest prices.
"""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from perf.chaos.documents import place_of

if TYPE_CHECKING:
    from perf.chaos.checker import Checker

Place = tuple[int, int]
Range = Mapping[int, int]


class Covered(Struct, frozen=True):
    """What a message claims: these prices are all that changed in this range."""

    client: str
    retailer: str
    after: Range | None  # None: a whole snapshot
    through: Range
    told: dict[tuple[str, str], Place]
    prices: tuple[Mapping[str, Any], ...]


class Subscriber:
    """One client as it must see itself."""

    def __init__(self, retailer: str) -> None:
        self.retailer = retailer
        self.position: dict[int, int] | None = None  # None: a snapshot must come
        self.table: dict[tuple[str, str], Place] = {}
        self.part: list[Mapping[str, Any]] = []  # of a snapshot that is not complete


class StreamRules:
    """Judges every stream; the checker knows what the log says."""

    def __init__(self, checker: "Checker") -> None:
        self.subscribers: dict[str, Subscriber] = {}
        self._checker = checker
        self._covered: deque[Covered] = deque()

    def connected(self, client: str, retailer: str, *, resumes: bool) -> None:
        """Note a connection: one that resumes stands where it stood, another begins anew."""
        subscriber = self.subscribers.setdefault(client, Subscriber(retailer))
        subscriber.part = []
        if not resumes:
            subscriber.position = None

    def told(self, client: str, message: Mapping[str, Any]) -> None:
        """Take a message."""
        self._checker.judged["stream messages"] += 1
        subscriber = self.subscribers[client]
        kind = message["type"]
        if kind == "resync_required":
            subscriber.position, subscriber.part = None, []
        elif kind == "snapshot":
            self._snapshot(client, subscriber, message)
        elif kind in ("delta", "heartbeat"):
            self._range(client, subscriber, message)

    def _snapshot(self, client: str, subscriber: Subscriber, message: Mapping[str, Any]) -> None:
        if subscriber.position is not None:
            self._checker.found("stream_gap", f"{client}: a snapshot that nobody asked for")
        subscriber.part += message["prices"]
        if not message["last"]:
            return
        prices, subscriber.part = tuple(subscriber.part), []
        through = _range(message["through"])
        subscriber.position = through
        subscriber.table = _places(prices)
        told = dict(subscriber.table)
        self._covered.append(Covered(client, subscriber.retailer, None, through, told, prices))

    def _range(self, client: str, subscriber: Subscriber, message: Mapping[str, Any]) -> None:
        after, through = _range(message["after"]), _range(message["through"])
        if after != subscriber.position:
            self._checker.found(
                "stream_gap", f"{client}: stands at {subscriber.position}, told from {after}"
            )
        if any(through[shard] < seq for shard, seq in after.items()):
            self._checker.found("stream_gap", f"{client}: {after} through {through} goes back")
        subscriber.position = through
        prices = tuple(message.get("prices", ()))
        told = _places(prices)
        subscriber.table.update(told)
        self._covered.append(Covered(client, subscriber.retailer, after, through, told, prices))

    def settle(self) -> None:
        """Judge the messages whose ranges the log was read through."""
        for _ in range(len(self._covered)):
            covered = self._covered.popleft()
            if not self._judge(covered, last=False):
                self._covered.append(covered)

    def finish(self) -> None:
        """Judge the rest."""
        for covered in self._covered:
            self._judge(covered, last=True)
        self._covered.clear()

    def _judge(self, covered: Covered, *, last: bool) -> bool:
        found = []
        for document in covered.prices:
            truth, listing = self._checker.listing_of(covered.retailer, document)
            found.append((document, truth, listing))
            if not last and (truth is None or _place(document)[0] > truth.seq):
                return False
        truths = self._checker.truths
        if not last and any(truths[shard].seq < seq for shard, seq in covered.through.items()):
            return False
        for document, truth, listing in found:
            if truth is None:
                self._checker.found("price_not_in_log", f"{covered.client}: {document['sku']}")
            elif not document.get("removed"):
                self._checker.judge_price(truth, listing, document, last=True)
        self._judge_complete(covered)
        return True

    def _judge_complete(self, covered: Covered) -> None:
        for shard, through in covered.through.items():
            truth = self._checker.truths[shard]
            after = 0 if covered.after is None else covered.after.get(shard, 0)
            names = {key: name for name, key in truth.names.items() if name[0] == covered.retailer}
            for listing, seq in truth.changed(covered.retailer, after, through).items():
                _, channel, sku = names[listing]
                if covered.told.get((channel, sku), (0, -1))[0] < seq:
                    self._checker.found(
                        "stream_missed",
                        f"{covered.client}: {sku} changed at seq {seq} of shard {shard}, in "
                        f"({after}, {through}], and was not told",
                    )

    def compare_at_end(self) -> None:
        """Compare what every subscriber holds with the log as far as it was told."""
        for client, subscriber in self.subscribers.items():
            position = subscriber.position or {}
            for truth in self._checker.truths:
                through = position.get(truth.shard, 0)
                if through == 0:
                    self._checker.found("stream_differs", f"{client}: was told of nothing")
                names = {key: name for name, key in truth.names.items()}
                for listing, seq in truth.changed(subscriber.retailer, 0, through).items():
                    _, channel, sku = names[listing]
                    held = subscriber.table.get((channel, sku), (0, -1))
                    self._checker.judged["final stream prices"] += 1
                    if held[0] < seq:
                        self._checker.found(
                            "stream_differs",
                            f"{client}: {sku} on {channel} is {held}, the log holds seq {seq}",
                        )


def _range(ranges: Mapping[str, int]) -> dict[int, int]:
    return {int(shard): seq for shard, seq in ranges.items()}


def _place(document: Mapping[str, Any]) -> Place:
    return (0, -1) if document.get("removed") else place_of(document)


def _places(prices: tuple[Mapping[str, Any], ...]) -> dict[tuple[str, str], Place]:
    return {
        (each["channel"], each["sku"]): place_of(each)
        for each in prices
        if not each.get("removed") and each["quote_id"] is not None
    }
