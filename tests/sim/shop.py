"""A shop whose demand is learnt: its opening, its market of several days, and its trained models.

Nobody answers its prices: what is sold is drawn beforehand. What a decision learns from that is of
no interest here, only that whoever repeats it comes to the same.
"""

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np

from actors.artefacts import artefact_key
from engine.artefact import PREDICTION_DTYPE, encode_artefact
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ExperimentStarted,
    ExperimentStopped,
    FeesChanged,
    ListingChanged,
    ListingRemoved,
    ModeChanged,
    ModelPromoted,
    PolicyChanged,
    PricePinned,
    PriceReported,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.learnt import DAY_MS
from engine.routing import key64
from persistence.ports import COMMANDS, DELTAS
from persistence.wire import encode_delta
from tests.sim.faults import Faults
from tests.sim.feed import CHANNEL, RETAILER, SHOP_SKUS, SKUS, Sent

DAYS = 9.0
"""So many days of the shop pass in a storm, where time goes by the events."""

RECORDS_A_DAY = 10
RECORDS_AN_EVENING = 30
"""Few, so that now and then a heartbeat without any brings midnight."""

COMES_AND_GOES = SHOP_SKUS[-1]
"""The listing that is taken off its channel now and then; no table says what it must have sold."""

MODELS = ("good", "other", "bad")
"""Trained models by name; ``bad`` claims far more demand than there is, and is sure of it."""


@cache
def artefacts() -> dict[str, bytes]:
    """Return the models' artefacts by their key among the blobs."""
    keys = np.array([key64(RETAILER, CHANNEL, sku) for sku in SHOP_SKUS], dtype=np.uint64)
    found = {}
    for number, model in enumerate(MODELS):
        rows = np.zeros(len(keys), dtype=PREDICTION_DTYPE)
        rows["reference_minor"] = [price_minor(sku) for sku in SHOP_SKUS]
        rows["level"], rows["level_sd"] = (1.0, 0.4) if model != "bad" else (6.0, 0.02)
        rows["elasticity"], rows["elasticity_sd"] = -2.2 - 0.5 * number, 0.3
        rows["season"][:, 5:] = 0.2
        found[artefact_key(RETAILER, model)] = encode_artefact(model, RETAILER, keys, rows)
    return found


def price_minor(sku: str) -> int:
    """Return a listing's price when it is imported."""
    return 900 + 50 * SHOP_SKUS.index(sku)


def cost_minor(sku: str) -> int:
    """Return what it costs then."""
    return 500 + 20 * SHOP_SKUS.index(sku)


def listing(sku: str, observed_ms: int) -> ListingChanged:
    """Return what adds a listing."""
    return ListingChanged(
        retailer=RETAILER,
        channel=CHANNEL,
        sku=sku,
        observed_ms=observed_ms,
        currency="EUR",
        category="things" if sku in SKUS else "stuff",
        brand=("one", "other")[SHOP_SKUS.index(sku) % 2],
        price_minor=price_minor(sku),
        cost_minor=cost_minor(sku),
        rrp_minor=2 * price_minor(sku),
        kvi=sku in ("b", "e"),
        own_rival_names=("us",),
    )


def opening(random: Random, base_ms: int) -> list[tuple[str, bytes]]:
    """Return what makes a retailer who learns, live or at first in shadow."""
    observed_ms = base_ms - 1_000
    deltas: list[AnyDelta] = [
        RetailerAdded(
            retailer=RETAILER,
            currency="EUR",
            mode="live" if random.random() < 0.6 else "shadow",
            primary_channel=CHANNEL,
            observed_ms=observed_ms,
        ),
        policy({"learning": True, **of_retailer(random)}, observed_ms),
        policy(of_category(random, base_ms), observed_ms, scope="category", key="stuff"),
    ]
    if random.random() < 0.5:
        fees = FeesChanged(
            retailer=RETAILER, channel=CHANNEL, vat=0.19, commission=0.1, observed_ms=observed_ms
        )
        deltas.append(fees)
    deltas += [listing(sku, observed_ms) for sku in SHOP_SKUS]
    return [(COMMANDS, encode_delta(delta)) for delta in deltas]


def policy(fields: dict[str, Any], observed_ms: int, **where: Any) -> PolicyChanged:
    """Return a change of policy, of the whole retailer's where nothing else is named."""
    return PolicyChanged(
        retailer=RETAILER, **{"scope": "retailer", **where}, fields=fields, observed_ms=observed_ms
    )


