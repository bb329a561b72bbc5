"""Read off a shard what explains a listing's price now and no quote holds. It changes nothing.

What is worked out here was worked out when the price was decided, by the same functions; only the
time and what has been learnt since are others.
"""

import numpy as np
from msgspec.structs import replace

from engine.arms import arms_in, policies_of
from engine.attributes import factors_of
from engine.brake import brake_ends_ms, braked_minor
from engine.deliveries import asked_to_last, sure_days
from engine.evidence import learns, learnt_wishes
from engine.forms import curvature_of, form_of
from engine.learnt import DAY_MS, RetailerLearning
from engine.listing_table import KVI
from engine.live_drivers import (
    Alone,
    BarredFacts,
    BrakeFacts,
    DeliveryFacts,
    DemandFacts,
    ExplorationFacts,
    LeashFacts,
    LiveFacts,
    ModelFacts,
    SeasonFacts,
)
from engine.memory import Memory
from engine.policy import Policy
from engine.promotion import informed_learnt, told_model
from engine.proven import barred_above
from engine.quotes import reference_of
from engine.rival_position import asks, pull_bp
from engine.rivals import Reference
from engine.seasons import planned_log, season_told, sells_through, sold_through_log
from engine.serving import CANARY, CHAMPION
from engine.stock import stock_of
from kernels.choice import profit_bend
from kernels.forms import FORMS
from kernels.hyperparameters import STRAYS_LOG
from kernels.limits import PRICE_MINOR_MAX


def live_facts(memory: Memory, row: int, seq: int, now_ms: int) -> LiveFacts:
    """Return what is known of a row.

    Args:
        seq: of the last recorded microbatch.
        now_ms: when that was decided.
    """
    rows = np.array([row])
    listings = memory.listings.listings.take(rows)
    policy = policies_of(memory, rows, listings)
    seen = reference_of(memory, rows, listings, policy, now_ms)
    arms = arms_in(memory, rows, listings)
    arm_minor = None if arms is None else arms.held_minor
    asked = asks(policy, arm_minor)
    told = LiveFacts(
        seq=seq,
        decided_ms=now_ms,
        quote=(int(listings["quote_seq"][0]), int(listings["quote_index"][0])),
        alone="rules",
        leash=_leash(seen, policy),
        brake=_brake(listings, policy, asked, seen, now_ms),
    )
    if not memory.learnt.any or not learns(memory, listings["retailer"])[0]:
        return told
    held = memory.learnt.retailers[int(listings["retailer"][0])]
    learnt = memory.learnt.rows.take(rows)
    said = told_model(memory, row)
    alone, named = _alone(memory, row) if said is None else ("", "")
    wishes = learnt_wishes(memory, rows, listings, arm_minor)
    positioned = bool(asked[0]) and int(seen.landed_minor[0]) > 0
    speaks = wishes is not None and len(wishes.at) == 1 and not positioned
    return replace(
        told,
        alone=alone,
        named=named,
        asked_minor=int(wishes.minor[0]) if wishes is not None and speaks else 0,
        model=None if said is None else _model(said),
        demand=DemandFacts(
            form=FORMS[int(form_of(learnt)[0])],
            curvature=float(curvature_of(held, learnt)[0]),
            by_attributes=_by_attributes(memory, held, row),
            rival_pull=float(held.rival) if int(seen.landed_minor[0]) > 0 else None,
            rivals_follow=float(held.follow),
        ),
        season=_season(memory, rows, listings, policy, learnt, now_ms),
        deliveries=_deliveries(memory, held, rows, listings, learnt, now_ms),
        exploration=_exploration(memory, held, listings, learnt),
        barred=_barred(held, listings, learnt),
    )


def _by_attributes(memory: Memory, held: RetailerLearning, row: int) -> float | None:
    """Return by what share a row's attributes make it steeper; ``None`` where they say nothing."""
    factor = factors_of(memory, held.effects, np.array([row]))
    return None if factor is None or factor[0] == 1.0 else float(factor[0]) - 1.0


def _alone(memory: Memory, row: int) -> tuple[Alone, str]:
    """Return why no trained model speaks for a row that none does for, and which does not."""
    number = int(memory.listings.listings["retailer"][row])
    places = memory.serving.of(number)
    if CHAMPION in places:
        return "unknown", places[CHAMPION].version
    if CANARY in places:
        knows = memory.serving.take(CANARY, np.array([row]))["reference_minor"][0] > 0
        return ("canary" if knows else "unknown"), places[CANARY].version
    return ("withdrawn" if number in memory.serving.told_ms else "none"), ""


