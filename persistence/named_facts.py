"""Facts read once more, with their names, for followers that keep history."""

from typing import Any

import msgspec
from msgspec import Struct

from engine.checking import DECODE_ERRORS
from engine.deltas import CompetitorPriced, CostChanged, StockCounted, UnitsSold
from engine.errors import RejectedInput
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    FLAG_CONDITION_NEW,
    FLAG_IN_STOCK,
    STOCK_COUNTED,
    UNITS_SOLD,
    currency_name,
)
from engine.routing import key64
from persistence.frames import FRAME, judge_rows, open_frame
from persistence.ports import Record

_FACTS = msgspec.json.Decoder(CompetitorPriced | StockCounted | UnitsSold | CostChanged)


class NamedFact(Struct, frozen=True, kw_only=True):
    """One fact as it was sent. ``index`` is its place in the record."""

    index: int
    kind: int  # a code of engine.microbatch
    retailer: str
    listing: int  # engine.routing.key64
    channel: str = ""  # "" in frames, which name listings by key only
    sku: str = ""
    amount: int  # price_minor, units or cost_minor by kind
    observed_ms: int
    rival: str = ""
    shipping_minor: int = 0
    currency: str = ""  # "": the listing's own
    in_stock: bool = True
    is_new: bool = True
    source: str = ""
    source_seq: int = -1
    sold_minor: int = 0  # the price of units sold, 0: not told


def read_facts(record: Record) -> list[NamedFact]:
    """Return the record's facts, none for a record that holds no fact or cannot be decoded.

    What the owner refused for another reason (a stray, a duplicate, a quarantined price, a key that
    stands twice in a document) is in here: leave out the positions that stand in the decisions'
    ``exceptions``. What was judged when it was decided is not judged once more.
    """
    try:
        if record.content_type.partition(";")[0].strip().lower() == FRAME:
            return _of_frame(record.value)
        return [_of_delta(_FACTS.decode(record.value))]
    except (RejectedInput, *DECODE_ERRORS):
        return []


def _of_delta(delta: CompetitorPriced | StockCounted | UnitsSold | CostChanged) -> NamedFact:
    listing = key64(delta.retailer, delta.channel, delta.sku)
    kind, amount = COST_CHANGED, 0
    more: dict[str, Any] = {}
    match delta:
        case CompetitorPriced():
            kind, amount = COMPETITOR_PRICED, delta.price_minor
            more = {
                "rival": delta.rival,
                "shipping_minor": delta.shipping_minor,
                "currency": delta.currency or "",
                "in_stock": delta.in_stock,
                "is_new": delta.condition == "new",
                "source": delta.source or "",
            }
        case StockCounted():
            kind, amount = STOCK_COUNTED, delta.units
        case UnitsSold():
            kind, amount = UNITS_SOLD, delta.units
            seq = delta.source_seq
            more = {
                "source": delta.source or "",
                "source_seq": -1 if seq is None else seq,
                "sold_minor": delta.price_minor or 0,
            }
        case CostChanged():
            amount = delta.cost_minor
    return NamedFact(
        index=0,
        kind=kind,
        retailer=delta.retailer,
        listing=listing,
        channel=delta.channel,
        sku=delta.sku,
        amount=amount,
        observed_ms=delta.observed_ms,
        **more,
    )


def _of_frame(value: bytes) -> list[NamedFact]:
    frame = open_frame(value)
    columns = frame.columns
    refused = judge_rows(columns)
    sold_minor = columns.sold_minor
    rivals, sources = (*columns.rival_names, ""), (*columns.source_names, "")
    return [
        NamedFact(
            index=index,
            kind=int(columns.kind[index]),
            retailer=frame.retailer,
            listing=int(columns.listing[index]),
            amount=int(columns.amount[index]),
            observed_ms=int(columns.observed_ms[index]),
            rival=rivals[columns.rival[index]],
            shipping_minor=int(columns.shipping_minor[index]),
            currency=currency_name(int(columns.currency[index])) if columns.currency[index] else "",
            in_stock=bool(columns.flags[index] & FLAG_IN_STOCK) or columns.kind[index] != 1,
            is_new=bool(columns.flags[index] & FLAG_CONDITION_NEW) or columns.kind[index] != 1,
            source=sources[columns.source[index]],
            source_seq=int(columns.source_seq[index]),
            sold_minor=0 if sold_minor is None else int(sold_minor[index]),
        )
        for index in range(len(columns.kind))
        if index not in refused
    ]