def of_retailer(random: Random) -> dict[str, Any]:
    """Draw what the retailer asks for."""
    return {
        "min_margin": 0.05,
        "objective": random.choice(("profit", "profit", "revenue", "units")),
        "decision_days": random.choice((1, 1, 2, 3)),
        "dither": random.choice((0.0, 0.06, 0.06, 0.1)),
        "exploration_budget_minor": random.choice((50, 2**53 - 1, 2**53 - 1)),
        "holdout_share": random.choice((0.0, 0.2, 0.4)),
        "rival_stale_ms": 3 * DAY_MS,
        "breaker_listings_min": random.choice((1, 20, 20)),
        "realtime_share": random.choice((0.5, 1.0, 1.0)),
    }


def of_category(random: Random, base_ms: int) -> dict[str, Any]:
    """Draw how one category differs."""
    season = {"season_end_ms": base_ms + random.randrange(3, 10) * DAY_MS}
    return random.choice(
        (
            {"step_max": 0.3},
            {**season, "objective": "sell_through"},
            {**season, "salvage_share": 0.2},
            {"endings": ["99", "49"], "left_digit_bias": 0.2},
            {"cannibalised_share": 0.3, "learning_step": 0.2},
            {"rival_position": 0.98, "kvi_brake": 0.5},
        )
    )


def market(random: Random, faults: Faults, base_ms: int, until_s: float) -> list[Sent]:
    """Return what is sent in a storm, with days that pass by the times of the events."""
    records = int(DAYS) * RECORDS_A_DAY
    return _sent(random, faults, base_ms, until_s, records=records, day_s=until_s / DAYS)


def evening(random: Random, faults: Faults, base_ms: int, until_s: float) -> list[Sent]:
    """Return what is sent on an evening by the wall clock: one midnight comes by itself."""
    records = RECORDS_AN_EVENING
    return _sent(random, faults, base_ms, until_s, records=records, day_s=DAY_MS / 1000)


def _sent(
    random: Random,
    faults: Faults,
    base_ms: int,
    until_s: float,
    *,
    records: int,
    day_s: float,
) -> list[Sent]:
    sent: list[Sent] = []
    moments = sorted(random.uniform(0.05, until_s) for _ in range(records))
    plan = _planned(random, until_s)
    for number, at_s in enumerate(moments):
        observed_ms = base_ms + int(at_s * DAY_MS / day_s) + number % 7
        while plan and plan[0][0] <= at_s:
            _, draw = plan.pop(0)
            delta = draw(random, observed_ms + 1, f"planned-{number}-{len(plan)}")
            sent.append(Sent(at_s, COMMANDS, delta))
        if random.random() < 0.07:
            delta = _command(random, observed_ms, f"command-{number}")
            sent.append(Sent(at_s, COMMANDS, delta))
        else:
            sent.append(Sent(at_s, DELTAS, _fact(random, observed_ms, number)))
    again = [
        Sent(one.at_s + random.random() * 1.5, DELTAS, one.delta)
        for one in sent
        if one.topic == DELTAS and faults.strikes("duplicate_delta")
    ]
    for one in sent:
        # What a source numbers comes in its order, or is refused.
        moves = one.topic == DELTAS and not isinstance(one.delta, UnitsSold)
        if moves and faults.strikes("reordered_delta"):
            one.at_s += random.random() * 0.3
    return sorted(sent + again, key=lambda one: one.at_s)


Draw = Callable[[Random, int, str], AnyDelta]


def _planned(random: Random, until_s: float) -> list[tuple[float, Draw]]:
    """Return what happens in every shop, with the share of the storm after which it does."""
    plan: list[tuple[float, Draw]] = [
        (0.25, _live),
        (random.uniform(0.1, 0.3), _experiment),
        (random.uniform(0.1, 0.3), _promotion),
        (random.uniform(0.75, 0.95), _promotion),
        (random.uniform(0.6, 1.0), _rules),
    ]
    return sorted(((share * until_s, draw) for share, draw in plan), key=lambda one: one[0])


