"""Whether a retailer's prices are published: his mode, what is halted, and why."""

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from engine.deltas import ModeChanged, PublishingHalted, PublishingResumed
from gateway.call import Call, Gateway, age_of, decode_body, known_retailer, shards_of
from gateway.execution import Command, execute, observed_ms
from gateway.retailers import Mode, Retailer

RETAILERS_MAX = 1000

ChannelName = Annotated[str, Meta(min_length=1, max_length=200)]


class HaltPublishing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stop publishing, on one channel or on all."""

    channel: ChannelName | None = None
    reason: Annotated[str, Meta(max_length=400)] = ""


class ResumePublishing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let publishing go on, after a halt or after the breaker tripped."""

    channel: ChannelName | None = None


class ChangeMode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put the retailer's prices in force (``live``), or only propose and show them (``shadow``)."""

    mode: Mode


class ShardMode(Struct, frozen=True):
    """The mode of a retailer's part in one shard."""

    shard: int
    mode: Mode


class Halt(Struct, frozen=True):
    """Something that is halted: one channel, or all of them (``null``)."""

    channel: str | None
    reason: str


class Breaker(Struct, frozen=True):
    """A breaker that tripped: in which shard, and on what."""

    shard: int
    reasons: tuple[str, ...]


class Publishing(Struct, frozen=True, kw_only=True):
    """A retailer's state, as old as the shard of his that was heard of longest ago.

    ``mode`` is ``mixed`` where shards differ, as while a change is under way: ``modes`` has each
    one's then, and is empty otherwise.
    """

    retailer: str
    name: str | None
    currency: str | None
    mode: Literal["shadow", "live", "mixed"]
    modes: tuple[ShardMode, ...]
    primary_channel: str | None
    products: int
    halts: tuple[Halt, ...]
    breakers: tuple[Breaker, ...]
    as_of: str
    stale: bool


class RetailerList(Struct, frozen=True):
    """The retailers that a key sees."""

    retailers: tuple[Publishing, ...]


_encode = msgspec.json.Encoder().encode


async def publishing(gateway: Gateway, call: Call) -> web.Response:
    """Say whether prices are published, and what stops them."""
    retailer = gateway.replica.retailers[known_retailer(gateway, call)]
    return web.Response(body=_encode(_document(gateway, retailer)), content_type="application/json")


async def retailers(gateway: Gateway, call: Call) -> web.Response:
    """List the retailers that the key sees: what ``?retailer=`` may be."""
    visible = [
        retailer
        for _, retailer in sorted(gateway.replica.retailers.items())
        if call.credential.sees(retailer.id)
    ]
    shown = tuple(_document(gateway, retailer) for retailer in visible[:RETAILERS_MAX])
    document = RetailerList(shown)
    return web.Response(body=_encode(document), content_type="application/json")


def _document(gateway: Gateway, retailer: Retailer) -> Publishing:
    age = age_of(gateway, shards_of(gateway, retailer.id))
    return Publishing(
        retailer=retailer.id,
        name=retailer.name,
        currency=retailer.currency,
        mode=retailer.mode,
        modes=tuple(ShardMode(*each) for each in sorted(retailer.modes.items()))
        if retailer.mode == "mixed"
        else (),
        primary_channel=retailer.primary_channel,
        products=len(retailer.products),
        halts=tuple(
            Halt(channel or None, reason)
            for channel, reason in sorted(
                {channel: reason for (_, channel), reason in retailer.halts.items()}.items()
            )
        ),
        breakers=tuple(
            Breaker(shard, tuple(fields.get("reasons", ())))
            for shard, fields in sorted(retailer.breakers.items())
        ),
        as_of=age.as_of,
        stale=age.stale,
    )


async def halt(gateway: Gateway, call: Call) -> web.Response:
    """Stop publishing: the kill switch."""
    retailer = known_retailer(gateway, call)
    raw = await call.read()
    body = decode_body(raw, HaltPublishing)
    destinations = gateway.commands.to_retailer(retailer)
    delta = PublishingHalted(
        retailer=retailer,
        observed_ms=observed_ms(gateway, destinations),
        channel=body.channel,
        reason=body.reason,
    )
    command = Command(delta=delta, raw=raw, destinations=destinations)
    return await execute(gateway, call, command)


async def resume(gateway: Gateway, call: Call) -> web.Response:
    """Let publishing go on."""
    retailer = known_retailer(gateway, call)
    raw = await call.read()
    body = decode_body(raw, ResumePublishing)
    destinations = gateway.commands.to_retailer(retailer)
    delta = PublishingResumed(
        retailer=retailer,
        observed_ms=observed_ms(gateway, destinations),
        channel=body.channel,
    )
    command = Command(delta=delta, raw=raw, destinations=destinations)
    return await execute(gateway, call, command)


async def change_mode(gateway: Gateway, call: Call) -> web.Response:
    """Let a retailer's prices go live, or back to shadow."""
    retailer = known_retailer(gateway, call)
    raw = await call.read()
    body = decode_body(raw, ChangeMode)
    destinations = gateway.commands.to_retailer(retailer)
    delta = ModeChanged(
        retailer=retailer, observed_ms=observed_ms(gateway, destinations), mode=body.mode
    )
    command = Command(delta=delta, raw=raw, destinations=destinations)
    return await execute(gateway, call, command)
