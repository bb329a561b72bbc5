"""A trained model serves a share of a shop, then all of it, and gives way when it is no good."""

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from engine.artefact import PREDICTION_DTYPE, Artefact, encode_artefact, read_artefact, sound
from engine.checkpoint import merge_parts
from engine.decided import CatalogueChange, Decided, Given
from engine.deltas import AnyDelta, ListingRemoved, ModelPromoted
from engine.errors import RejectedInput
from engine.promotion import MISSING
from engine.replay import Agreement
from engine.routing import key64
from engine.serving import Served, chosen
from engine.shard import Shard
from kernels.hyperparameters import ROLLBACK_DROP
from repricer import batch_of
from tests.engine.builders import DAY, World, only

SKUS = [f"S{number}" for number in range(60)]
ELASTICITIES = np.linspace(-1.8, -4.0, len(SKUS))
KEYS = np.array([key64("acme", "shop", sku) for sku in SKUS], dtype=np.uint64)
PRICE, UNITS = 1500, 40.0


def shop(**policy: Any) -> World:
    """Return a world that learns, ten days old."""
    parts, now_ms, days = grown_up()
    world = World()
    world.shard, world.now_ms = Shard.restore(parts), now_ms
    world.decided = list(days)
    if policy:
        world.send(world.policy(**policy))
    return world


@cache
def grown_up() -> tuple[list[bytes], int, list[Decided]]:
    """Return that world as a checkpoint, since every test begins there."""
    world = World()
    world.send(world.policy(learning=True, dither=0.0))
    world.send(
        *(
            world.listing(sku, category=f"c{at % 3}", price_minor=PRICE)
            for at, sku in enumerate(SKUS)
        )
    )
    lived(world, 10)
    return [world.shard.checkpoint_close()], world.now_ms, world.decided


def sales(world: World, day: int) -> list[AnyDelta]:
    """Return a day's sales at the prices in force."""
    draw = np.random.default_rng(day)
    prices = np.array([world.price(sku) for sku in SKUS])
    units = draw.poisson(UNITS * (prices / PRICE) ** ELASTICITIES)
    return [
        world.sold(int(units[at]), sku, source=f"till {sku}", source_seq=day)
        for at, sku in enumerate(SKUS)
        if units[at]
    ]


def lived(world: World, days: int) -> list[Decided]:
    """Let days pass; return what was decided."""
    return [world.send(*sales(world, len(world.decided)), after_ms=DAY) for _ in range(days)]


def artefact(version: str = "m-1", **changed: Any) -> Artefact:
    """Return a model that knows the truth, but for what is changed."""
    table = np.zeros(len(SKUS), dtype=PREDICTION_DTYPE)
    truth = {
        "reference_minor": PRICE,
        "level": np.log(UNITS),
        "level_sd": 0.2,
        "elasticity": ELASTICITIES,
        "elasticity_sd": 0.3,
    }
    for name, value in {**truth, **changed}.items():
        table[name] = value
    value = encode_artefact(version, "acme", KEYS, table)
    return read_artefact(value, sha256(value).hexdigest())


SABOTAGED = {"level": np.log(9.0 * UNITS), "level_sd": 0.02}


def promoted(world: World, model: Artefact, **fields: Any) -> ModelPromoted:
    return world.whole(ModelPromoted, model=model.version, checksum=model.checksum, **fields)


def given(world: World, delta: AnyDelta, *artefacts: Artefact, after_ms: int = 1) -> Decided:
    """Have one delta decided, with artefacts at hand."""
    world.now_ms += after_ms
    batch = batch_of([delta], after=world.shard)
    decided = world.shard.apply(batch, world.now_ms, Given(artefacts=artefacts))
    world.shard.record(decided)
    world.decided.append(decided)
    return decided


def told(decided: Sequence[Decided]) -> list[CatalogueChange]:
    return [change for each in decided for change in each.catalogue if change.what == "model"]


def served(world: World) -> dict[str, str]:
    """Return the model's version by the SKU it speaks for."""
    found = {sku: world.shard.learnt(world.key(sku)) for sku in SKUS}
    return {sku: of["model"]["model"] for sku, of in found.items() if of and of["model"]}


