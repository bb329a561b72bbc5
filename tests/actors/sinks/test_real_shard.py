"""All sinks behind a real shard: what it decides can be written, and says what people ask for."""

from pathlib import Path

import pytest

from actors.sinks.cache import PriceCache, cached_price, opening_at_checkpoint
from actors.sinks.dead_letters import DeadLetters
from actors.sinks.history import History
from actors.sinks.ledger import PriceLedger
from actors.sinks.log_summary import LogSummary, summarize_log
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    ListingRemoved,
    PolicyChanged,
    PricePinned,
    PublishingHalted,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.shard import Shard
from persistence.checkpoints import CheckpointFiles, Increment
from persistence.decision_records import CONTENT_TYPE, DecisionRecord, encode
from persistence.memory_cache import MemoryCache
from persistence.ports import COMMANDS, DECISIONS, DELTAS
from persistence.sqlite_series import SqliteSeries
from persistence.sqlite_tables import SqliteTables
from persistence.wire import Decoder, encode_delta
from tests.actors.sinks.recorded import RecordedShard, follow
from tests.engine.builders import HOUR, T, World

WHERE = {"retailer": "acme", "channel": "shop"}


class RealShard(RecordedShard):
    """Recorded logs whose decisions a real shard makes."""

    def begin(self) -> None:
        self.owner = Shard()
        self.decoder = Decoder(0, 1, {})
        self.now_ms = T

    async def run(self, *deltas: AnyDelta | bytes, after_ms: int = 1000) -> None:
        """Send the deltas, those with a command id as commands, and have them decided."""
        for delta in deltas:
            value = delta if isinstance(delta, bytes) else encode_delta(delta)
            lane = 0 if getattr(delta, "command_id", None) else 1
            await self.send(lane, value)
        self.now_ms += after_ms
        read = []
        for topic, after in ((COMMANDS, self.owner.last_command), (DELTAS, self.owner.last_delta)):
            log = await self.logs.open(topic, 0)
            read.append(await log.read(after, limit=10_000, wait_ms=0))
        batch = self.decoder.decode(
            *read, last_command=self.owner.last_command, last_delta=self.owner.last_delta
        )
        decided = self.owner.apply(batch, self.now_ms)
        log = await self.logs.open(DECISIONS, 0)
        record = encode(DecisionRecord(self._stamp, decided))
        await (await log.appender()).append(record, content_type=CONTENT_TYPE)
        self.owner.record(decided)


@pytest.fixture
async def real() -> RealShard:
    """Return the logs of a shard that saw every sort of thing."""
    real = RealShard(generation=3)
    await real.open()
    await real.begin_epoch()
    real.begin()
    world = World()
    await real.run(RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=T))
    await real.run(
        *(world.listing(f"S{number}", title="Thing", brand="Rossi") for number in range(12))
    )
    place = {**WHERE, "sku": "S0"}
    at = T + 5_000
    await real.run(
        *(
            CompetitorPriced(**WHERE, sku=f"S{n}", rival="bob", price_minor=1900, observed_ms=at)
            for n in range(12)
        ),
        StockCounted(**place, units=5, observed_ms=at),
        UnitsSold(**place, units=2, event_id="e1", observed_ms=at),
        UnitsSold(**place, units=2, event_id="e1", observed_ms=at),
        CompetitorPriced(**place, rival="eve", price_minor=1, observed_ms=at),
        CompetitorPriced(**{**place, "sku": "unknown"}, rival="b", price_minor=9, observed_ms=at),
        b"{not json",
    )
    await real.run(
        PolicyChanged(
            retailer="acme",
            scope="retailer",
            fields={"approval": "manual"},
            observed_ms=at,
            command_id="c1",
            actor="ann",
        ),
        after_ms=HOUR,
    )
    await real.run(
        *(
            CompetitorPriced(
                **WHERE, sku=f"S{n}", rival="bob", price_minor=1800, observed_ms=at + HOUR
            )
            for n in range(12)
        ),
        after_ms=HOUR,
    )
    await real.run(
        PricePinned(**place, price_minor=1777, observed_ms=at, command_id="c2", actor="bob")
    )
    await real.run(
        ListingRemoved(**{**WHERE, "sku": "S1"}, observed_ms=real.now_ms),
        PublishingHalted(
            retailer="acme", reason="fire", observed_ms=at, command_id="c3", actor="ann"
        ),
    )
    await real.run()
    return real


