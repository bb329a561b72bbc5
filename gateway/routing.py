"""What a producer needs to key his deltas."""

from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from gateway.call import Call, Gateway
from persistence.ports import COMMANDS, DELTAS


class Topics(Struct, frozen=True):
    """Where deltas go."""

    deltas: str
    commands: str


class Routing(Struct, frozen=True, kw_only=True):
    """The generation's cut: the partition of a delta is ``murmur2(key) & 0x7fffffff % partitions``.

    The key is the retailer's id, or ``retailer#slot`` with ``slot = murmur2(sku) & 0x7fffffff %
    spread`` where ``spreads`` names him.
    """

    generation: int
    partitions: int
    partitioner: Literal["murmur2"]
    spreads: dict[str, int]
    topics: Topics


_encode = msgspec.json.Encoder().encode


async def routing(gateway: Gateway, call: Call) -> web.Response:
    """Say how deltas are routed; only of the retailers that the key sees."""
    commands = gateway.commands
    document = Routing(
        generation=gateway.replica.generation,
        partitions=commands.partitions,
        partitioner="murmur2",
        spreads={
            retailer: spread
            for retailer, spread in sorted(commands.spreads.items())
            if call.credential.sees(retailer)
        },
        topics=Topics(deltas=DELTAS, commands=COMMANDS),
    )
    return web.Response(body=_encode(document), content_type="application/json")
