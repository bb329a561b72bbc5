"""A fault that cannot be done ends the storm: it is not the one that was asked for."""

from pathlib import Path
from typing import Any, cast

import pytest

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


async def test_what_went_wrong_while_nobody_waited_is_raised(tmp_path: Path) -> None:
    site: Any = Bare(tmp_path)
    injuries = Injuries(cast(Site, site), lambda shard: 0)
    fault = Fault(number=0, kind="disk", target="folder", seconds=0.1)
    await injuries.strike(fault)
    with pytest.raises(OSError, match="cannot be filled"):
        await injuries.over()
    with pytest.raises(OSError, match="cannot be filled"):
        await injuries.strike(fault)
