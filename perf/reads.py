"""Price reads: in process, at the gateway over HTTP, and in batches, against what they could cost.

``python -m perf.reads [--json]``

One server process at a time is asked, on a core of its own and on the loop that production uses;
the client, and Redis, share the other. The peers answer the same bytes under the same path: a bare
aiohttp handler of constant bytes (what the framework costs), one that gets them from Redis, one
that gets them from a Ray actor. What concerns our server alone is compared by its own processor
time, which a busy machine disturbs least; what waits for somebody else by answers a second.
"""

import argparse
import asyncio
import hmac
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import redis
import redis.asyncio
import uvloop
from aiohttp import web

from actors.clock import WallClock
from cluster.servers.redis import Redis
from engine.decided import QUOTE_DTYPE, CatalogueChange, Decided, State
from engine.microbatch import Position
from engine.routing import key64
from gateway.app import make_app
from gateway.commands import CommandSender
from gateway.keys import KeyFile, Keys, StoredKey, new_key
from gateway.replica import Replica
from perf.load import LoadProcess
from perf.measuring import (
    Progress,
    arguments_of,
    interleaved,
    pin,
    ratio,
    run_command,
    significant,
    spread,
)
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition, Stamp
from persistence.memory_log import MemoryLogs

COMMAND = "reads"
DECISION_ROWS = 4096
CONNECTIONS = 16
BATCH = 1000
RETAILER = "acme"
PATH = "/api/v1/products/{id}/recommendation"
SKUS_ASKED = 1000
IN_PROCESS_READS = 200_000


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


def ready_bytes(replica: Replica, sku: str) -> bytes:
    """Return the whole body of one product's price."""
    clock = WallClock()
    product = replica.retailers[RETAILER].products[sku]
    answer = replica.answer(RETAILER, product)
    assert answer is not None
    return answer + replica.shards[0].tail(clock.wall_ms(), clock.monotonic_ms())


# --- the servers, each in a process of its own ----------------------------------------------------


def gateway_app(listings: int) -> tuple[web.Application, str]:
    """Return the gateway's own application over a filled replica, and a key for it."""
    key, pepper = new_key(), b"p" * 32
    digest = hmac.digest(pepper, key.encode(), "sha256").hex()
    stored = StoredKey(id="perf", hmac_sha256=digest, retailers=(RETAILER,))
    keys = Keys(KeyFile(pepper=pepper.hex(), keys=(stored,)))
    commands = CommandSender(MemoryLogs(), partitions=1, spreads={})
    return make_app(filled_replica(listings), commands, keys, WallClock()), key


def peer_app(answer: Callable[[str], Any], *, constant: bytes) -> web.Application:
    """Return a bare application that answers the same path with what ``answer`` returns."""

    async def read(request: web.Request) -> web.Response:
        body = await answer(request.match_info["id"])
        return web.Response(body=body, content_type="application/json")

    async def fixed(request: web.Request) -> web.Response:
        return web.Response(body=constant, content_type="application/json")

    app = web.Application()
    app.router.add_get("/constant", fixed)
    app.router.add_get(f"/constant{PATH}", fixed)
    app.router.add_get(PATH, read)
    return app


def serve(kind: str, given: Any, pipe: Connection) -> None:
    """Serve one of the applications, and answer each word with processor seconds used."""
    pin(0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(kind, given, pipe))


async def _serve(kind: str, given: Any, pipe: Connection) -> None:
    key = ""
    if kind == "gateway":
        app, key = gateway_app(given)
    elif kind == "redis":
        client = redis.asyncio.Redis.from_url(given["url"], max_connections=CONNECTIONS)
        app = peer_app(client.get, constant=given["body"])
    else:
        app = peer_app(_ray_read(given["bodies"]), constant=b"")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pipe.send((runner.addresses[0][1], key))
    loop = asyncio.get_running_loop()
    while (await loop.run_in_executor(None, pipe.recv)) == "used":
        pipe.send(time.process_time())