def _model(said: dict[str, object]) -> ModelFacts:
    return ModelFacts(
        version=str(said["model"]),
        stage=str(said["stage"]),
        units_a_day=float(str(said["units_a_day"])),
        elasticity=float(str(said["elasticity"])),
        elasticity_sd=float(str(said["elasticity_sd"])),
    )


def _leash(seen: Reference, policy: np.ndarray) -> LeashFacts | None:
    held, told = int(seen.landed_minor[0]), int(seen.told_minor[0])
    if held == told:
        return None
    per_day = float(policy["rival_unconfirmed_per_day"][0])
    return LeashFacts(told_minor=told, held_minor=held, per_day=round(per_day, 6))


def _brake(
    listings: np.ndarray, policy: np.ndarray, asked: np.ndarray, seen: Reference, now_ms: int
) -> BrakeFacts | None:
    pull = pull_bp(asked, (listings["flags"] & KVI) != 0, policy)
    war = listings.copy()  # it is brought up to now, and forgotten again
    lets = int(braked_minor(war, pull, seen.landed_minor, policy, now_ms)[0])
    if not lets:
        return None
    return BrakeFacts(lets_minor=lets, ends_ms=int(brake_ends_ms(war)[0]))


def _season(
    memory: Memory,
    rows: np.ndarray,
    listings: np.ndarray,
    policy: np.ndarray,
    learnt: np.ndarray,
    now_ms: int,
) -> SeasonFacts | None:
    ends_ms = int(policy["season_end_ms"][0])
    if ends_ms <= now_ms or not np.isfinite(learnt["anchor"][0]):
        return None
    believed = informed_learnt(memory, rows, learnt)["elasticity"].astype(np.float64)
    through = bool(sells_through(now_ms, policy)[0])
    most, cuts = policy["markdowns_max"], learnt["turns"]
    if through:
        anchor = learnt["anchor"].astype(np.float64)
        wanted, _ = sold_through_log(now_ms, listings, policy, learnt, anchor, believed)
    else:
        wanted = planned_log(now_ms, listings, policy, learnt, believed, most - cuts)
    level, _ = season_told(learnt)
    price = int(listings["status_quo_minor"][0]) * float(np.exp(wanted[0]))
    return SeasonFacts(
        sells_through=through,
        days_left=(ends_ms - now_ms) / DAY_MS,
        stock=int(stock_of(listings)[0]),
        days_watched=float(learnt["season_days"][0]),
        units_a_day=float(np.exp(level[0])),
        wanted_minor=min(max(round(price), 1), PRICE_MINOR_MAX),
        cuts=int(cuts[0]),
        cuts_most=int(most[0]),
    )


def _deliveries(
    memory: Memory,
    held: RetailerLearning,
    rows: np.ndarray,
    listings: np.ndarray,
    learnt: np.ndarray,
    now_ms: int,
) -> DeliveryFacts | None:
    if not asked_to_last(learnt, listings)[0]:
        return None
    told = memory.learnt.deliveries.take(rows)
    return DeliveryFacts(
        days=float(told["days"][0]),
        sure_days=float(sure_days(told, held.regular)[0]),
        passed_days=(now_ms - int(told["came_ms"][0])) / DAY_MS,
        units=float(told["units"][0]),
        emptied=float(told["emptied"][0]),
        stock=int(stock_of(listings)[0]),
    )


def _exploration(
    memory: Memory, held: RetailerLearning, listings: np.ndarray, learnt: np.ndarray
) -> ExplorationFacts | None:
    """Return what a dither costs a day, as the retailer's own share of exploring is reckoned."""
    dither = float(learnt["dither"][0])
    if not np.isfinite(learnt["anchor"][0]) or abs(dither) <= STRAYS_LOG:
        return None
    slope = learnt["elasticity"].astype(np.float64)
    bend = float(profit_bend(slope, curvature_of(held, learnt))[0])
    margin = max(int(listings["in_force_minor"][0]) - max(int(listings["cost_minor"][0]), 0), 0)
    units = float(np.exp(learnt["level"].astype(np.float64))[0])
    retailer = memory.retailers.ids[int(listings["retailer"][0])]
    budget = memory.groups.book.retailer_policy(retailer).exploration_budget_minor
    return ExplorationFacts(
        strays=float(np.expm1(dither)),
        cost_minor=0.5 * bend * dither**2 * units * margin,
        budget_minor=None if budget >= Policy().exploration_budget_minor else budget,
        scale=float(held.dither_scale),
    )


def _barred(held: RetailerLearning, listings: np.ndarray, learnt: np.ndarray) -> BarredFacts | None:
    above = float(barred_above(learnt, held.day)[0])
    if not np.isfinite(above):
        return None
    price = round(int(listings["status_quo_minor"][0]) * float(np.exp(above)))
    return BarredFacts(above_minor=price, days=int(learnt["barred_day"][0]) - held.day)
