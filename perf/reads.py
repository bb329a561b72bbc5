"""Compare a price read at the gateway with aiohttp answering constant bytes.

``python -m perf.reads --json``

One server process holds both: the gateway's application over a replica of 100,000 listings, and a
bare aiohttp application whose one handler returns as many constant bytes. A client in a process
of its own asks them in turn, over the same number of kept connections. The constant is asked for
under the same path as the price, so that the ratio says what our work costs and not what parsing
a longer path costs; ``fixed_path`` is the ratio to the same constant under a short path without a
variable. Each is the median over rounds of runs, so that a neighbour who takes the processor harms
all alike, and given by wall time and by the server's own processor time, which a busy machine
disturbs less.
"""

import argparse
import asyncio
import hmac
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from aiohttp import web

from actors.clock import WallClock
from engine.decided import QUOTE_DTYPE, CatalogueChange, Decided, State
from engine.microbatch import Position
from engine.routing import key64
from gateway.app import make_app
from gateway.commands import CommandSender
from gateway.keys import KeyFile, Keys, StoredKey, new_key
from gateway.replica import Replica
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition, Stamp
from persistence.memory_log import MemoryLogs

LISTINGS = 100_000
DECISION_ROWS = 4096
CONNECTIONS = 8
SECONDS = 1.5
PAIRS = 7
RETAILER = "acme"


def filled_replica(listings: int) -> Replica:
    """Return a replica of one retailer with that many listings, all priced."""
    clock = WallClock()
    replica = Replica(generation=1, shards=1)
    stamp = Stamp(b"l" * 16, 1, 0, 1, b"o" * 16)
    nowhere = Position(0, 0, 0)
    added = CatalogueChange(nowhere, "retailer", RETAILER, {"currency": "EUR", "mode": "live"})
    for seq, first in enumerate(range(0, listings, DECISION_ROWS), start=1):
        numbers = range(first, min(first + DECISION_ROWS, listings))
        quotes = np.zeros(len(numbers), QUOTE_DTYPE)
        quotes["listing"] = [key64(RETAILER, "shop", f"SKU-{number}") for number in numbers]
        quotes["state"] = State.LIVE
        quotes["in_force_minor"] = quotes["proposed_minor"] = quotes["previous_minor"] = 1999
        quotes["floor_minor"], quotes["ceiling_minor"], quotes["rival_minor"] = 1500, 2500, 2010
        quotes["confidence"], quotes["reasons"], quotes["binding"] = 0.75, 2, 1
        catalogue = [
            CatalogueChange(
                nowhere,
                "listing",
                RETAILER,
                {"channel": "shop", "sku": f"SKU-{number}", "currency": "EUR"},
                int(key),
            )
            for number, key in zip(numbers, quotes["listing"].tolist(), strict=True)
        ]
        decided = Decided(
            seq=seq,
            last_command=-1,
            last_delta=-1,
            decided_ms=clock.wall_ms(),
            model="perf",
            digest=0,
            quotes=quotes,
            catalogue=(added, *catalogue),
        )
        accepted = Accepted(
            position=LogPosition(stamp.log_id, seq, 1, stamp.owner, seq),
            appended_ms=clock.wall_ms(),
            stamp=stamp,
            decided=decided,
        )
        replica.accept(0, accepted, read_ms=clock.monotonic_ms())
    return replica


def serve(pipe: Connection) -> None:
    """Serve both applications, and answer each word on the pipe with processor seconds used."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    key = new_key()
    pepper = b"p" * 32

    digest = hmac.digest(pepper, key.encode(), "sha256").hex()
    stored = StoredKey(id="perf", hmac_sha256=digest, retailers=(RETAILER,))
    keys = Keys(KeyFile(pepper=pepper.hex(), keys=(stored,)))
    replica, clock = filled_replica(LISTINGS), WallClock()
    product = replica.retailers[RETAILER].products["SKU-0"]
    answer = replica.answer(RETAILER, product)
    assert answer is not None
    constant = answer + replica.shards[0].tail(clock.wall_ms(), clock.monotonic_ms())
    commands = CommandSender(MemoryLogs(), partitions=1, spreads={})
    ports = []
    for app in (make_app(replica, commands, keys, clock), _constant_app(constant)):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
    pipe.send((ports, key, len(constant)))
    loop = asyncio.get_running_loop()
    while (await loop.run_in_executor(None, pipe.recv)) == "used":
        pipe.send(time.process_time())


def _constant_app(body: bytes) -> web.Application:
    async def constant(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/constant", constant)
    app.router.add_get("/api/v1/products/{id}/recommendation", constant)
    return app


async def ask(port: int, requests: Sequence[bytes], seconds: float) -> int:
    """Ask over kept connections for so long; return how many answers came."""
    until, answered = time.perf_counter() + seconds, 0

    async def one(offset: int) -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = offset
        while time.perf_counter() < until:
            writer.write(requests[turn % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            turn += CONNECTIONS
            answered += 1
        writer.close()

    await asyncio.gather(*(one(offset) for offset in range(CONNECTIONS)))
    return answered


def measure(seconds: float, pairs: int) -> dict[str, Any]:
    """Run the pairs and return the figures."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(other,), daemon=True)
    process.start()
    try:
        (price_port, constant_port), key, length = pipe.recv()
        head = f"Host: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
        price = [
            f"GET /api/v1/products/SKU-{number}/recommendation HTTP/1.1\r\n{head}".encode()
            for number in range(1000)
        ]
        constant = [f"GET /constant HTTP/1.1\r\n{head}".encode()]

        def run(port: int, requests: Sequence[bytes]) -> tuple[float, float]:
            pipe.send("used")
            before = pipe.recv()
            answered = asyncio.run(ask(port, requests, seconds))
            pipe.send("used")
            return answered / seconds, (pipe.recv() - before) / answered

        run(price_port, price)
        run(constant_port, constant)
        run(constant_port, price)
        rows = [
            (run(price_port, price), run(constant_port, price), run(constant_port, constant))
            for _ in range(pairs)
        ]
    finally:
        process.terminate()
        process.join()
    wall = [mine[0] / peer[0] for mine, peer, _ in rows]
    processor = [peer[1] / mine[1] for mine, peer, _ in rows]
    fixed_path = [peer[1] / mine[1] for mine, _, peer in rows]
    return {
        "ratio_wall": round(statistics.median(wall), 3),
        "ratio_processor": round(statistics.median(processor), 3),
        "ratio_wall_range": [round(min(wall), 3), round(max(wall), 3)],
        "ratio_processor_range": [round(min(processor), 3), round(max(processor), 3)],
        "fixed_path_ratio_processor": round(statistics.median(fixed_path), 3),
        "reads_per_s": round(statistics.median(mine[0] for mine, _, _ in rows)),
        "constant_per_s": round(statistics.median(peer[0] for _, peer, _ in rows)),
        "read_processor_us": round(1e6 * statistics.median(mine[1] for mine, _, _ in rows), 1),
        "body_bytes": length,
        "listings": LISTINGS,
        "connections": CONNECTIONS,
        "pairs": pairs,
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one line of JSON, which it always is")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    given = parser.parse_args()
    print(json.dumps(measure(given.seconds, given.pairs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