def _ray_read(bodies: dict[str, bytes]) -> Callable[[str], Any]:
    """Return a read of an asynchronous Ray actor that holds the bodies."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)

    class Holder:
        def __init__(self, held: dict[str, bytes]) -> None:
            self._held = held

        async def read(self, sku: str) -> bytes:
            return self._held[sku]

    actor: Any = ray.remote(Holder)  # Ray's types do not know an actor's calls
    holder = actor.options(num_cpus=0, max_concurrency=CONNECTIONS).remote(bodies)

    async def read(sku: str) -> bytes:
        body: bytes = await holder.read.remote(sku)
        return body

    return read


class Served:
    """A server process and its port."""

    def __init__(self, kind: str, given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(kind, given, theirs))
        self._process.start()
        theirs.close()  # so that a server which dies is heard as an end of file
        self.port, self.key = self._pipe.recv()

    def used_s(self) -> float:
        """Return the processor seconds that it has used."""
        self._pipe.send("used")
        used: float = self._pipe.recv()
        return used

    def close(self) -> None:
        """End it."""
        self._pipe.send("end")
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()


class Side:
    """One thing to ask for: which server, which requests. Remembers processor time a request."""

    def __init__(
        self, load: LoadProcess, server: Served, requests: Sequence[bytes], seconds: float
    ) -> None:
        self.processor_us: list[float] = []
        self._load = load
        self._server = server
        self._requests = requests
        self._seconds = seconds

    def __call__(self) -> float:
        """Ask for a while; return answers a second."""
        before = self._server.used_s()
        asked = self._load.ask(self._server.port, self._requests, CONNECTIONS, self._seconds)
        self.processor_us.append((self._server.used_s() - before) / asked.answers * 1e6)
        return asked.answers / asked.seconds

    def counted(self) -> list[float]:
        """Return the processor microseconds a request of the rounds that count."""
        return self.processor_us[1:]


def gets(path: str, key: str) -> list[bytes]:
    """Return a request for each of the SKUs asked for."""
    head = "Host: localhost\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
    return [
        f"GET {path.replace('{id}', f'SKU-{number}')} HTTP/1.1\r\n{head}\r\n".encode()
        for number in range(SKUS_ASKED)
    ]


def batch_request(key: str) -> bytes:
    """Return one request for a thousand prices."""
    body = json.dumps({"ids": [f"SKU-{number}" for number in range(BATCH)]}).encode()
    head = (
        f"POST /api/v1/recommendations:batchGet HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# --- measuring ------------------------------------------------------------------------------------


def in_process(listings: int, pairs: int, say: Progress) -> dict[str, Any]:
    """Return what a read costs without HTTP, against a NumPy array that is indexed."""
    replica, clock = filled_replica(listings), WallClock()
    skus = [f"SKU-{number}" for number in range(min(SKUS_ASKED, listings))]
    for sku in skus:
        ready_bytes(replica, sku)
    prices = np.arange(listings)
    rows = {sku: number for number, sku in enumerate(skus)}
    rounds = max(1, IN_PROCESS_READS // len(skus))

    def read() -> float:
        began = time.perf_counter()
        for _ in range(rounds):
            for sku in skus:
                product = replica.product(RETAILER, sku)
                assert product is not None
                replica.answer(RETAILER, product)
                replica.shards[0].tail(clock.wall_ms(), clock.monotonic_ms())
        return (time.perf_counter() - began) / rounds / len(skus) * 1e9

    def index() -> float:
        began = time.perf_counter()
        for _ in range(rounds):
            for sku in skus:
                prices[rows[sku]]
        return (time.perf_counter() - began) / rounds / len(skus) * 1e9

    took = interleaved(pairs, {"in process": read, "numpy index": index}, say)
    return {
        "in_process_read_ns": spread(took["in process"]),
        "in_process_of_numpy_index": ratio(took["in process"], took["numpy index"]),
    }


def over_http(
    listings: int, seconds: float, pairs: int, say: Progress, with_ray: bool
) -> dict[str, Any]:
    """Ask the gateway and its peers in turns."""
    replica = filled_replica(min(listings, DECISION_ROWS))
    bodies = {
        f"SKU-{number}": ready_bytes(replica, f"SKU-{number}") for number in range(SKUS_ASKED)
    }
    with tempfile.TemporaryDirectory(prefix="repricer-") as folder:
        server = Redis(Path(folder))
        server.start()
        load = LoadProcess(core=1)
        servers: list[Served] = []
        try:
            _fill_redis(server.address, bodies)
            gateway = Served("gateway", listings)
            servers.append(gateway)
            peer = Served("redis", {"url": server.address, "body": bodies["SKU-0"]})
            servers.append(peer)
            sides = {
                "gateway": Side(load, gateway, gets(PATH, gateway.key), seconds),
                "constant": Side(load, peer, gets(f"/constant{PATH}", gateway.key), seconds),
                "short constant": Side(load, peer, gets("/constant", gateway.key), seconds),
                "batch": Side(load, gateway, [batch_request(gateway.key)], seconds),
                "redis": Side(load, peer, gets(PATH, gateway.key), seconds),
            }
            figures = _http_figures(sides, interleaved(pairs, sides, say))
            if with_ray:
                say("starting Ray")
                actor = Served("ray", {"bodies": bodies})
                servers.append(actor)
                sides = {
                    "gateway": Side(load, gateway, gets(PATH, gateway.key), seconds),
                    "ray": Side(load, actor, gets(PATH, gateway.key), seconds),
                }
                rates = interleaved(pairs, sides, say)
                figures["read_of_ray"] = ratio(rates["gateway"], rates["ray"])
                figures["ray_reads_per_s"] = spread(rates["ray"])
        finally:
            for each in servers:
                each.close()
            load.close()
            server.stop()
    return figures | {"body_bytes": len(bodies["SKU-0"])}


def _fill_redis(url: str, bodies: dict[str, bytes]) -> None:
    with redis.Redis.from_url(url) as client:
        client.mset(bodies)


def _http_figures(sides: dict[str, Side], rates: dict[str, list[float]]) -> dict[str, Any]:
    used = {name: side.counted() for name, side in sides.items()}
    return {
        "reads_per_s": spread(rates["gateway"]),
        "read_processor_us": spread(used["gateway"]),
        "constant_per_s": spread(rates["constant"]),
        "redis_reads_per_s": spread(rates["redis"]),
        "batched_listings_per_s": spread([BATCH * rate for rate in rates["batch"]]),
        "batch_processor_us": spread(used["batch"]),
        "read_of_constant": ratio(used["constant"], used["gateway"]),
        "read_of_constant_by_wall": ratio(rates["gateway"], rates["constant"]),
        "read_of_short_constant": ratio(used["short constant"], used["gateway"]),
        "read_of_redis": ratio(rates["gateway"], rates["redis"]),
        "batch_of_single": ratio([BATCH * each for each in used["gateway"]], used["batch"]),
        "batch_of_single_by_wall": ratio(
            [BATCH * rate for rate in rates["batch"]], rates["gateway"]
        ),
    }


def measure(
    listings: int, seconds: float, pairs: int, say: Progress, *, with_ray: bool = True
) -> dict[str, Any]:
    """Return all figures."""
    figures = in_process(listings, pairs, say)
    figures |= over_http(listings, seconds, pairs, say, with_ray)
    return figures | {"listings": listings, "connections": significant(CONNECTIONS)}


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    return measure(options.listings, options.seconds, options.pairs, say, with_ray=options.ray)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each turn")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--no-ray", dest="ray", action="store_false")
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