def test_a_canary_serves_its_share_and_becomes_the_champion() -> None:
    world = shop()
    model = artefact()
    world.now_ms += 1
    decided = given(world, promoted(world, model, share=0.3, canary_days=5), model)
    assert decided.model == "m-1"
    assert 0.15 * len(SKUS) < len(served(world)) < 0.45 * len(SKUS)
    days = [lived(world, 1) for _ in range(5)]
    assert [len(told(day)) for day in days] == [0, 0, 0, 0, 1]
    fields = only(told(days[-1])).fields
    assert (fields["model"], fields["stage"]) == ("m-1", "champion")
    assert fields["errors"]["with"] <= fields["errors"]["without"] * (1.0 + ROLLBACK_DROP)
    assert set(served(world)) == set(SKUS)
    assert world.shard.models()["acme"]["champion"]["model"] == "m-1"


def test_an_even_draw_by_hash_takes_a_tenth_another_for_each_model() -> None:
    keys = np.arange(100_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    draws = [
        chosen(keys, Served("m", sha256(name).hexdigest(), 0, 0.1, 7)) for name in (b"a", b"b")
    ]
    for draw in draws:
        assert draw.mean() == pytest.approx(0.1, abs=0.005)
    assert (draws[0] & draws[1]).mean() == pytest.approx(0.01, abs=0.003)


def test_a_sabotaged_model_is_rolled_back_by_itself() -> None:
    """It claims nine times the demand and is sure of it; ten per cent of the shop find out."""
    world = shop()
    model = artefact("m-bad", **SABOTAGED)
    given(world, promoted(world, model, share=0.1), model, after_ms=2)
    asked = set(served(world))
    assert 0 < len(asked) < 0.25 * len(SKUS)
    days = [lived(world, 1) for _ in range(7)]
    ended = next(at for at, day in enumerate(days) if told(day))
    change = only(told([each for day in days for each in day]))
    assert (change.fields["model"], change.fields["stage"]) == ("m-bad", "rolled_back")
    assert change.fields["errors"]["with"] > change.fields["errors"]["without"] * (
        1.0 + ROLLBACK_DROP
    )
    assert ended <= 4, "before its days were over"
    assert served(world) == {}
    assert world.shard.models() == {}
    assert world.decided[-1].model != "m-bad"


def test_a_champion_that_decays_is_rolled_back_too() -> None:
    world = shop()
    model = artefact("m-bad", **SABOTAGED)
    given(world, promoted(world, model, stage="champion"), model, after_ms=2)
    assert set(served(world)) == set(SKUS)
    assert only(told(lived(world, 3))).fields["stage"] == "rolled_back"
    assert served(world) == {}


def test_a_canary_is_compared_with_the_champion_on_the_same_listings() -> None:
    """No worse than the stream, and much worse than the champion: it goes, the champion stays."""
    world = shop()
    good = artefact(level_sd=0.02)
    given(world, promoted(world, good, stage="champion"), good, after_ms=2)
    bad = artefact("m-2", **SABOTAGED)
    given(world, promoted(world, bad, share=0.5), bad, after_ms=2)
    assert set(served(world).values()) == {"m-1", "m-2"}
    change = only(told(lived(world, 4)))
    assert (change.fields["model"], change.fields["stage"]) == ("m-2", "rolled_back")
    assert served(world) == dict.fromkeys(SKUS, "m-1")


def test_a_rolled_back_models_prices_are_revised_at_once() -> None:
    """It asked for twice the price on flat demand; the day it goes its listings decide anew."""
    world = shop(decision_days=28)
    model = artefact("m-bad", elasticity=-1.05, elasticity_sd=0.02, **SABOTAGED)
    given(world, promoted(world, model, stage="champion"), model, after_ms=2)
    before = {sku: world.shard.learnt(world.key(sku)) for sku in SKUS}
    assert only(told(lived(world, 1))).fields["stage"] == "rolled_back"
    world.drain()
    after = {sku: world.shard.learnt(world.key(sku)) for sku in SKUS}
    assert all(after[sku]["decisions"] > before[sku]["decisions"] for sku in SKUS)  # type: ignore[index]


def missing(model: Artefact) -> tuple[Artefact, ...]:
    return ()


def of_numbers(model: Artefact, **changed: Any) -> tuple[Artefact, ...]:
    bad = artefact(model.version, **changed)
    return (Artefact(**{**fields(bad), "checksum": model.checksum}),)


def fields(model: Artefact) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.__struct_fields__}


