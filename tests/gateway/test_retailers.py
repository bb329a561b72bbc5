"""What the gateway knows of a retailer who is spread over several shards."""

from engine.decided import CatalogueChange
from engine.microbatch import Position
from gateway.retailers import Retailer, change_retailer

COMMAND = Position(0, 1, 0)


def told(retailer: Retailer, shard: int, what: str, **fields: object) -> None:
    change_retailer(shard, retailer, CatalogueChange(COMMAND, what, retailer.id, fields))


def test_a_halt_stands_until_every_shard_has_resumed() -> None:
    retailer = Retailer("acme")
    for shard in (0, 1):
        told(retailer, shard, "halt", channel=None, reason="a wrong feed")
        told(retailer, shard, "halt", channel="web", reason="a sale")
    told(retailer, 0, "resume")
    assert retailer.halts == {(1, ""): "a wrong feed", (1, "web"): "a sale"}
    told(retailer, 1, "resume", channel="web")
    assert retailer.halts == {(1, ""): "a wrong feed"}
    told(retailer, 1, "resume")
    assert not retailer.halts


def test_a_mode_is_that_of_all_shards_or_mixed() -> None:
    retailer = Retailer("acme")
    assert retailer.mode == "shadow"
    for shard in (0, 1):
        told(retailer, shard, "retailer", mode="shadow")
    told(retailer, 1, "mode", mode="live")
    assert (retailer.mode, retailer.modes) == ("mixed", {0: "shadow", 1: "live"})
    told(retailer, 0, "mode", mode="live")
    assert retailer.mode == "live"
    told(retailer, 1, "retailer", name="Acme")
    assert retailer.mode == "live", "what a change does not name stays"


def test_a_channel_that_resumes_leaves_the_others_and_the_breaker() -> None:
    retailer = Retailer("acme")
    told(retailer, 0, "halt", channel="web", reason="a sale")
    told(retailer, 0, "halt", channel="shop", reason="a sale")
    told(retailer, 0, "breaker", reasons=["moved"])
    told(retailer, 0, "resume", channel="web")
    assert retailer.halts == {(0, "shop"): "a sale"}
    assert retailer.breakers
    told(retailer, 0, "resume")
    assert not retailer.breakers
