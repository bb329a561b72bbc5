"""What ``docs/producing.md`` tells a producer to send is taken as it stands."""

import json
import re
from pathlib import Path
from typing import get_args

import msgspec

from engine.deltas import AnyDelta
from engine.routing import partition_of, routing_key
from persistence.ports import Record
from persistence.wire import EVERY_SHARD, JSON, Decoder

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "producing.md").read_text()
LINES = re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)
BY_PEOPLE = {
    *("PriceApproved", "PriceRejected", "PricePinned", "PriceUnpinned", "PublishingHalted"),
    *("PublishingResumed", "PlanApplied", "ModelPromoted", "ExperimentStarted"),
    *("ExperimentStopped", "PromotionScheduled"),
}
"""Given by a route or a verb, or not built yet."""


def record(place: int, key: bytes, line: str) -> Record:
    return Record(offset=place, appended_ms=0, key=key, value=line.encode(), content_type=JSON)


def test_every_delta_of_the_page_is_taken_under_the_key_that_it_names() -> None:
    for spread in (1, 4):
        for place, line in enumerate(LINES):
            sku = json.loads(line).get("sku")
            key = "acme" if spread == 1 else "*"
            if sku is not None:
                key = routing_key("acme", sku, spread)
            shard = 3 if key == EVERY_SHARD.decode() else partition_of(key, 8)
            decoder = Decoder(shard, 8, {"acme": spread})
            batch = decoder.decode(
                [], [record(place, key.encode(), line)], last_command=-1, last_delta=-1
            )
            assert (batch.deltas, batch.refusals) == (1, ()), line


def test_the_page_shows_every_kind_of_delta_that_a_shop_sends_with_all_its_fields() -> None:
    shown = {json.loads(line)["type"]: json.loads(line) for line in LINES}
    kinds = {kind.__name__: kind for kind in get_args(AnyDelta)}
    assert shown.keys() == kinds.keys() - BY_PEOPLE
    left_out = {"command_id", "actor", "event_id", "spread", "delta_quota_per_s", "priority"}
    for name, delta in shown.items():
        fields = {field.name for field in msgspec.structs.fields(kinds[name])}
        assert fields - left_out == delta.keys() - {"type"}, name
