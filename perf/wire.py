"""Print how fast delta records become microbatches, as one line of JSON: ``python -m perf.wire``.

The mix is a feed's: 70 % rivals' prices with a source, 15 % stock counts, 12 % sales, 3 % costs, of
one retailer, skewed towards a few SKUs. ``seen_first`` counts every SKU as never seen before,
``frame`` is the same facts in frames of 1,000.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.deltas import AnyDelta, CompetitorPriced, CostChanged, StockCounted, UnitsSold
from engine.microbatch import FactColumns
from engine.routing import partition_of
from persistence.ports import Record
from persistence.wire import (
    FRAME,
    Decoder,
    FrameColumns,
    encode_delta,
    encode_frame,
)

RETAILER = "acme"
SHARD = partition_of(RETAILER, 2)
REPEATS = 5
FRAME_FACTS = 1_000


def feed(count: int, skus: int, seed: int) -> list[AnyDelta]:
    """Return a feed's deltas."""
    random = np.random.default_rng(seed)
    kinds = random.choice(4, count, p=[0.70, 0.15, 0.12, 0.03])
    numbers = random.zipf(1.2, count) % skus
    deltas: list[AnyDelta] = []
    for place, (kind, number) in enumerate(zip(kinds.tolist(), numbers.tolist(), strict=True)):
        own: dict[str, Any] = {
            "retailer": RETAILER,
            "channel": "shop",
            "sku": f"SKU-{number:07d}",
            "observed_ms": 1_700_000_000_000 + place,
        }
        amount = int(random.integers(1, 100_000))
        if kind == 0:
            rival = f"rival-{number % 50}"
            deltas.append(CompetitorPriced(**own, rival=rival, price_minor=amount, source="feed-1"))
        elif kind == 1:
            deltas.append(StockCounted(**own, units=amount))
        elif kind == 2:
            deltas.append(UnitsSold(**own, units=1, source="till-1", source_seq=place))
        else:
            deltas.append(CostChanged(**own, cost_minor=amount))
    return deltas


def seconds(work: Callable[[], object]) -> float:
    """Return the shortest of several runs."""
    best = float("inf")
    for _ in range(REPEATS):
        gc.collect()
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def decode_all(decoder: Decoder, records: list[Record], batch: int) -> int:
    """Decode in microbatches; return how many deltas came out as facts."""
    facts = 0
    for start in range(0, len(records), batch):
        decoded = decoder.decode([], records[start : start + batch], last_command=-1, last_delta=-1)
        facts += sum(len(run) for run in decoded.runs if isinstance(run, FactColumns))
    return facts


def framed(decoder: Decoder, records: list[Record]) -> list[Record]:
    """Return the same facts as frames, with stand-ins for the names."""
    decoded = decoder.decode([], records, last_command=-1, last_delta=-1)
    (block,) = decoded.runs
    assert isinstance(block, FactColumns)
    frames = []
    for start in range(0, len(block), FRAME_FACTS):
        part = {
            name: getattr(block, name)[start : start + FRAME_FACTS]
            for name in FrameColumns.__struct_fields__
            if not name.endswith("_names")
        }
        part["rival"] = np.where(part["rival"] != 0, 0, -1).astype(np.int32)
        part["source"] = np.where(part["source"] != 0, 0, -1).astype(np.int32)
        facts = FrameColumns(**part, rival_names=("rival-1",), source_names=("feed-1",))
        value = encode_frame(RETAILER, facts)
        frames.append(Record(start, 0, RETAILER.encode(), value, FRAME))
    return frames


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deltas", type=int, default=100_000)
    parser.add_argument("--skus", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()

    deltas = feed(given.deltas, given.skus, given.seed)
    encoded_s = seconds(lambda: [encode_delta(delta) for delta in deltas])
    records = [
        Record(offset, 0, RETAILER.encode(), encode_delta(delta))
        for offset, delta in enumerate(deltas)
    ]
    decoder = Decoder(SHARD, 2, {})
    assert decode_all(decoder, records, given.batch) == len(records)
    warm_s = seconds(lambda: decode_all(decoder, records, given.batch))
    cold_s = seconds(lambda: decode_all(Decoder(SHARD, 2, {}), records, given.batch))
    frames = framed(decoder, records)
    frame_s = seconds(lambda: decode_all(decoder, frames, 1))
    line = {
        "what": "wire",
        "python": sys.version.split()[0],
        "deltas": len(deltas),
        "skus": len({getattr(delta, "sku", "") for delta in deltas}),
        "batch": given.batch,
        "bytes_a_delta": round(sum(len(record.value) for record in records) / len(records)),
        "json_deltas_a_second": round(len(records) / warm_s),
        "json_us_a_delta": round(warm_s / len(records) * 1e6, 2),
        "json_seen_first_us_a_delta": round(cold_s / len(records) * 1e6, 2),
        "json_encode_us_a_delta": round(encoded_s / len(records) * 1e6, 2),
        "frame_deltas_a_second": round(len(records) / frame_s),
        "frame_us_a_delta": round(frame_s / len(records) * 1e6, 3),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
