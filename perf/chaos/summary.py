"""A run as one line of JSON: the verdict, what was judged, and how everything fared."""

import json
from collections import Counter
from typing import Any

from perf.chaos.checker import Checker
from perf.chaos.run import Told


def fired(told: Told) -> Counter[str]:
    """Return how many faults of each kind hit something."""
    return Counter(each.fault.kind for each in told.struck if each.fired)


def summary(told: Told, *, left: int) -> dict[str, Any]:
    """Return the run as one line of JSON."""
    checker, gateway, wish = told.checker, told.gateway, told.wish
    by_target = Counter(
        f"{each.fault.kind} {each.fault.target}" for each in told.struck if each.fired
    )
    reads = gateway.counts
    return {
        "verdict": "holds" if not checker.broken else "broken",
        "seed": wish.seed,
        "faults": sum(fired(told).values()),
        "fired": dict(fired(told)),
        "fired_by_target": dict(sorted(by_target.items())),
        "missed": sum(not each.fired for each in told.struck),
        "left_out": told.left_out,
        "seconds": round((told.over_ms - told.storm_ms) / 1000, 1),
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
        "streams": {
            "connections": sum(each.connections for each in told.subscribers),
            "resumed": sum(each.resumed for each in told.subscribers),
            "resyncs": sum(each.resyncs for each in told.subscribers),
        },
        "back_s": told.back_s,
        **({"head_down": told.head_down} if told.head_down else {}),
        **told.end,
        "processes_left": left,
    }


def examples(checker: Checker, each_rule: int = 4) -> list[str]:
    """Return the first violations of every rule that was broken."""
    shown: Counter[str] = Counter()
    lines = []
    for violation in checker.violations:
        shown[violation.rule] += 1
        if shown[violation.rule] <= each_rule:
            lines.append(f"{violation.rule}: {violation.detail}")
    return lines


def as_line(value: dict[str, Any]) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value)
