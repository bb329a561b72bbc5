"""``chaos``: the doubts that an operator may have on his own hardware.

``perf`` doubts ``cluster`` and imports it; nothing imports ``perf``. So the verb becomes that
program instead of calling it: the same process, so that Ctrl-C reaches whoever has to tidy up.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engine.errors import SettingsRefused

PROGRAM = "perf.chaos"


def chaos(
    *,
    seed: Annotated[int, Parameter(help="chooses faults and targets; the same seed, the same")] = 1,
    faults: Annotated[int, Parameter(help="end after so many that hit; default 60")] = 0,
    minutes: Annotated[float, Parameter(help="or after so many minutes of storm")] = 0.0,
    only: Annotated[
        str, Parameter(help="kinds, by commas: kill, pause, cut, disk, clock, ray; default: all")
    ] = "",
    pace: Annotated[float, Parameter(help="seconds between two faults, on average")] = 5.0,
    shards: Annotated[int, Parameter(help="how many to run")] = 2,
    standby: Annotated[
        bool, Parameter(negative="", help="keep a warm successor of every shard")
    ] = False,
    learning: Annotated[
        bool, Parameter(negative="", help="retailers learn, and a day passes in 40 seconds")
    ] = False,
    head_down_s: Annotated[
        float, Parameter(help="first keep Ray's head dead for so many seconds")
    ] = 0.0,
    report: Annotated[
        Path | None, Parameter(help="where the report is written, HTML and JSON; default: here")
    ] = None,
    keep: Annotated[
        Path | None, Parameter(help="keep the logs in this folder instead of removing them")
    ] = None,
    json: Annotated[bool, Parameter(negative="", help="answer in JSON on standard output")] = False,
) -> int:
    """Break a whole stack of its own on purpose, and judge what everybody was told.

    Starts real Kafka, Postgres, QuestDB and Redis and an engine on them, in a temporary folder;
    touches nothing that runs already, and leaves nothing behind. Exits 0 when every rule held.
    """
    words = ["--seed", str(seed), "--pace", str(pace), "--shards", str(shards)]
    words += ["--faults", str(faults)] if faults else []
    words += ["--minutes", str(minutes)] if minutes else []
    words += ["--only", only] if only else []
    words += ["--standby"] if standby else []
    words += ["--learning"] if learning else []
    words += ["--head-down-s", str(head_down_s)] if head_down_s else []
    words += ["--report", str(report)] if report is not None else []
    words += ["--keep", str(keep)] if keep is not None else []
    words += ["--json"] if json else []
    become(PROGRAM, words)
    return 0


def become(program: str, words: list[str]) -> None:
    """Turn this process into a program of ours.

    Raises:
        SettingsRefused: it is not installed.
    """
    try:
        found = importlib.util.find_spec(program)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise SettingsRefused(
            f"{program} is not installed here: install the extra, `pip install 'repricer[perf]'`, "
            "or run from a checkout"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", program, *words])
