"""One retailer as the gateway knows him: his products, his mode, and what is halted."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Literal

from engine.decided import CatalogueChange

Mode = Literal["shadow", "live"]


class Product:
    """One SKU of a retailer with the rows of its listings.

    ``ready`` is its retailer's; what lies there under its SKU is forgotten when it changes.
    """

    __slots__ = ("ready", "rows", "shard", "sku")

    def __init__(self, sku: str, shard: int, ready: dict[str, bytes]) -> None:
        self.sku = sku
        self.ready = ready
        self.shard = shard  # all channels of a SKU live in one
        self.rows: list[int] = []


class Retailer:
    """A retailer's products and states. Changed by the replica alone.

    ``ready`` holds, by SKU, the recommendations of primary listings up to their age, which is only
    known when answering; a SKU is missing until somebody asks again after a change. They lie here
    and not at the products, so that a batch finds each in one look-up and touches nothing else.
    """

    def __init__(self, retailer_id: str) -> None:
        self.id = retailer_id
        self.name: str | None = None
        self.currency: str | None = None
        self.primary_channel: str | None = None
        self.modes: dict[int, Mode] = {}  # by shard: each goes live for itself
        self.spread = 1
        self.halts: dict[tuple[int, str], str] = {}  # shard, channel ("" for all) -> reason
        self.breakers: dict[int, dict[str, Any]] = {}  # shard -> what it tripped on
        self.experiments: dict[tuple[int, str], dict[str, Any]] = {}  # by shard and kind
        self.products: dict[str, Product] = {}
        self.ready: dict[str, bytes] = {}
        self.shards: set[int] = set()  # that ever held a product of his
        self._skus: list[str] | None = None  # sorted; None after a product came or went

    @property
    def mode(self) -> Literal["shadow", "live", "mixed"]:
        """Return the mode of all his shards, ``mixed`` where they differ."""
        modes = set(self.modes.values())
        return "mixed" if len(modes) > 1 else next(iter(modes), "shadow")

    def product(self, sku: str, shard: int) -> Product:
        """Return the product, which is added if it is new."""
        product = self.products.get(sku)
        if product is None:
            product = self.products[sku] = Product(sku, shard, self.ready)
            self.shards.add(shard)
            self._skus = None
        return product

    def drop(self, product: Product) -> None:
        """Forget a product that has no listing any more."""
        del self.products[product.sku]
        self.ready.pop(product.sku, None)
        self._skus = None

    def after(self, sku: str) -> Iterator[Product]:
        """Yield the products whose SKU sorts behind ``sku`` (``""``: all), in that order."""
        if self._skus is None:
            self._skus = sorted(self.products)
        skus = self._skus  # a change meanwhile makes a new list
        start = bisect_left(skus, sku)
        if start < len(skus) and skus[start] == sku:
            start += 1
        for index in range(start, len(skus)):
            product = self.products.get(skus[index])
            if product is not None:
                yield product


def change_retailer(shard: int, retailer: Retailer, change: CatalogueChange) -> None:
    """Apply an accepted change of a retailer, a halt or the breaker."""
    fields = change.fields
    match change.what:
        case "retailer":
            retailer.name = fields.get("name", retailer.name)
            retailer.currency = fields.get("currency", retailer.currency)
            retailer.primary_channel = fields.get("primary_channel", retailer.primary_channel)
            retailer.spread = fields.get("spread", retailer.spread)
            if "mode" in fields:
                retailer.modes[shard] = fields["mode"]
        case "mode":
            retailer.modes[shard] = fields["mode"]
        case "halt":
            retailer.halts[shard, fields.get("channel") or ""] = fields.get("reason", "")
        case "breaker":
            retailer.breakers[shard] = fields
        case "experiment":
            retailer.experiments[shard, fields["kind"]] = fields
        case "resume":
            # Each shard halts and resumes for itself: one that has not resumed yet still stands.
            channel = fields.get("channel") or ""
            for held in [each for each in retailer.halts if each[0] == shard]:
                if channel in ("", held[1]):
                    del retailer.halts[held]
            if not channel:
                retailer.breakers.pop(shard, None)
