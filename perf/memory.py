"""What a listing weighs, against its raw columns, a dictionary of structs, and Redis hashes.

``python -m perf.memory [--listings 200000] [--json]``

Ours is the growth of a process' anonymous memory from a small shard that was dropped again to a
filled one, index, free room and the allocator's waste included; see ``perf.scaling``. The peers
hold the same: a dictionary from the key to a ``msgspec.Struct`` with a field a column and its
offers as structs; Redis a hash a listing.
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import redis

from cluster.servers.redis import Redis
from engine.decided import QUOTE_DTYPE
from engine.listing_table import LISTING_DTYPE
from engine.rivals import OFFER_DTYPE
from perf.filled import CHANNEL, RETAILER, RIVALS, keys_of, sku_of
from perf.measuring import Progress, arguments_of, run_command, significant
from perf.scaling import RAW_ROW_BYTES, in_a_process, settled_bytes

COMMAND = "memory"
PIPELINE = 5_000
PEER_LISTINGS_MAX = 100_000


def scalar_names(*dtypes: Any) -> list[str]:
    """Return the names of the columns of some packed records, prefixed by their place."""
    return [f"{number}_{name}" for number, dtype in enumerate(dtypes) for name in dtype.names]


def values_of(number: int, width: int) -> list[int]:
    """Return plausible values of columns: prices and times, not zeros that cost less."""
    return [1_700_000_000_000 + number if place % 3 == 0 else 1000 + number % 900 + place
            for place in range(width)]  # fmt: skip


def struct_bytes(listings: int) -> float:
    """Return bytes a listing of a dictionary of structs."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_structs, args=(listings, theirs))
    process.start()
    theirs.close()
    figure: float = pipe.recv()
    process.join()
    return figure


def _structs(listings: int, pipe: Connection) -> None:
    names = scalar_names(LISTING_DTYPE, QUOTE_DTYPE)
    listing = msgspec.defstruct(
        "Listing", [(f"f{name}", int) for name in names] + [("texts", tuple), ("offers", list)]
    )
    offer = msgspec.defstruct("Offer", [(f"f{name}", int) for name in scalar_names(OFFER_DTYPE)])
    width, offer_width = len(names), len(OFFER_DTYPE.names or ())
    keys = keys_of(listings).tolist()
    before = settled_bytes()
    table = {
        key: listing(
            *values_of(number, width),
            (CHANNEL, sku_of(number), f"Thing {number}", f"c{number % 20}", ()),
            [offer(*values_of(number + rival, offer_width)) for rival in range(RIVALS)],
        )
        for number, key in enumerate(keys)
    }
    pipe.send((settled_bytes() - before) / len(table))


def hashes(listings: int) -> Iterator[tuple[str, dict[Any, int | str]]]:
    """Yield each listing as a hash: its columns, its texts, and its offers as one field each."""
    names = scalar_names(LISTING_DTYPE, QUOTE_DTYPE)
    for number in range(listings):
        fields: dict[str, int | str] = dict(zip(names, values_of(number, len(names)), strict=True))
        fields |= {"sku": sku_of(number), "channel": CHANNEL, "title": f"Thing {number}"}
        fields["category"] = f"c{number % 20}"
        for rival in range(RIVALS):
            offer = values_of(number + rival, len(OFFER_DTYPE.names or ()))
            fields[f"offer{rival}"] = " ".join(map(str, offer))
        yield f"{RETAILER}:{CHANNEL}:{sku_of(number)}", fields


def fill_redis(client: "redis.Redis", listings: int) -> None:
    """Write all listings as hashes."""
    pipeline = client.pipeline(transaction=False)
    for number, (key, fields) in enumerate(hashes(listings), start=1):
        pipeline.hset(key, mapping=fields)
        if number % PIPELINE == 0:
            pipeline.execute()
    pipeline.execute()


def redis_bytes(listings: int) -> float:
    """Return bytes a listing of Redis hashes, as Redis counts them."""
    with tempfile.TemporaryDirectory(prefix="repricer-") as folder:
        server = Redis(Path(folder))
        server.start()
        try:
            with redis.Redis.from_url(server.address) as client:
                client.config_set("appendonly", "no")
                before: int = client.info("memory")["used_memory"]
                fill_redis(client, listings)
                used: int = client.info("memory")["used_memory"]
                return (used - before) / listings
        finally:
            server.stop()


def measure(listings: int, say: Progress) -> dict[str, Any]:
    """Return all figures."""
    ours = in_a_process(listings, say)
    peers = min(listings, PEER_LISTINGS_MAX)
    say("a dictionary of structs")
    structs = struct_bytes(peers)
    say("Redis hashes")
    hashed = redis_bytes(peers)
    return {
        "listings": listings,
        "peer_listings": peers,
        "offers_a_listing": RIVALS,
        "bytes_a_listing": ours["bytes_a_listing"],
        "raw_bytes_a_listing": ours["raw_bytes_a_listing"],
        "raw_columns_bytes": RAW_ROW_BYTES,
        "of_raw": ours["of_raw"],
        "struct_bytes_a_listing": significant(structs),
        "redis_bytes_a_listing": significant(hashed),
        "of_structs": significant(ours["bytes_a_listing"] / structs),
        "of_redis": significant(ours["bytes_a_listing"] / hashed),
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    return measure(options.listings, say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=200_000)
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
