"""The engine and a rule of three numbers end in the same table, or no ratio may be printed."""

import json

import numpy as np
import pytest

from actors.clock import decision_ms
from engine.routing import key64
from engine.shard import Shard
from perf.workload import (
    CHANNEL,
    RIVALS,
    START_MS,
    Workload,
    WorkloadSettings,
    rule,
    table_sha256,
)
from persistence.ports import Record
from persistence.wire import FRAME, JSON, Decoder, encode_delta

SETTINGS = WorkloadSettings(events=6_000, listings=500, partitions=2, seed=7)


def decided_prices(work: Workload, batch: int, wire: str = JSON) -> dict[str, int]:
    """Let a shard for each partition decide the work from its wire, ``batch`` records at once."""
    settings = work.settings
    skus = {
        key64(work.retailers[work.partition(listing)], CHANNEL, work.sku(listing)): work.sku(
            listing
        )
        for listing in range(settings.listings)
    }
    prices: dict[str, int] = {}
    for partition in range(settings.partitions):
        key = work.retailers[partition].encode()
        values = [encode_delta(delta) for delta in work.opening(partition)]
        opening = len(values)
        feed = work.messages() if wire == JSON else work.frames()
        values += [value for at, _, value in feed if at == partition]
        records = [
            Record(offset, 0, key, value, wire if offset >= opening else JSON)
            for offset, value in enumerate(values)
        ]
        shard, decoder = Shard(), Decoder(partition, settings.partitions, {})
        for begin in range(0, len(records), batch):
            cut = records[begin : begin + batch]
            microbatch = decoder.decode([], cut, last_command=-1, last_delta=cut[-1].offset)
            now_ms = decision_ms("event", previous_ms=shard.decided_ms, wall_ms=0, batch=microbatch)
            decided = shard.apply(microbatch, now_ms)
            shard.record(decided)
            assert not decided.exceptions, decided.exceptions[:3]
            for quote in decided.quotes:
                prices[skus[int(quote["listing"])]] = int(quote["in_force_minor"])
    return prices


@pytest.mark.parametrize("batch", [64, 2048])
def test_the_engine_decides_what_the_rule_says(batch: int) -> None:
    """However it is cut: with the same prices for every listing, hence the same sum."""
    work = Workload(SETTINGS)
    ours = decided_prices(work, batch)
    assert ours == work.final_prices()
    assert table_sha256(ours) == table_sha256(work.final_prices())


def test_frames_hold_the_same_work() -> None:
    """So what a peer takes by JSON may be compared with what ours takes by frames."""
    work = Workload(SETTINGS)
    assert decided_prices(work, 64, FRAME) == work.final_prices()


@pytest.mark.parametrize(
    "mutate",
    [
        lambda target, floor, rival: max(floor, min(target, rival * 98 // 100 + 1)),
        lambda target, floor, rival: max(floor + 1, min(target, rival * 98 // 100)),
        lambda target, floor, rival: max(floor, rival * 98 // 100),
        lambda target, floor, rival: min(target, rival * 98 // 100),
    ],
    ids=["dearer by a cent", "another floor", "no target", "no floor"],
)
def test_another_rule_ends_in_another_table(mutate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work exercises every part of the rule, so whoever leaves one out is found."""
    work = Workload(SETTINGS)
    right = table_sha256(work.final_prices())
    monkeypatch.setattr("perf.workload.rule", mutate)
    assert table_sha256(work.final_prices()) != right


def test_a_lost_or_swapped_message_ends_in_another_table() -> None:
    """The last price of each rival counts, and the lowest of them: order and completeness show."""
    work = Workload(SETTINGS)
    right = table_sha256(work.final_prices())
    listings, _, prices = work._feed
    prices[-1] = prices[-1] // 2
    assert table_sha256(work.final_prices()) != right
    again = Workload(SETTINGS)
    assert table_sha256(again.final_prices(stop=SETTINGS.events // 2)) != right
    listings, rivals, prices = again._feed
    for column in (listings, rivals, prices):
        column[:] = column[::-1].copy()
    assert table_sha256(again.final_prices()) != right


def test_the_feed_is_what_it_says() -> None:
    work = Workload(SETTINGS)
    messages = list(work.messages())
    assert messages == list(Workload(SETTINGS).messages()), "a seed repeats its feed"
    assert len(messages) == SETTINGS.events
    assert {partition for partition, _, _ in messages} == {0, 1}
    documents = [json.loads(value) for _, _, value in messages]
    assert {document["rival"] for document in documents} == set(RIVALS)
    times = [document["observed_ms"] for document in documents]
    assert times[0] > START_MS
    assert times == sorted(set(times))
    counts = np.sort(np.bincount([int(document["sku"]) for document in documents]))[::-1]
    assert counts[0] > 4 * counts[9] > 0, "a few listings hear most of it"
    assert rule(100, 60, 0) == 100
