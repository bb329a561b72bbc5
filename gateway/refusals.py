"""What a shard refuses, told in the words of whoever asked over HTTP.

A shard speaks of its deltas: pointers into them, money in minor units, times in milliseconds. Its
words lie in the log and are everybody's; here they become those of the request: the field that was
sent, a decimal with its currency, RFC 3339.
"""

import re

from engine.amounts import amount_text
from engine.decided import Outcome
from gateway.documents import Listing
from gateway.money import rfc3339
from gateway.problems import FieldError

_BODY = {
    "/price_minor": "/price/amount",
    "/until_ms": "/until",
    "/planned": "/plan",
}
"""Fields of deltas that stand under another name in a body."""

_OUTSIDE = {"/sku": "id", "/retailer": "retailer"}
"""Fields of deltas that a request names in its path or query string."""

_ROUTES = {
    "send ModeChanged": "use publishing:mode",
    "send PublishingResumed": "use publishing:resume",
    "send PriceUnpinned": "use unpin-price",
    "send PolicyChanged": "use policies:apply",
}
"""Deltas that a fix names, and the route that gives them."""

_MOMENT = re.compile(r"\b\d{12,14}\b")
_NUMBER = re.compile(r"\b\d+\b")
_PINNED = re.compile(r"(?<=is pinned at )\d+\b")


def told(outcome: Outcome, listing: Listing | None) -> tuple[str, tuple[FieldError, ...]]:
    """Return the detail of a command's outcome, and the fields at fault, as its asker knows them.

    Args:
        outcome: what the shard said; ``detail`` is empty where there is nothing to say.
        listing: the one that the command was about, where there is one: its currency counts.
    """
    pointer, colon, problem = outcome.detail.partition(": ")
    if not colon or not pointer.startswith("/"):
        return outcome.detail, ()
    for delta, route in _ROUTES.items():
        problem = problem.replace(delta, route)
    if listing is not None:
        amounts = _NUMBER if pointer == "/price_minor" else _PINNED
        currency = listing.currency
        problem = amounts.sub(
            lambda found: f"{amount_text(int(found[0]), currency)} {currency}", problem
        ).replace("(map_minor)", "(map)")
    problem = _MOMENT.sub(lambda found: rfc3339(int(found[0])), problem)
    if pointer == "/observed_ms":  # when it was asked, which is no field of a request
        return f"asked at {problem}", ()
    if pointer in _OUTSIDE or (listing is not None and pointer == "/channel"):
        name = _OUTSIDE.get(pointer, "channel")
        return f"{name}: {problem}", (FieldError(problem, parameter=name),)
    own = _BODY.get(pointer, pointer.removeprefix("/fields"))
    return f"{own}: {problem}", (FieldError(problem, pointer=own),)