FAULTS: dict[str, tuple[Callable[[Artefact], tuple[Artefact, ...]], str]] = {
    "missing or slow": (missing, MISSING),
    "another one": (lambda m: (Artefact(**{**fields(m), "version": "m-9"}),), "/model: the arte"),
    "a stranger's": (lambda m: (Artefact(**{**fields(m), "retailer": "bob"}),), "/model: the arte"),
    "no numbers": (lambda m: of_numbers(m, level=np.nan), "are no numbers"),
    "infinite": (lambda m: of_numbers(m, elasticity=-np.inf), "are no numbers"),
    "nonsense": (lambda m: of_numbers(m, elasticity=2.0), "are no numbers"),
    "too sure": (lambda m: of_numbers(m, elasticity_sd=0.0), "are no numbers"),
    "of nothing here": (
        lambda m: (Artefact(**{**fields(m), "keys": m.keys + np.uint64(1)}),),
        "none of the listings",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_serve_is_refused_and_prices_go_on_in_the_same_microbatch(fault: str) -> None:
    """The batch holds a new cost, too: it is answered as in a world that heard of no model."""
    make, reason = FAULTS[fault]
    decided = []
    for tried in (False, True):
        world = shop()
        model = artefact()
        world.now_ms += 60_000
        deltas: list[AnyDelta] = [world.cost(1100, sku) for sku in SKUS]
        batch = [promoted(world, model, command_id="c"), *deltas] if tried else deltas
        artefacts = make(model) if tried else ()
        of = world.shard.apply(
            batch_of(batch, after=world.shard), world.now_ms, Given(artefacts=artefacts)
        )
        world.shard.record(of)
        decided.append(of)
        assert served(world) == {}
    plain, with_fault = decided
    assert only(with_fault.outcomes).status == "refused"
    assert reason in only(with_fault.outcomes).detail
    assert len(plain.quotes) == len(SKUS)
    priced = [name for name in plain.quotes.dtype.names if not name.startswith("cause")]
    assert plain.quotes[priced].tolist() == with_fault.quotes[priced].tolist()
    assert with_fault.model == plain.model


def test_single_rows_that_are_no_numbers_are_priced_without_the_model() -> None:
    world = shop()
    level = np.full(len(SKUS), np.log(UNITS))
    level[3] = np.nan  # one of sixty is below a twentieth
    model = artefact(level=level)
    given(world, promoted(world, model, stage="champion"), model, after_ms=2)
    assert set(SKUS) - set(served(world)) == {SKUS[3]}
    lived(world, 8)
    assert all(world.price(sku) > 0 for sku in SKUS)


def test_a_model_moves_prices_towards_what_it_knows() -> None:
    """Where the stream knows little of elasticities, a sure model's are asked for."""
    flat, steep = shop(), shop()
    for world, elasticity in ((flat, -1.6), (steep, -6.0)):
        model = artefact(elasticity=elasticity, elasticity_sd=0.1)
        given(world, promoted(world, model, stage="champion"), model, after_ms=2)
        lived(world, 8)
    assert all(flat.price(sku) >= steep.price(sku) for sku in SKUS)
    assert np.mean([flat.price(sku) > steep.price(sku) for sku in SKUS]) > 0.75


def test_an_earlier_model_or_none_is_promoted_again() -> None:
    world = shop()
    first, second = artefact(), artefact("m-2", level_sd=0.3)
    given(world, promoted(world, first, stage="champion"), first, after_ms=2)
    given(world, promoted(world, second, stage="champion"), second, after_ms=2)
    assert set(served(world).values()) == {"m-2"}
    given(world, promoted(world, first, stage="champion"), first, after_ms=2)
    assert set(served(world).values()) == {"m-1"}
    given(world, world.whole(ModelPromoted, model="rules"), after_ms=2)
    assert served(world) == {}
    assert world.shard.models() == {}


def test_models_forget_a_listing_that_is_taken_off() -> None:
    """A fork made while no model serves knows nothing of it; so must who was there before."""
    world = shop()
    model = artefact()
    given(world, promoted(world, model, stage="champion"), model, after_ms=2)
    where = {"retailer": "acme", "channel": "shop", "sku": SKUS[3]}
    given(world, ListingRemoved(**where, observed_ms=world.now_ms + 1), after_ms=2)
    given(world, world.whole(ModelPromoted, model="rules"), after_ms=2)
    fork = world.shard.fork()
    world.now_ms += 2
    other = artefact("m-2")
    batch = batch_of([promoted(world, other, stage="champion")], after=world.shard)
    saved = []
    for shard in (world.shard, fork):
        shard.record(shard.apply(batch, world.now_ms, Given(artefacts=(other,))))
        shard.checkpoint_restart()
        saved.append(shard.checkpoint_close())
    assert saved[0] == saved[1]


def test_a_retailer_who_does_not_learn_gets_no_model() -> None:
    world = shop()
    model = artefact()
    given(world, promoted(world, model, stage="champion"), model, after_ms=2)
    world.send(world.policy(learning=False))
    assert world.shard.models() == {}
    refusal = only(given(world, promoted(world, model), model, after_ms=2).exceptions)
    assert "learning" in refusal.reason


@cache
def history() -> tuple[World, list[tuple[Any, Decided, tuple[Artefact, ...]]]]:
    """Return a world with a champion, a bad canary that goes, and a promotion that is missing."""
    world, good, bad = shop(), artefact(), artefact("m-bad", **SABOTAGED)
    batches: list[tuple[Any, Decided, tuple[Artefact, ...]]] = []
    for day in range(12):
        world.now_ms += DAY
        deltas, had, named = sales(world, 100 + day), (), ()
        if day == 1:
            deltas.append(promoted(world, good, stage="champion"))
            had = named = (good,)
        if day == 2:
            deltas.append(promoted(world, bad, share=0.4))
            had = named = (bad,)
        if day == 8:
            deltas.append(promoted(world, bad, share=0.4))
            named = (bad,)  # in time for the replay, not for the owner
        batch = batch_of(deltas, after=world.shard)
        decided = world.shard.apply(batch, world.now_ms, Given(artefacts=had))
        world.shard.record(decided)
        batches.append((batch, decided, named))
    stages = [change.fields["stage"] for change in told([decided for _, decided, _ in batches])]
    assert stages == ["champion", "canary", "rolled_back"]
    return world, batches


def test_replay_is_exact_through_promotions_and_rollbacks() -> None:
    world, batches = history()
    again = shop()
    for batch, decided, named in batches:
        assert again.shard.replay(batch, decided, named) is Agreement.EXACT
    assert again.shard.digest == world.shard.digest
    assert again.shard.models() == world.shard.models()


@pytest.mark.parametrize("after", [1, 3, 9])
def test_a_checkpoint_holds_what_models_say(after: int) -> None:
    """No artefact is needed to start: what models predict lies in the checkpoint's rows."""
    world, batches = history()
    half = shop()
    for batch, decided, named in batches[:after]:
        half.shard.replay(batch, decided, named)
    parts = [half.shard.checkpoint_close()]
    for stored in (parts, merge_parts(parts)):
        restored = Shard.restore(stored)
        for batch, decided, named in batches[after:]:
            assert restored.replay(batch, decided, named) is Agreement.EXACT
        assert restored.digest == world.shard.digest


def test_an_artefact_that_is_not_what_was_named_is_none() -> None:
    model = artefact()
    value = encode_artefact("m-1", "acme", KEYS, model.predictions)
    checksum = sha256(value).hexdigest()
    again = read_artefact(value, checksum)
    assert again.keys.tolist() == sorted(KEYS.tolist())
    assert sound(again.predictions).all()
    for bad in (b"", value[:-1], value[1:], bytes([*value[:-1], value[-1] ^ 1])):
        with pytest.raises(RejectedInput, match="checksum"):
            read_artefact(bad, checksum)
        with pytest.raises(RejectedInput):
            cut = bad[:-1]
            read_artefact(cut, sha256(cut).hexdigest())
