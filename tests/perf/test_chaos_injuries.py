"""How faults are done: a clock is wrong for a while, and what cannot be done ends the storm."""

from pathlib import Path
from typing import Any, cast

import pytest

from actors.clock import WallClock
from cluster.trial import CLOCKS_VARIABLE, gateway_clock, make_clocks
from perf.chaos.injuries import Injuries
from perf.chaos.plan import Fault
from perf.chaos.site import Disk, Site


class Refusing(Disk):
    """A disk that cannot be filled."""

    def fill(self) -> int:
        raise OSError("it cannot be filled")


class Bare:
    """What injuries to a disk need of a site."""

    shards = 1

    def __init__(self, folder: Path) -> None:
        self.disks = {"folder": Refusing(folder)}
        self.clocks = folder / "clocks"
        make_clocks(self.clocks, self.shards)

    def clock_place(self, target: str) -> int:
        return Site.clock_place(cast(Site, self), target)

    def process(self, target: str) -> str:
        return f"{target} lives"


async def test_the_gateways_clock_is_wrong_and_right_again(tmp_path: Path) -> None:
    site: Any = Bare(tmp_path)
    clock = gateway_clock(1, {CLOCKS_VARIABLE: str(site.clocks)})
    injuries = Injuries(cast(Site, site), lambda shard: 0)

    def wrong_ms() -> int:
        return round((clock.wall_ms() - WallClock().wall_ms()) / 8_000) * 8_000

    began_ms = WallClock().wall_ms()
    fault = Fault(number=0, kind="clock", target="gateway", how="-8000", seconds=300)
    struck = await injuries.strike(fault)
    assert wrong_ms() == -8_000
    assert injuries.clock_behind("gateway", began_ms, WallClock().wall_ms())
    assert not injuries.clock_behind("owner:0", began_ms, WallClock().wall_ms())
    await injuries.heal()
    assert wrong_ms() == 0
    assert injuries.clock_behind("gateway", began_ms, began_ms + 60_000)
    assert not injuries.clock_behind("gateway", struck.over_ms + 1, struck.over_ms + 2)
    ahead = Fault(number=1, kind="clock", target="gateway", how="8000", seconds=300)
    await injuries.strike(ahead)
    assert wrong_ms() == 8_000
    behind = injuries.struck.pop(0)
    assert behind.fault is fault
    assert not injuries.clock_behind("gateway", began_ms, WallClock().wall_ms())
    await injuries.heal()
    assert wrong_ms() == 0


async def test_what_went_wrong_while_nobody_waited_is_raised(tmp_path: Path) -> None:
    site: Any = Bare(tmp_path)
    injuries = Injuries(cast(Site, site), lambda shard: 0)
    fault = Fault(number=0, kind="disk", target="folder", seconds=0.1)
    await injuries.strike(fault)
    with pytest.raises(OSError, match="cannot be filled"):
        await injuries.over()
    with pytest.raises(OSError, match="cannot be filled"):
        await injuries.strike(fault)
