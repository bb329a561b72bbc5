"""The gateway's way to the owners, while these come and go."""

from pathlib import Path
from typing import cast

import pytest

from cluster import serving
from cluster.control import ControlClient
from cluster.owner import OwnerCard
from cluster.serving import OwnerReads, server_settings
from cluster.settings import load
from engine.errors import FailedDependency


async def test_a_card_that_vanishes_is_an_owner_that_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the folder may find the card named and gone; that is no fault of ours."""

    def vanishing(run_folder: Path) -> list[OwnerCard]:
        raise FileNotFoundError(run_folder / "owners" / "shard-000-0001.json")

    monkeypatch.setattr(serving, "owner_cards", vanishing)
    settings = load({"folder": str(tmp_path)}, environment={})
    reads = OwnerReads(settings, cast(ControlClient, None))
    with pytest.raises(FailedDependency, match="ask again"):
        await reads.ask(0, 1, 100)
    with pytest.raises(FailedDependency, match="ask again"):
        await reads.features(0, [1], 100, False)
    with pytest.raises(FailedDependency, match="ask again"):
        await reads.live_facts(0, 1, 100)


def test_a_gateway_is_told_by_what_its_owners_tell_time() -> None:
    """It hears of it in the log only after the first start, which may be minutes old."""
    for clock in ("wall", "event"):
        told = server_settings(load({"shards": {"clock": clock}}, environment={}))
        assert told.clock == clock
