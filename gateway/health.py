"""Whether this process lives, has started, and may be sent requests.

Ready means that every shard's log was read to where it ended when following began. A dead shard
does not make a gateway unready: its prices stay readable and are marked stale.
"""

import msgspec
from aiohttp import web
from msgspec import Struct

from gateway.call import Call, Gateway
from gateway.shard_view import STALE_MS


class ReadyQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether to say more than yes or no."""

    verbose: str | None = None


class ShardHealth(Struct, frozen=True, kw_only=True):
    """How far one shard's decision log was read."""

    shard: int
    ready: bool
    stale: bool
    age_ms: int | None  # since a record was heard; null before the first
    epoch: int
    seq: int
    offset: int
    failure: str  # why following stopped, "" while it goes on


class Health(Struct, frozen=True, kw_only=True):
    """The state of this process, and what is not ready by name."""

    ready: bool
    not_ready: tuple[str, ...]
    shards: tuple[ShardHealth, ...]
    listings: int
    streams: int


_encode = msgspec.json.Encoder().encode


async def livez(gateway: Gateway, call: Call) -> web.Response:
    """Answer, which is all there is to living."""
    return web.Response(text="ok\n")


async def readyz(gateway: Gateway, call: Call) -> web.Response:
    """Say whether requests may be sent here."""
    verbose = call.query(ReadyQuery).verbose is not None
    health = _health(gateway)
    status = 200 if health.ready else 503
    if verbose:
        return web.Response(body=_encode(health), status=status, content_type="application/json")
    text = "ok\n" if health.ready else "not ready: " + ", ".join(health.not_ready) + "\n"
    return web.Response(text=text, status=status)


async def startupz(gateway: Gateway, call: Call) -> web.Response:
    """Say whether starting is over: every shard was heard of, or its following failed."""
    views = gateway.replica.shards
    started = all(view.caught_up or view.failure for view in views)
    return web.Response(text="ok\n" if started else "starting\n", status=200 if started else 503)


def _health(gateway: Gateway) -> Health:
    now_ms, monotonic_ms = gateway.clock.wall_ms(), gateway.clock.monotonic_ms()
    shards, not_ready = [], []
    for number, view in enumerate(gateway.replica.shards):
        age_ms = view.age_ms(now_ms, monotonic_ms)
        ready = view.caught_up and not view.failure
        if not ready:
            not_ready.append(f"shard-{number:03d}")
        shards.append(
            ShardHealth(
                shard=number,
                ready=ready,
                stale=age_ms > STALE_MS,
                age_ms=age_ms if view.read_ms else None,
                epoch=view.position.epoch,
                seq=view.position.seq,
                offset=view.position.offset,
                failure=view.failure,
            )
        )
    return Health(
        ready=not not_ready,
        not_ready=tuple(not_ready),
        shards=tuple(shards),
        listings=len(gateway.replica.listings),
        streams=gateway.streams.clients,
    )
