"""Checkpoints hold all of a shard, in slices, increments and merged bases; gateways read them."""

import subprocess
import sys

import msgspec
import numpy as np
import pytest

from engine import listing_table, memory, texts, timers
from engine.checkpoint import FORMAT, Part, check_part, layout, merge_parts, read_catalogue
from engine.decided import State
from engine.deltas import ListingRemoved, PublishingHalted
from engine.errors import CorruptCheckpoint, IncompatibleCheckpoint
from engine.replay import Agreement
from engine.room import grown
from engine.shard import Shard
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, World


def busy(listings: int = 40) -> World:
    world = World()
    world.send(*(world.listing(f"S{n}", kvi=True, category="c") for n in range(listings)))
    world.send(*(world.rival(1500 + n, sku=f"S{n}", source="a") for n in range(listings)))
    world.send(world.sold(1, "S1", event_id="e"), world.about(ListingRemoved, "S2"))
    world.send(world.policy(scope="category", key="c", min_margin=0.2))
    return world


def whole(shard: Shard) -> bytes:
    """Return everything a shard is, as one part."""
    shard.checkpoint_restart()
    return shard.checkpoint_close()


def test_listings_are_counted_without_those_taken_off() -> None:
    shard = busy().shard
    assert shard.listings == 39
    assert Shard.restore([whole(shard)]).listings == 39


def test_a_restored_table_makes_room_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many parts it comes in."""
    shard = busy(1100).shard
    slices = []
    while (part := shard.checkpoint_slice(rows_max=16)) is not None:
        slices.append(part)
    parts = [*slices, shard.checkpoint_close()]
    assert len(parts) > 60
    made: list[int] = []

    def counted(array: np.ndarray, rows: int = 0) -> np.ndarray:
        made.append(rows)
        return grown(array, rows)

    for module in (listing_table, memory, texts, timers):
        monkeypatch.setattr(module, "grown", counted)
    restored = Shard.restore(parts)
    assert restored.listings == 1099
    assert made and min(made) >= 1100
    monkeypatch.undo()
    assert whole(restored) == whole(shard)


def test_slices_hold_only_what_changed_and_close_the_rest() -> None:
    world = busy()
    shard = world.shard
    slices = [shard.checkpoint_slice(rows_max=16), shard.checkpoint_slice(rows_max=16)]
    assert None not in slices
    world.send(world.cost(1100, "S0"))  # after its copy
    assert shard.checkpoint_slice(rows_max=16) is None  # nine rows are left for the close
    parts = [part for part in slices if part is not None] + [shard.checkpoint_close()]
    assert [len(msgspec.msgpack.decode(part, type=Part).texts) for part in parts] == [16, 16, 9]
    assert whole(Shard.restore(parts)) == whole(shard)


def test_an_increment_is_small_and_adds_up() -> None:
    world = busy()
    base = [world.shard.checkpoint_close()]
    world.send(world.cost(1100, "S0"), world.sold(1, "S1", event_id="f"))
    increment = [world.shard.checkpoint_close()]
    part = msgspec.msgpack.decode(increment[0], type=Part)
    assert len(part.texts) == 2
    restored = Shard.restore([*base, *increment])
    assert whole(restored) == whole(world.shard)
    decided = restored.apply(
        batch_of([world.sold(1, "S1", event_id="e")], after=restored), world.now_ms
    )
    assert decided.exceptions[0].verdict == "duplicate"


def test_a_merged_base_says_the_same() -> None:
    world = busy()
    parts = [world.shard.checkpoint_close()]
    for cost in (1100, 1200):
        world.send(world.cost(cost, "S3"))
        parts.append(world.shard.checkpoint_close())
    merged = merge_parts(parts)
    assert whole(Shard.restore(merged)) == whole(world.shard)
    assert merge_parts(merged) == merged


def test_work_that_waits_survives() -> None:
    """The backlog, timers, held moves and windows of the breaker are in the checkpoint, too."""
    world = World()
    world.send(world.policy(step_max=1.0))
    count = 4200
    for start in range(0, count, 4000):
        stop = min(start + 4000, count)
        world.send(*(world.listing(f"S{n}") for n in range(start, stop)))
    world.send(world.whole(PublishingHalted, channel="shop"))
    assert world.shard.backlog == 104
    twin = Shard.restore([world.shard.checkpoint_close()])
    assert twin.backlog == 104
    for now_ms in (world.now_ms + 1, world.now_ms + DAY):
        batch = batch_of([], after=world.shard)
        decided = world.shard.apply(batch, now_ms)
        world.shard.record(decided)
        assert twin.replay(batch, decided) is Agreement.EXACT
    assert twin.backlog == 0


def test_a_tombstone_survives_and_is_reused_alike() -> None:
    world = busy()
    twin = Shard.restore([world.shard.checkpoint_close()])
    for delta in (world.listing("NEW"), world.listing("NEWER")):
        batch = batch_of([delta], after=world.shard)
        decided = world.shard.apply(batch, world.now_ms + 2 * DAY)
        world.shard.record(decided)
        assert twin.replay(batch, decided) is Agreement.EXACT
    assert whole(twin) == whole(world.shard)


@pytest.mark.parametrize("change", [{"format": FORMAT - 1}, {"layout": b"12345678"}])
def test_another_version_is_refused_by_name_before_anything_is_read(
    change: dict[str, object],
) -> None:
    part = msgspec.msgpack.decode(busy().shard.checkpoint_close(), type=Part)
    plain = msgspec.to_builtins(msgspec.structs.replace(part, **change), builtin_types=(bytes,))
    plain["small"] = {"of": "another build"}
    other = msgspec.msgpack.encode(plain)
    for refuse in (check_part, lambda part: Shard.restore([part])):
        with pytest.raises(IncompatibleCheckpoint) as refused:
            refuse(other)
        said = str(refused.value.of("0001-base.checkpoint"))
        found = f"format {plain['format']} of layout {plain['layout'].hex()}"
        assert said.startswith(f"checkpoint 0001-base.checkpoint: it is of {found}, ")
        assert f"this version reads format {FORMAT} of layout {layout().hex()}; start" in said


def test_what_cannot_be_read_is_refused() -> None:
    part = msgspec.msgpack.decode(busy().shard.checkpoint_close(), type=Part)
    rows_only = msgspec.msgpack.encode(msgspec.structs.replace(part, kind="rows"))
    for parts in ([rows_only], [b"\xc1"], []):
        with pytest.raises(CorruptCheckpoint) as refused:
            Shard.restore(parts)
        assert not isinstance(refused.value, IncompatibleCheckpoint)


def test_a_build_that_remembers_another_thing_has_another_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part's small state is named, so that no build finds a field missing halfway."""
    part = busy().shard.checkpoint_close()
    less = msgspec.defstruct("Small", [("rows", int)])
    monkeypatch.setattr("engine.checkpoint.Small", less)
    with pytest.raises(IncompatibleCheckpoint):
        check_part(part)


