"""Judge decided prices against the written precedence, from plain columns.

Written from the text of the design, not from the kernel. The text: start with all prices from 1 to
2**30; in the order legal, floor, ceiling, max discount, step, rate, KVI, ending intersect; a rule
that would empty the interval yields, and the interval becomes its end nearest to that rule. Legal,
floor and ceiling empty together: nothing is decided. No cost or no floor: nothing is decided.
What is decided is the allowed price nearest to what the model wished.

Ratios are exact decimals: guardrails have four places, VAT and commission six. Floors are computed
with Python's own integers, of any size.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

HIGHEST = 2**30
RULE_ORDER = ("legal", "floor", "ceiling", "max_discount", "step", "rate", "kvi", "ending")

Columns = Mapping[str, np.ndarray]
"""One array a name, all of one length:

``cost_minor`` (-1 unknown), ``in_force_minor``, ``rrp_minor``, ``map_minor``, ``ceiling_minor``,
``explicit_floor_minor``, ``rival_minor`` (0: none each), ``changes_last_hour``,
``changes_per_hour_max``, ``fixed_fee_minor``, ``minimum_fee_minor``: integers; ``kvi``,
``floor_known``: booleans; ``min_margin``, ``max_discount``, ``step_max``, ``kvi_rival_ratio_max``,
``vat``, ``commission``: ratios; ``endings``: object array of tuples of digit strings;
``wish_minor``: the price that the model wished, 0 where it had no valid one.
"""


class Expected(NamedTuple):
    """What the text demands of every row."""

    price_minor: np.ndarray  # 0: nothing may be decided
    refused: np.ndarray  # object: "", no_cost, no_floor, infeasible, model_invalid
    low: dict[str, np.ndarray]  # the interval after each rule
    high: dict[str, np.ndarray]
    yielded: dict[str, np.ndarray]  # where the rule gave way to those before it


def expected(columns: Columns, absent: np.ndarray | None = None) -> Expected:
    """Return the one price that the text allows for each row, and how it comes about.

    ``absent`` names, for each row, a rule to leave out: what would the price be without it?
    """
    rows = len(columns["cost_minor"])
    low = np.ones(rows, dtype=np.int64)
    high = np.full(rows, HIGHEST, dtype=np.int64)
    lows, highs, yielded = {}, {}, {}
    floor = margin_floor(columns)
    wishes = {
        "legal": (np.maximum(_whole(columns, "map_minor"), 1), None),
        "floor": (np.maximum(floor, 1), None),
        "ceiling": (None, _or_all(_whole(columns, "ceiling_minor"))),
        "max_discount": (_discounted(columns), None),
        "step": _step(columns),
        "rate": _rate(columns),
        "kvi": (None, _kvi(columns)),
    }
    for rule, (least, most) in wishes.items():
        least = np.ones(rows, dtype=np.int64) if least is None else least
        most = np.full(rows, 2 * HIGHEST, dtype=np.int64) if most is None else most
        if absent is not None:
            least = np.where(absent == rule, 1, least)
            most = np.where(absent == rule, 2 * HIGHEST, most)
        too_high, too_low = least > high, most < low
        low, high = (
            np.where(too_high, high, np.where(too_low, low, np.maximum(low, least))),
            np.where(too_low, low, np.where(too_high, high, np.minimum(high, most))),
        )
        lows[rule], highs[rule], yielded[rule] = low, high, too_high | too_low
    wish = _whole(columns, "wish_minor")
    price = np.clip(wish, low, high)
    endings = columns["endings"].copy()
    if absent is not None:
        for row in np.flatnonzero(absent == "ending"):
            endings[row] = ()
    price, no_ending = _with_ending(endings, price, low, high)
    yielded["ending"] = no_ending
    lows["ending"], highs["ending"] = low, high

    legal_or_floor = np.maximum(_whole(columns, "map_minor"), floor)
    refused = np.full(rows, "", dtype=object)
    refused[wish <= 0] = "model_invalid"
    refused[legal_or_floor > _or_all(_whole(columns, "ceiling_minor"))] = "infeasible"
    refused[~columns["floor_known"].astype(bool)] = "no_floor"
    refused[_whole(columns, "cost_minor") < 0] = "no_cost"
    return Expected(np.where(refused == "", price, 0), refused, lows, highs, yielded)


def judge(columns: Columns, price_minor: np.ndarray) -> dict[str, np.ndarray]:
    """Return, for each kind of violation, which rows commit it.

    Kinds: the rules by name (the price lies outside the interval that the rule left, unless the
    rule yielded), ``undecided`` (a price was due), ``decided_without_<reason>`` (none was), and
    ``not_nearest`` (allowed, but another allowed price is nearer to the wish).
    """
    due = expected(columns)
    price = price_minor.astype(np.int64)
    found: dict[str, np.ndarray] = {}
    for reason in ("no_cost", "no_floor", "infeasible", "model_invalid"):
        found[f"decided_{reason}"] = (due.refused == reason) & (price != 0)
    judged = due.refused == ""
    found["undecided"] = judged & (price == 0)
    judged = judged & (price != 0)
    blamed = np.zeros(len(price), dtype=bool)
    for rule in RULE_ORDER[:-1]:
        outside = (price < due.low[rule]) | (price > due.high[rule])
        found[rule] = judged & outside & ~blamed
        blamed |= found[rule]
    wrong = judged & ~blamed & (price != due.price_minor)
    has_endings = np.array([len(endings) > 0 for endings in columns["endings"]], dtype=bool)
    legal_ending = _ends_legally(columns["endings"], price)
    found["ending"] = wrong & has_endings & (~legal_ending | due.yielded["ending"])
    found["not_nearest"] = wrong & ~found["ending"]
    return found


def margin_floor(columns: Columns) -> np.ndarray:
    """Return the least price with the margin asked for, or more than any price; int64.

    Of the net revenue ``p / (1 + vat)``, the share ``1 - margin`` must cover cost, fixed fee and
    the larger of commission and minimum fee.
    """
    million = 10**6
    cost = np.maximum(_whole(columns, "cost_minor"), 0) + _whole(columns, "fixed_fee_minor")
    owed = cost.astype(object)
    minimum = _whole(columns, "minimum_fee_minor").astype(object)
    keep = million - _parts(columns["min_margin"], million).astype(object)
    gross = million + _parts(columns["vat"], million).astype(object)
    taken = _parts(columns["commission"], million).astype(object)
    # p * keep / gross - p * taken / million >= owed, brought to a common denominator:
    with_commission = _least(owed * gross * million, keep * million - taken * gross)
    with_minimum = _least((owed + minimum) * gross, keep)
    floor = np.maximum(with_commission, with_minimum)
    explicit = _whole(columns, "explicit_floor_minor")
    return np.asarray(np.maximum(floor, explicit), dtype=np.int64)


def _least(owed: np.ndarray, each: np.ndarray) -> np.ndarray:
    """Return the least whole p >= 1 with p * each >= owed, at most ``HIGHEST + 1``."""
    positive = each > 0
    divisor = np.where(positive, each, 1)
    least = -((-owed) // divisor)
    least = np.where(positive, least, np.where((each == 0) & (owed == 0), 1, HIGHEST + 1))
    return np.asarray(np.minimum(np.maximum(least, 1), HIGHEST + 1), dtype=np.int64)


def _whole(columns: Columns, name: str) -> np.ndarray:
    return np.asarray(columns[name]).astype(np.int64)


def _parts(ratio: np.ndarray, parts: int) -> np.ndarray:
    return np.asarray(np.round(np.asarray(ratio, dtype=np.float64) * parts), dtype=np.int64)


def _or_all(most: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(most > 0, most, HIGHEST))


def _discounted(columns: Columns) -> np.ndarray:
    rrp = _whole(columns, "rrp_minor")
    left = 10_000 - _parts(columns["max_discount"], 10_000)
    return np.asarray(np.maximum(-(-rrp * left // 10_000), 1))


def _step(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    price = _whole(columns, "in_force_minor")
    step = _parts(columns["step_max"], 10_000)
    least = -(-price * (10_000 - step) // 10_000)
    most = price * (10_000 + step) // 10_000
    free = price <= 0
    return np.where(free, 1, np.maximum(least, 1)), np.where(free, 2 * HIGHEST, most)


def _rate(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    price = _whole(columns, "in_force_minor")
    used_up = _whole(columns, "changes_last_hour") >= _whole(columns, "changes_per_hour_max")
    bound = used_up & (price > 0)
    return np.where(bound, price, 1), np.where(bound, price, 2 * HIGHEST)


def _kvi(columns: Columns) -> np.ndarray:
    rival = _whole(columns, "rival_minor")
    most = rival * _parts(columns["kvi_rival_ratio_max"], 10_000) // 10_000
    bound = columns["kvi"].astype(bool) & (rival > 0)
    return np.where(bound, most, 2 * HIGHEST)


def _with_ending(
    endings: np.ndarray, price: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the price with a legal ending nearest to ``price``, and where there is none."""
    chosen, missing = price.copy(), np.zeros(len(price), dtype=bool)
    for group in set(endings):
        if not group:
            continue
        rows = np.flatnonzero(np.fromiter((e == group for e in endings), bool, len(endings)))
        wish, least, most = price[rows], low[rows], high[rows]
        every = []
        for ending in group:
            value, modulus = int(ending), 10 ** len(ending)
            turn = (wish - value) // modulus
            every += [(turn + add) * modulus + value for add in (-1, 0, 1, 2)]
        table = np.stack(every)
        allowed = (table >= least) & (table <= most) & (table >= 1) & (table <= HIGHEST)
        # Nearest first, the lower of two equally near: sort key 2 * distance + (1 if above).
        key = np.where(allowed, 2 * np.abs(table - wish) + (table > wish), 2**62)
        best = np.argmin(key, axis=0)
        nearest = table[best, np.arange(len(rows))]
        none = ~allowed.any(axis=0)
        chosen[rows] = np.where(none, _nearest_end(group, least, most), nearest)
        missing[rows] = none
    return chosen, missing


def _nearest_end(group: tuple[str, ...], least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return the end of an interval without legal endings that is nearer to one."""
    under = np.full(len(least), 2**62, dtype=np.int64)
    over = np.full(len(least), 2**62, dtype=np.int64)
    for ending in group:
        value, modulus = int(ending), 10 ** len(ending)
        below = (least - 1 - value) // modulus * modulus + value
        above = -((value - most - 1) // modulus) * modulus + value
        under = np.where(below >= 1, np.minimum(under, least - below), under)
        over = np.where(above <= HIGHEST, np.minimum(over, above - most), over)
    return np.where(under <= over, least, most)


def _ends_legally(endings: np.ndarray, price: np.ndarray) -> np.ndarray:
    legal = np.ones(len(price), dtype=bool)
    for group in set(endings):
        if group:
            rows = np.fromiter((e == group for e in endings), bool, len(endings))
            ends = [price % 10 ** len(ending) == int(ending) for ending in group]
            legal &= ~rows | np.any(ends, axis=0)
    return legal
