"""A run as one line of JSON: the verdict, what was judged, and how everything fared."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from perf.chaos.checker import Checker
from perf.chaos.learning import counted, learning_in_words
from perf.chaos.plan import KINDS, hits
from perf.chaos.run import Told, Wish

EXAMPLE_CHARACTERS: Final = 1_500

EFFECTS: Final = (
    "quotes while halted",
    "quotes while pinned",
    "quotes while approvals are manual",
    "approvals in force",
)
"""What commands did, as later quotes show it, and how often that was judged."""


def fired(told: Told) -> Counter[str]:
    """Return how many faults of each kind hit something."""
    return Counter(each.fault.kind for each in told.struck if each.fired)


def summary(
    told: Told, *, left: int | None, stamp: Mapping[str, Any] | None = None, ended: str = ""
) -> dict[str, Any]:
    """Return the run as one line of JSON.

    Args:
        told: everything that was heard.
        left: processes that the engine left behind; ``None``: nobody counted them.
        stamp: of the machine.
        ended: why the run ended before its time; then there is no verdict but on what was judged.
    """
    checker, gateway, wish = told.checker, told.gateway, told.wish
    by_target = Counter(
        f"{each.fault.kind} {each.fault.target}" for each in told.struck if each.fired
    )
    reads = gateway.counts
    learning = told.end.get("learning", {})
    if wish.learning:
        learning = counted(checker.truths) | learning
    verdict = "broken" if checker.broken else "holds"
    if ended and not checker.broken:
        verdict = "ended early"
    return {
        "verdict": verdict,
        **({"ended": ended} if ended else {}),
        "seed": wish.seed,
        "again": command_of(wish),
        "faults": sum(fired(told).values()),
        "fired": dict(fired(told)),
        "hits": hits(each.fault for each in told.struck if each.fired),
        "fired_by_target": dict(sorted(by_target.items())),
        "missed": sum(not each.fired for each in told.struck),
        "left_out": told.left_out,
        "seconds": round(max(told.over_ms - told.storm_ms, 0) / 1000, 1),
        "broken": dict(checker.broken),
        "violations": examples(checker),
        "judged": dict(checker.judged),
        "decisions": [truth.decisions for truth in checker.truths],
        "reigns": [truth.reigns for truth in checker.truths],
        "stale_records_ignored": sum(truth.ignored for truth in checker.truths),
        "longest_silence_s": [
            round(each / 1000, 1) for each in told.following.heard.longest_silence_ms
        ],
        "deltas_acknowledged": sum(each.acknowledged for each in told.producers),
        "deltas_in_doubt": sum(each.doubts for each in told.producers),
        "reads": dict(reads),
        "commands": dict(told.commander.counts),
        "commands_followed": followed(checker),
        "streams": {
            "connections": sum(each.connections for each in told.subscribers),
            "resumed": sum(each.resumed for each in told.subscribers),
            "resyncs": sum(each.resyncs for each in told.subscribers),
        },
        "back_s": told.back_s,
        **({"head_down": told.head_down} if told.head_down else {}),
        **told.end,
        **({"learning": learning} if wish.learning else {}),
        "processes_left": left,
        "stamp": {**(stamp or {}), "servers": told.servers},
    }


def followed(checker: Checker) -> dict[str, Any]:
    """Return how many commands were followed from the lane to their outcomes, and what they did."""
    done: Counter[str] = Counter()
    for lane in checker.commands:
        done += lane.done
    return {
        "commands": checker.judged["commands followed"],
        "repeated": sum(lane.repeated for lane in checker.commands),
        "outcomes": checker.judged["command outcomes"],
        "done": dict(sorted(done.items())),
    }


def in_words(found: Mapping[str, Any]) -> str:
    """Return what a verdict rests on, in a sentence."""
    counts, judged = found["commands_followed"], found["judged"]
    done = ", ".join(f"{count} {kind}" for kind, count in counts["done"].items())
    effects = ", ".join(f"{judged.get(name, 0):,} {name}" for name in EFFECTS)
    learnt = f"; {learning_in_words(found['learning'])}" if "learning" in found else ""
    return (
        f"{counts['commands']:,} commands followed from the lane to their outcomes "
        f"({counts['repeated']:,} stood there again, {counts['outcomes']:,} outcomes); "
        f"done: {done or 'none'}; judged: {effects}{learnt}"
    )


def command_of(wish: Wish) -> str:
    """Return the command that repeats a run's faults and targets."""
    words = ["repricer chaos", f"--seed {wish.seed}"]
    words += [f"--faults {wish.faults}"] if wish.faults else []
    words += [f"--minutes {wish.minutes:g}"] if wish.minutes else []
    words += [f"--only {','.join(wish.kinds)}"] if wish.kinds != tuple(KINDS) else []
    words += [f"--pace {wish.pace_s:g}", f"--shards {wish.shards}"]
    words += ["--standby"] if wish.standby else []
    words += ["--learning"] if wish.learning else []
    words += [f"--head-down-s {wish.head_down_s:g}"] if wish.head_down_s else []
    return " ".join(words)


def examples(checker: Checker, each_rule: int = 4) -> list[str]:
    """Return the first violations of every rule that was broken, each for people to read.

    A detail may hold the state of all processes; the report's JSON has it whole.
    """
    shown: Counter[str] = Counter()
    lines = []
    for violation in checker.violations:
        shown[violation.rule] += 1
        if shown[violation.rule] <= each_rule:
            lines.append(f"{violation.rule}: {violation.detail[:EXAMPLE_CHARACTERS]}")
    return lines


def as_line(value: dict[str, Any]) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value)
