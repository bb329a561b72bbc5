"""What is known of a listing as named figures, for people and programs outside.

Derived when read, from what the shard remembers anyway: no byte a row and no work an event, and
nothing that a digest or a checkpoint would have to cover. All times are measured to the time of
the last microbatch, so that the same log gives the same figures. ``docs/features.md`` is the table
of :data:`FEATURES`, and a test compares the two.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
from msgspec import Struct

from engine.evidence import learns
from engine.learnt import new_learnt
from engine.listing_table import CHANGE_SLOTS, SALES_KEPT, SLOT_MS
from engine.memory import Memory
from engine.rivals import (
    OFFER_UNPROVEN,
    OFFER_USED,
    comparable,
    converted,
    distinct_rivals,
)
from engine.stock import stock_of
from engine.velocity import velocity_of

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


class Sight(Struct, frozen=True, eq=False):
    """What features are derived from, one element (or row) a listing."""

    now_ms: int
    row: np.ndarray  # LISTING_DTYPE
    quote: np.ndarray  # QUOTE_DTYPE
    learnt: np.ndarray  # LEARNT_DTYPE
    learns: np.ndarray  # whether the retailer learns
    stock: np.ndarray
    offers: np.ndarray  # OFFER_DTYPE[rows, offers]
    used: np.ndarray  # bool[rows, offers]: the place is taken
    comparable: np.ndarray  # bool[rows, offers]
    landed: np.ndarray  # float64[rows, offers] in the listing's currency, NaN: not comparable
    ordered: np.ndarray  # the same, each row in order, NaN last


def sight_of(memory: Memory, rows: np.ndarray, now_ms: int) -> Sight:
    """Gather what is remembered of ``rows``."""
    listings = memory.listings.listings.take(rows)
    offers = memory.rivals.offers_of(rows)
    rate, rate_ms = converted(offers, memory.currencies, listings["retailer"], listings["currency"])
    policy = memory.groups.policy.take(listings["group"])
    seen = comparable(
        offers,
        memory.own_names.names[listings["own"]],
        rate,
        rate_ms,
        now_ms,
        policy["rival_stale_ms"],
        policy["rate_stale_ms"],
    )
    landed = np.where(seen.usable, seen.landed, np.nan)
    if memory.learnt.any:
        learnt = memory.learnt.rows.take(rows)
    else:
        learnt = np.repeat(new_learnt(), len(rows))
    return Sight(
        now_ms=now_ms,
        row=listings,
        quote=memory.listings.quotes.take(rows),
        learnt=learnt,
        learns=learns(memory, listings["retailer"]) & (learnt["days"] > 0),
        stock=stock_of(listings),
        offers=offers,
        used=offers["flags"] >= OFFER_USED,
        comparable=seen.usable,
        landed=landed,
        ordered=np.sort(landed, axis=1),
    )


def _known(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known, values.astype(np.float64), np.nan)


def _positive(values: np.ndarray) -> np.ndarray:
    return _known(values, values > 0)


def _price(sight: Sight) -> np.ndarray:
    return _positive(sight.row["in_force_minor"])


def _field(name: str) -> Callable[[Sight], np.ndarray]:
    return lambda sight: _positive(sight.row[name])


def _quoted(name: str) -> Callable[[Sight], np.ndarray]:
    return lambda sight: _known(sight.quote[name], sight.quote["listing"] != 0)


def _log_over(name: str) -> Callable[[Sight], np.ndarray]:
    """Return the log of the price in force over a column of the listing."""
    return lambda sight: np.log(_price(sight) / _positive(sight.row[name]))


def _log_over_quoted(name: str) -> Callable[[Sight], np.ndarray]:
    return lambda sight: np.log(_price(sight) / _positive(sight.quote[name]))


def _minutes_since(name: str) -> Callable[[Sight], np.ndarray]:
    return lambda sight: _known((sight.now_ms - sight.row[name]) / MINUTE_MS, sight.row[name] > 0)


def _changes(slots: int) -> Callable[[Sight], np.ndarray]:
    """Return changes in the running ten-minute slot and the ``slots`` before it."""

    def counted(sight: Sight) -> np.ndarray:
        passed = sight.now_ms // SLOT_MS - sight.row["change_slot"].astype(np.int64)
        inside = np.arange(CHANGE_SLOTS)[None, :] + passed[:, None] <= slots
        return np.asarray(np.where(inside, sight.row["changes"], 0).sum(axis=1).astype(np.float64))

    return counted


Reduce = Callable[[np.ndarray], np.ndarray]
"""Reduces what is not NaN of each row of float64[rows, columns]; NaN where there is nothing."""


def least(values: np.ndarray) -> np.ndarray:
    """Return the least of each row."""
    return np.asarray(np.fmin.reduce(values, axis=1, initial=np.nan))


def most(values: np.ndarray) -> np.ndarray:
    """Return the greatest of each row."""
    return np.asarray(np.fmax.reduce(values, axis=1, initial=np.nan))


def mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=1) / _positive(known.sum(axis=1)))


def deviation(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each row, 0 of one value."""
    return np.asarray(np.sqrt(mean(np.square(values - mean(values)[:, None]))))