def test_a_gateway_reads_the_catalogue() -> None:
    world = busy()
    world.send(world.whole(PublishingHalted, channel="shop"), after_ms=HOUR)
    catalogue = read_catalogue([world.shard.checkpoint_close()])
    assert catalogue.mark["seq"] == world.shard.seq
    assert len(catalogue.listings) == 39
    first = catalogue.listings[0]
    assert (first.retailer, first.fields["sku"], first.fields["kvi"]) == ("acme", "S0", True)
    assert first.quote is not None
    assert first.quote["state"].tolist() == [State.HALTED]
    assert (first.quote_seq, first.quote_index) == tuple(world.live("S0")["quote"])
    retailer = catalogue.retailers[0]
    assert (retailer.retailer, retailer.halted, retailer.halted_channels) == (
        "acme",
        False,
        ("shop",),
    )
    assert retailer.fields["mode"] == "live"
    assert catalogue.policies == (("acme", "category", "c", 0, {"min_margin": 0.2}),)


def test_a_brand_is_kept_and_one_that_was_not_told_takes_no_byte() -> None:
    world = World()
    world.send(world.listing("A", brand="Rossi"), world.listing("B"))
    world.send(world.listing("A", category="juice"))  # what is left out keeps its value
    part = world.shard.checkpoint_close()
    named, plain = read_catalogue([part]).listings
    assert (named.fields["brand"], named.fields["category"]) == ("Rossi", "juice")
    assert "brand" not in plain.fields
    texts = msgspec.msgpack.decode(part, type=Part).texts
    assert msgspec.msgpack.decode(texts[1]) == ["shop", "B", "", "", []]  # as before brands
    twin = Shard.restore([part])
    assert twin._memory.listings.text(0).brand == "Rossi"
    decided = world.send(world.listing("A", brand="Bianchi"))
    (change,) = decided.catalogue
    assert change.fields["brand"] == "Bianchi"


def test_reading_a_checkpoint_imports_no_jax() -> None:
    code = "import sys, engine.checkpoint; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