def _fact(random: Random, observed_ms: int, number: int) -> AnyDelta:
    sku, draw = random.choice(SHOP_SKUS), random.random()
    where: dict[str, Any] = {"retailer": RETAILER, "channel": CHANNEL, "sku": sku}
    where["observed_ms"] = observed_ms
    if draw < 0.55:
        price = price_minor(sku) if random.random() < 0.3 else None
        return UnitsSold(
            **where,
            units=random.choice((1, 1, 2, 3, 8)),
            source="till",
            source_seq=number,
            price_minor=price,
        )
    if draw < 0.67:
        return StockCounted(**where, units=random.choice((0, 3, 40, 400, 400)))
    if draw < 0.87:
        price = int(price_minor(sku) * random.uniform(0.8, 1.15))
        rival = random.choice(("bob", "carol", "us"))
        return CompetitorPriced(**where, rival=rival, price_minor=price, source="crawler")
    if draw < 0.95:
        ratio = random.choice((0.97, 1.02, 1.05, 1.3))
        return CostChanged(**where, cost_minor=int(cost_minor(sku) * ratio))
    return PriceReported(**where, price_minor=int(price_minor(sku) * random.uniform(0.95, 1.05)))


def _command(random: Random, observed_ms: int, name: str) -> AnyDelta:
    sku = random.choice(SHOP_SKUS)
    whole: dict[str, Any] = {
        "retailer": RETAILER,
        "observed_ms": observed_ms,
        "command_id": name,
        "actor": "somebody",
    }
    one = {**whole, "channel": CHANNEL, "sku": sku}
    price = int(price_minor(sku) * random.uniform(0.9, 1.1))
    drawn: Sequence[Callable[[], AnyDelta]] = (
        lambda: PricePinned(**one, price_minor=price, until_ms=observed_ms + DAY_MS),
        lambda: PriceUnpinned(**one),
        lambda: PublishingHalted(**whole),
        lambda: PublishingResumed(**whole),
        lambda: PublishingResumed(**whole),
        lambda: ModeChanged(**whole, mode="shadow"),
        lambda: ModeChanged(**whole, mode="live"),
        lambda: policy(of_retailer(random), observed_ms, command_id=name, actor="somebody"),
        lambda: policy({"learning": random.random() < 0.7}, observed_ms, command_id=name),
        lambda: ListingRemoved(**{**one, "sku": COMES_AND_GOES}),
        lambda: listing(COMES_AND_GOES, observed_ms),
        lambda: _experiment(random, observed_ms, name),
        lambda: ExperimentStopped(**whole),
        lambda: _promotion(random, observed_ms, name),
    )
    return random.choice(drawn)()


def _live(random: Random, observed_ms: int, name: str) -> AnyDelta:
    return ModeChanged(
        retailer=RETAILER, mode="live", observed_ms=observed_ms, command_id=name, actor="somebody"
    )


def _experiment(random: Random, observed_ms: int, name: str) -> AnyDelta:
    terms: dict[str, Any] = random.choice(
        (
            {"price_ratio": 1.05, "days": 4, "baseline_days": 1},
            {"treatment": {"min_margin": 0.3}, "days": 3, "baseline_days": 2, "metric": "units"},
            {
                "treatment": {"dither": 0.0},
                "design": "crossover",
                "days": 8,
                "block_days": 1,
                "washout_days": 0,
                "baseline_days": 0,
            },
        )
    )
    return ExperimentStarted(
        retailer=RETAILER,
        observed_ms=observed_ms,
        command_id=name,
        actor="somebody",
        fields={"experiment": name, **terms},
    )


def _promotion(random: Random, observed_ms: int, name: str) -> AnyDelta:
    model = random.choice((*MODELS, "bad", "lost"))
    blob = artefacts().get(artefact_key(RETAILER, model), b"nobody has it")
    stage = random.choice(("champion", "canary"))
    return ModelPromoted(
        retailer=RETAILER,
        observed_ms=observed_ms,
        command_id=name,
        actor="somebody",
        model=model,
        checksum=sha256(blob).hexdigest(),
        stage=stage,
        share=0.6,
        canary_days=random.choice((1, 2, 4)),
    )


def _rules(random: Random, observed_ms: int, name: str) -> AnyDelta:
    if random.random() < 0.5:
        return _promotion(random, observed_ms, name)
    return ModelPromoted(
        retailer=RETAILER,
        observed_ms=observed_ms,
        command_id=name,
        actor="somebody",
        model="rules",
    )