def second(ordered: np.ndarray) -> np.ndarray:
    """Return the second of each row, whose values stand in order with NaN at the end."""
    return ordered[:, 1] if ordered.shape[1] > 1 else np.full(len(ordered), np.nan)


def median(ordered: np.ndarray) -> np.ndarray:
    """Return the median of each row, whose values stand in order with NaN at the end."""
    if ordered.shape[1] == 0:
        return np.full(len(ordered), np.nan)
    count, each = (~np.isnan(ordered)).sum(axis=1), np.arange(len(ordered))
    # Where nothing is known both are the last column, which is NaN.
    below, above = ordered[each, (count - 1) // 2], ordered[each, count // 2 - (count == 0)]
    return np.asarray((below + above) / 2.0)


def _rivals(reduce: Reduce, window_ms: int | None = None) -> Callable[[Sight], np.ndarray]:
    """Return a figure of comparable landed prices, in order, of those heard within the window."""

    def reduced(sight: Sight) -> np.ndarray:
        if window_ms is None:
            return reduce(sight.ordered)
        heard = sight.offers["observed_ms"] > sight.now_ms - window_ms
        return reduce(np.where(heard, sight.landed, np.nan))

    return reduced


def _distance(reduce: Reduce) -> Callable[[Sight], np.ndarray]:
    return lambda sight: np.log(_price(sight) / reduce(sight.ordered))


def _heard(window_ms: int) -> Callable[[Sight], np.ndarray]:
    def counted(sight: Sight) -> np.ndarray:
        heard = sight.used & (sight.offers["observed_ms"] > sight.now_ms - window_ms)
        return np.asarray(heard.sum(axis=1).astype(np.float64))

    return counted


def _offers(column: Callable[[Sight], np.ndarray], reduce: Reduce) -> Callable[[Sight], np.ndarray]:
    return lambda sight: reduce(_known(column(sight), sight.used))


def _offer_age(sight: Sight) -> np.ndarray:
    return np.asarray((sight.now_ms - sight.offers["observed_ms"]) / MINUTE_MS)


def _spread(sight: Sight) -> np.ndarray:
    return np.asarray(sight.offers["spread"] / 200.0)


def _climb(sight: Sight) -> np.ndarray:
    return np.asarray(sight.offers["climb"].astype(np.float64))


def _suspect(sight: Sight) -> np.ndarray:
    return np.asarray((sight.offers["suspect_times"] > 0).astype(np.float64))


def _unproven(sight: Sight) -> np.ndarray:
    return np.asarray(((sight.offers["flags"] & OFFER_UNPROVEN) != 0).astype(np.float64))


def _rank(sight: Sight) -> np.ndarray:
    """Return our place among the comparable, 1: cheapest; NaN without rivals."""
    cheaper = (sight.landed < _price(sight)[:, None]).sum(axis=1)
    return _known(1 + cheaper, sight.comparable.any(axis=1) & (sight.row["in_force_minor"] > 0))


def _rank_share(sight: Sight) -> np.ndarray:
    return np.asarray((_rank(sight) - 1.0) / np.maximum(sight.comparable.sum(axis=1), 1))


def _sold(window_ms: int) -> Callable[[Sight], np.ndarray]:
    def summed(sight: Sight) -> np.ndarray:
        inside = sight.row["sale_ms"] > max(sight.now_ms - window_ms, 0)
        return np.asarray(
            np.where(inside, sight.row["sale_units"], 0).sum(axis=1).astype(np.float64)
        )

    return summed


def _velocity(sight: Sight) -> np.ndarray:
    sold = (sight.row["sale_ms"] >= 0).any(axis=1)
    return _known(velocity_of(sight.row, sight.now_ms), np.asarray(sold))


def _last_sale(sight: Sight) -> np.ndarray:
    newest = sight.row["sale_ms"].max(axis=1)
    return _known((sight.now_ms - newest) / MINUTE_MS, np.asarray(newest >= 0))


def _cover(sight: Sight) -> np.ndarray:
    return np.asarray(_known(sight.stock, sight.stock >= 0) / _positive(_velocity(sight)))


def _phase(period_ms: float, turn: Callable[[float], float]) -> Callable[[Sight], np.ndarray]:
    return lambda sight: np.full(
        len(sight.row), turn(2.0 * np.pi * (sight.now_ms % period_ms) / period_ms)
    )


def _learnt(
    name: str, of: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Callable[[Sight], np.ndarray]:
    return lambda sight: _known(of(sight.learnt[name].astype(np.float64)), sight.learns)


def _distinct(sight: Sight) -> np.ndarray:
    if sight.offers.shape[1] == 0:
        return np.zeros(len(sight.row))
    return distinct_rivals(sight.offers["rival"], sight.comparable).astype(np.float64)


class Feature(Struct, frozen=True):
    """One named figure; NaN where it is not known."""

    name: str
    unit: str
    window: str
    formula: str
    of: Callable[[Sight], np.ndarray]


NOW, SALES, WEEK_MS, YEAR_MS = "now", f"newest {SALES_KEPT} sales", 7 * DAY_MS, 365.2425 * DAY_MS
FRESH = "rival_stale_ms"
"""Windows by name; FRESH is the policy field that says how old a comparable offer may be."""

FEATURES: tuple[Feature, ...] = (
    Feature("price", "minor", NOW, "price in force", _price),
    Feature("price_before", "minor", NOW, "before the last quote", _quoted("previous_minor")),
    Feature("price_age", "min", NOW, "since the last word on it", _minutes_since("price_ms")),
    Feature("last_move", "log", NOW, "price / price_before", _log_over_quoted("previous_minor")),
    Feature("target_gap", "log", NOW, "price / optimum", _log_over_quoted("target_minor")),
    Feature("floor_room", "log", NOW, "price / effective floor", _log_over_quoted("floor_minor")),
    Feature("ceiling_room", "log", NOW, "price / ceiling", _log_over_quoted("ceiling_minor")),
    Feature("markup", "log", NOW, "price / cost", _log_over("cost_minor")),
    Feature("rrp_gap", "log", NOW, "price / RRP", _log_over("rrp_minor")),
    Feature("map_gap", "log", NOW, "price / MAP", _log_over("map_minor")),
    Feature("import_gap", "log", "since import", "price / first", _log_over("status_quo_minor")),
    Feature("window_move", "log", "5 min", "price / price then", _log_over("window_minor")),
    Feature("changes_10m", "count", "10 to 20 min", "own changes", _changes(1)),
    Feature("changes_30m", "count", "30 to 40 min", "own changes", _changes(3)),
    Feature("changes_1h", "count", "60 to 70 min", "own changes", _changes(6)),
    Feature("cost", "minor", NOW, "unit cost", _field("cost_minor")),
    Feature("cost_age", "min", NOW, "since the last cost", _minutes_since("cost_ms")),
    Feature("rival_lowest", "minor", FRESH, "lowest landed", _rivals(least)),
    Feature("rival_second", "minor", FRESH, "second lowest landed", _rivals(second)),
    Feature("rival_median", "minor", FRESH, "median landed", _rivals(median)),
    Feature("rival_mean", "minor", FRESH, "mean landed", _rivals(mean)),
    Feature("rival_highest", "minor", FRESH, "highest landed", _rivals(most)),
    Feature("rival_dispersion", "minor", FRESH, "sd of landed", _rivals(deviation)),
    Feature("rival_mean_1m", "minor", "1 min", "mean landed", _rivals(mean, MINUTE_MS)),
    Feature("rival_mean_10m", "minor", "10 min", "mean landed", _rivals(mean, 10 * MINUTE_MS)),
    Feature("rival_mean_1h", "minor", "1 h", "mean landed", _rivals(mean, HOUR_MS)),
    Feature("rival_lowest_1h", "minor", "1 h", "lowest landed", _rivals(least, HOUR_MS)),
    Feature("rival_distance", "log", FRESH, "price / rival_lowest", _distance(least)),
    Feature("rival_median_distance", "log", FRESH, "price / median", _distance(median)),
    Feature("rival_rank", "count", FRESH, "1 + offers cheaper than we", _rank),
    Feature("rival_rank_share", "ratio", FRESH, "(rank - 1) / offers", _rank_share),
    Feature("rivals", "count", FRESH, "distinct comparable rivals",
            _distinct),
    Feature("offers_known", "count", NOW, "offers remembered",
            lambda sight: sight.used.sum(axis=1).astype(float)),
    Feature("heard_1m", "count", "1 min", "offers last seen within", _heard(MINUTE_MS)),
    Feature("heard_10m", "count", "10 min", "offers last seen within", _heard(10 * MINUTE_MS)),
    Feature("heard_1h", "count", "1 h", "offers last seen within", _heard(HOUR_MS)),
    Feature("heard_1d", "count", "1 d", "offers last seen within", _heard(DAY_MS)),
    Feature("offer_age_newest", "min", NOW, "age of the newest", _offers(_offer_age, least)),
    Feature("offer_age_oldest", "min", NOW, "age of the oldest", _offers(_offer_age, most)),
    Feature("rival_volatility", "log", "fading", "mean usual move", _offers(_spread, mean)),
    Feature("rival_climb", "log", "moves, leaking", "mean lately", _offers(_climb, mean)),
    Feature("rival_climb_lowest", "log", "moves, leaking", "least lately", _offers(_climb, least)),
    Feature("suspect_share", "ratio", NOW, "offers in quarantine", _offers(_suspect, mean)),
    Feature("unproven_share", "ratio", NOW, "never believed", _offers(_unproven, mean)),
    Feature("stock", "units", NOW, "count less sales since",
            lambda sight: _known(sight.stock, sight.stock >= 0)),
    Feature("stock_ratio", "ratio", "since count", "stock / count",
            lambda sight: _known(sight.stock, sight.stock >= 0) / _positive(sight.row["counted"])),
    Feature("stock_age", "min", NOW, "since the last count", _minutes_since("stock_ms")),
    Feature("stock_cover", "d", SALES, "stock / velocity", _cover),
    Feature("units_sold", "units", "ever", "sum of sales",
            lambda sight: sight.row["units_sold"].astype(float)),
    Feature("velocity", "units/d", SALES, "units / time since the oldest", _velocity),
    Feature("revenue_rate", "minor/d", SALES, "velocity * price",
            lambda sight: _velocity(sight) * _price(sight)),
    Feature("last_sale_age", "min", NOW, "since the newest sale", _last_sale),
    Feature("units_1m", "units", f"1 min, {SALES}", "sum of sales", _sold(MINUTE_MS)),
    Feature("units_1h", "units", f"1 h, {SALES}", "sum of sales", _sold(HOUR_MS)),
    Feature("units_1d", "units", f"1 d, {SALES}", "sum of sales", _sold(DAY_MS)),
    Feature("day_sin", "ratio", "1 d", "sine of the time of day, UTC", _phase(DAY_MS, np.sin)),
    Feature("day_cos", "ratio", "1 d", "its cosine", _phase(DAY_MS, np.cos)),
    Feature("week_sin", "ratio", "1 wk", "sine of it, from Thursday", _phase(WEEK_MS, np.sin)),
    Feature("week_cos", "ratio", "1 wk", "its cosine", _phase(WEEK_MS, np.cos)),
    Feature("year_sin", "ratio", "1 yr", "sine of the year, from 1970", _phase(YEAR_MS, np.sin)),
    Feature("year_cos", "ratio", "1 yr", "its cosine", _phase(YEAR_MS, np.cos)),
    Feature("elasticity", "ratio", NOW, "mean behind the quote", _quoted("elasticity")),
    Feature("elasticity_sd", "ratio", NOW, "its sd", _quoted("elasticity_sd")),
    Feature("confidence", "ratio", NOW, "share of attainable profit", _quoted("confidence")),
    Feature("demand_level", "units/d", "filtered", "exp(level)", _learnt("level", np.exp)),
    Feature("demand_level_sd", "log", "filtered", "sd of level", _learnt("variance", np.sqrt)),
    Feature("price_filtered", "log", "filtered", "price / import price", _learnt("price")),
    Feature("rival_filtered", "log", "filtered", "rival / import price", _learnt("rival")),
    Feature("surprise", "sd", "last period", "sales not foreseen", _learnt("unexplained")),
    Feature("dither", "log", NOW, "price asked / anchor", _learnt("dither")),
    Feature("days_learnt", "d", "ever", "periods learnt from", _learnt("days")),
)  # fmt: skip


def features_of(memory: Memory, rows: np.ndarray, now_ms: int) -> dict[str, np.ndarray]:
    """Return float64[rows] by name, NaN where a figure is not known."""
    sight = sight_of(memory, rows, now_ms)
    return {feature.name: feature.of(sight) for feature in FEATURES}


def named(names: Iterable[str], values: Iterable[float]) -> dict[str, float | None]:
    """Return one listing's figures as JSON has them: ``None`` where one is not known."""
    pairs = zip(names, values, strict=True)
    return {name: value if math.isfinite(value) else None for name, value in pairs}


def markdown() -> str:
    """Return the table of ``docs/features.md``."""
    lines = ["| Name | Unit | Window | Formula |", "|---|---|---|---|"]
    lines += [f"| `{f.name}` | {f.unit} | {f.window} | {f.formula} |" for f in FEATURES]
    return "\n".join(lines) + "\n"