async def told_by(real: RealShard) -> LogSummary:
    log = await real.logs.open(DECISIONS, 0)
    return await summarize_log(log, real.lanes, shard=0, generation=3)


async def test_the_ledger_and_its_words(real: RealShard, tmp_path: Path) -> None:
    tables = SqliteTables(tmp_path / "ledger.sqlite")
    ledger = await follow(real, lambda: PriceLedger(tables, generation=3), batch=2)
    told, held = await told_by(real), await ledger.summary(0)
    assert held.prices == told.prices
    assert held.seq == told.seq - 1  # the last one is a heartbeat, which may wait
    assert told.prices.rows > 12
    assert held.audit >= told.outcomes == 3
    products = await tables.fetch("select * from products order by sku")
    assert len(products) == 12
    assert [row["sku"] for row in products if row["removed_ms"] is not None] == ["S1"]
    assert {(row["title"], row["brand"]) for row in products} == {("Thing", "Rossi")}
    assert all(row["quote_id"] for row in products)
    (retailer,) = await tables.fetch("select * from retailers")
    assert (retailer["mode"], retailer["halted"], retailer["halt_reason"]) == ("live", 1, "fire")
    (policy,) = await tables.fetch("select * from policies")
    assert (policy["scope"], policy["actor"]) == ("retailer", "ann")
    (approval,) = await tables.fetch("select * from approvals")
    assert (approval["kind"], approval["actor"]) == ("PricePinned", "bob")
    moved = await tables.fetch(
        "select p.sku, h.in_force_minor, h.command_id"
        " from price_history h join products p on p.listing = h.listing where h.actor = 'bob'"
    )
    assert moved == [{"sku": "S0", "in_force_minor": 1777, "command_id": "c2"}]
    await tables.close()


async def test_history_and_dead_letters(real: RealShard, tmp_path: Path) -> None:
    series = SqliteSeries(tmp_path / "history.sqlite")
    history = await follow(real, lambda: History(series, real.lanes, generation=3), batch=2)
    told, held = await told_by(real), await history.summary(0)
    assert (held.prices, held.facts) == (told.prices, told.facts)
    sold = await series.fetch("select sum(units) as units from sales_metrics")
    assert sold == [{"units": 2}]
    letters = await follow(
        real, lambda: DeadLetters(real.logs, real.lanes, tmp_path, generation=3), batch=2
    )
    counted = await letters.summary(0)
    assert counted.letters == told.letters
    assert counted.by_verdict == told.by_verdict
    assert {"duplicate", "unknown_listing", "undecodable"} <= set(counted.by_verdict)
    await series.close()


async def test_the_cache_from_the_log_and_from_a_checkpoint(
    real: RealShard, tmp_path: Path
) -> None:
    cache = MemoryCache()
    sink = await follow(real, lambda: PriceCache(cache, generation=3), batch=2)
    assert (await sink.summary(0)).unnamed == 0
    price = await cached_price(cache, "acme", "shop", "S2")
    assert price is not None
    assert (price.retailer, price.currency, price.state) == ("acme", "EUR", "halted")
    files = CheckpointFiles(tmp_path / "checkpoints")
    last = (await real.accepted())[-1]
    owner = real.owner
    slices = []
    while (part := owner.checkpoint_slice()) is not None:
        slices.append(part)
    await files.save(
        Increment(
            shard=0,
            generation=3,
            position=last.position,
            last_command=owner.last_command,
            last_delta=owner.last_delta,
            decided_ms=owner.decided_ms,
            digest=owner.digest,
            replay_domain="test",
            parent="",
            parts=(*slices, owner.checkpoint_close()),
        )
    )
    log = await real.logs.open(DECISIONS, 0)
    opening = await opening_at_checkpoint(files, log, shard=0, generation=3)
    assert opening is not None
    assert opening.position == last.position
    assert {named.sku for named in opening.listings.values()} == {
        f"S{number}" for number in range(12) if number != 1
    }
    empty = CheckpointFiles(tmp_path / "none")
    assert await opening_at_checkpoint(empty, log, shard=0, generation=3) is None
