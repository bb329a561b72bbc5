"""Rows c and d: real input through the real stack, judged by the oracle, then replayed.

``python -m perf.real_input --oj FILE --json`` or ``--synthetic-oj [--weeks N]``; ``--embedded``
leaves the real servers out. Kafka, Postgres, QuestDB and Redis are started, ``repricer up`` and
``repricer feed --clock event`` run as an operator would run them, the decision log is read and
every decided price is judged from the quote's own columns and the policy file, stores are compared
with the log by count and checksum, and ``repricer replay`` decides everything again.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.decided import State
from kernels.reasons import REASONS
from perf import oracle
from perf.comparison import compare_stores
from perf.real_stack import (
    ROOT,
    EngineUnderTest,
    decisions,
    end_verb,
    engine,
    machine,
    print_line,
)

HOUR_MS = 3_600_000


def example(name: str) -> Path:
    """Return a file of ``docs/examples``, which a wheel holds beside the commands."""
    shipped = Path(__file__).with_name("examples") / name
    return shipped if shipped.is_file() else ROOT / "docs" / "examples" / name


POLICY = example("oj-policy.json")
DEFAULTS = {
    "min_margin": 0.05,
    "max_discount": 1.0,
    "step_max": 0.2,
    "changes_per_hour_max": 10,
    "kvi_rival_ratio_max": 1.05,
    "floor_minor": 0,
    "ceiling_minor": 0,
    "endings": [],
}
"""The documented defaults (docs/policy.md), written once more, since a judge asks nobody."""


def feed_words(options: argparse.Namespace, policy: Path | None) -> list[str]:
    """Return the words of the feed's command line."""
    words = ["feed", "--clock", "event", "--wire", options.wire]
    words += ["--mapping", str(example("oj.json"))]
    words += ["--policy", str(policy)] if policy is not None else []
    if options.oj is not None:
        return [*words, str(options.oj)]
    return [*words, "--synthetic-oj", "--weeks", str(options.weeks)]


def retailer_policy(policy: Path | None) -> dict[str, Any]:
    """Return the retailer's fields of a policy file over the documented defaults.

    The example sets nothing at other scopes; one that did would need more of a judge.
    """
    fields: dict[str, Any] = dict(DEFAULTS)
    for scope in json.loads(policy.read_text()) if policy is not None else []:
        assert scope.get("scope", "retailer") == "retailer", "the judge knows one scope"
        fields |= {name: value for name, value in scope["fields"].items() if value is not None}
    return fields


class Findings:
    """What the decision log holds, gathered in one pass a shard."""

    def __init__(self, policy: Mapping[str, Any]) -> None:
        self.policy = policy
        self.records = self.quotes = self.judged = 0
        self.listings: set[int] = set()
        self.states: Counter[str] = Counter()
        self.priced: set[int] = set()
        self.verdicts: Counter[str] = Counter()
        self.quarantined_of: Counter[str] = Counter()
        self.trips: list[dict[str, Any]] = []
        self.violations: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.infeasible: Counter[str] = Counter()
        self.examples: list[dict[str, Any]] = []
        self._changes: dict[int, deque[int]] = defaultdict(deque)

    def take(self, shard: int, decided: Any) -> None:
        """Take one decision in the order of the log."""
        self.records += 1
        for change in decided.catalogue:
            if change.what == "listing":
                self.listings.add(change.listing)
            if change.what in ("breaker", "halt"):
                trip = {"shard": shard, "seq": decided.seq, "decided_ms": decided.decided_ms}
                self.trips.append({**trip, "what": change.what, "fields": change.fields})
        for refusal in decided.exceptions:
            self.verdicts[refusal.verdict] += 1
            if refusal.verdict == "quarantined":
                self.quarantined_of[refusal.reason.split(":")[0][:60]] += 1
        if len(decided.quotes):
            self._judge(shard, decided)

    def _judge(self, shard: int, decided: Any) -> None:
        quotes, rows = decided.quotes, len(decided.quotes)
        self.quotes += rows
        keys = quotes["listing"].tolist()
        used = np.array([self._used(key, decided.decided_ms) for key in keys], dtype=np.int64)
        columns = self._columns(quotes, used)
        proposed = quotes["proposed_minor"].astype(np.int64)
        decidable = np.isin(
            quotes["state"], [State.LIVE, State.SHADOW, State.PENDING, State.HELD, State.HALTED]
        )
        refused = oracle.expected(columns).refused
        self.refused.update(reason for reason in refused if reason)
        found = oracle.judge(columns, np.where(decidable, proposed, 0))
        for kind, wrong in found.items():
            wrong = wrong & (decidable | (kind != "undecided"))
            self.violations[kind] += int(wrong.sum())
            for row in np.flatnonzero(wrong)[: max(0, 5 - len(self.examples))]:
                example = {name: quotes[name][row].item() for name in quotes.dtype.names}
                self.examples.append({"kind": kind, "shard": shard, "seq": decided.seq, **example})
        self.judged += int(decidable.sum())
        self._count_states(quotes)
        moved = (quotes["in_force_minor"] != quotes["previous_minor"]) & (
            quotes["previous_minor"] > 0
        )
        for row in np.flatnonzero(moved):
            self._changes[keys[row]].append(decided.decided_ms)

    def _count_states(self, quotes: np.ndarray) -> None:
        for quote in quotes:
            state = State(int(quote["state"]))
            self.states[state.name.lower()] += 1
            if int(quote["proposed_minor"]) > 0 or int(quote["in_force_minor"]) > 0:
                self.priced.add(int(quote["listing"]))
            if state is State.INFEASIBLE:
                mask = int(quote["reasons"])
                names = [name for bit, name in enumerate(REASONS) if mask >> bit & 1]
                self.infeasible["+".join(map(str, names))] += 1

    def _used(self, key: int, now_ms: int) -> int:
        times = self._changes[key]
        while times and times[0] <= now_ms - HOUR_MS:
            times.popleft()
        return len(times)

    def _columns(self, quotes: np.ndarray, used: np.ndarray) -> dict[str, np.ndarray]:
        rows = len(quotes)

        def all_rows(value: Any, dtype: Any = np.int64) -> np.ndarray:
            return np.full(rows, value, dtype=dtype)

        endings = np.empty(rows, dtype=object)
        endings[:] = [tuple(self.policy["endings"])] * rows
        return {
            "cost_minor": quotes["cost_minor"],
            "in_force_minor": quotes["previous_minor"],
            "rrp_minor": all_rows(0),
            "map_minor": all_rows(0),
            "ceiling_minor": all_rows(self.policy["ceiling_minor"] or 0),
            "explicit_floor_minor": all_rows(self.policy["floor_minor"] or 0),
            "rival_minor": quotes["rival_minor"],
            "changes_last_hour": used,
            "changes_per_hour_max": all_rows(self.policy["changes_per_hour_max"]),
            "fixed_fee_minor": all_rows(0),
            "minimum_fee_minor": all_rows(0),
            "kvi": all_rows(False, bool),
            "floor_known": quotes["cost_minor"] >= 0,
            "min_margin": all_rows(self.policy["min_margin"], np.float64),
            "max_discount": all_rows(self.policy["max_discount"], np.float64),
            "step_max": all_rows(self.policy["step_max"], np.float64),
            "kvi_rival_ratio_max": all_rows(self.policy["kvi_rival_ratio_max"], np.float64),
            "vat": all_rows(0.0, np.float64),
            "commission": all_rows(0.0, np.float64),
            "endings": endings,
            "wish_minor": quotes["target_minor"],
        }


async def gather(under_test: EngineUnderTest, policy: Path | None) -> Findings:
    """Read every shard's decision log and judge it."""
    settings = under_test.settings
    findings = Findings(retailer_policy(policy))
    for shard in range(settings.shards.count):
        async for accepted in decisions(settings, shard):
            if accepted.decided is not None:
                findings.take(shard, accepted.decided)
    return findings


async def checkpoint_in_the_middle(
    under_test: EngineUnderTest, feeding: "subprocess.Popen[bytes]", records: int
) -> int:
    """Take the only checkpoint once so many records are decided, so that its tail holds quotes.

    Returns how many were decided just before it was asked for.
    """
    count = under_test.settings.shards.count
    while not feeding.poll():  # one that failed says itself why
        state = await under_test.status()
        decided = [each.get("last_delta", -1) + 1 for each in state["shards"]]
        if len(decided) == count and min(decided) >= records:
            await asyncio.to_thread(under_test.verb, "checkpoint")
            return sum(decided)
        await asyncio.sleep(0.1)
    return 0


def run_once(options: argparse.Namespace, policy: Path | None) -> dict[str, Any]:
    """Feed everything into a fresh engine and return what was found."""
    with engine(
        options.embedded,
        **{
            "shards.clock": "event",
            "shards.spreads": {"dominicks": 2},
            "shards.checkpoint_s": 3600,  # one is taken by hand
        },
    ) as under_test:
        ready_s = under_test.start()
        try:
            began = time.monotonic()
            feeding = under_test.begin_verb(*feed_words(options, policy))
            taken_at = asyncio.run(
                checkpoint_in_the_middle(under_test, feeding, options.checkpoint_at)
            )
            fed = end_verb(feeding)
            if feeding.returncode:
                return {"error": fed}
            state = asyncio.run(under_test.until_decided())
            decided_s = time.monotonic() - began
            findings = asyncio.run(gather(under_test, policy))
            compared = asyncio.run(compare_stores(under_test.settings))
            replayed = {
                begin: under_test.verb("replay", "--from", begin)
                for begin in (("checkpoint", "oldest") if options.replay else ())
            }
        finally:
            left = under_test.stop()
    facts = fed["deltas"]
    return {
        "ready_s": round(ready_s, 1),
        "feed_s": fed["seconds"],
        "decided_s": round(decided_s, 1),
        "deltas": facts,
        "rejected_rows": fed["rejected"],
        "listings": len(findings.listings),
        "listings_priced": len(findings.priced),
        "decisions": findings.records,
        "quotes": findings.quotes,
        "judged": findings.judged,
        "against_precedence": sum(findings.violations.values()),
        "violations": {kind: count for kind, count in findings.violations.items() if count},
        "examples": findings.examples,
        "states": dict(findings.states),
        "not_decided_because": dict(findings.refused),
        "infeasible": dict(findings.infeasible),
        "breaker_trips": len(findings.trips),
        "trips": findings.trips[:10],
        "exceptions": dict(findings.verdicts),
        "quarantined_share": round(findings.verdicts["quarantined"] / max(facts, 1), 5),
        "stores_equal": compared.equal,
        "stores_unequal": compared.unequal,
        "stores_counted_again": compared.counted_again,
        "store_rows": {"prices": compared.prices, **compared.facts},
        "checkpoint_after_records": taken_at,
        "replay": {
            begin: {
                key: each.get(key)
                for key in ("decisions", "quotes", "differences", "exit_code", "error")
                if key in each
            }
            | {"horizons": [shard["horizon"] for shard in each.get("shards", [])]}
            for begin, each in replayed.items()
        },
        "memory_mb": [each.get("memory_bytes", 0) // 2**20 for each in state["shards"]],
        "processes_left": left,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it with the example policy, and once more with the default one."""
    parser = argparse.ArgumentParser(prog="python -m perf.real_input", description=__doc__)
    parser.add_argument("--oj", type=Path, help="the public table, as Parquet")
    parser.add_argument("--synthetic-oj", action="store_true", help="a made table of its shape")
    parser.add_argument("--weeks", type=int, default=121, help="of the made table")
    parser.add_argument("--wire", choices=("json", "frames"), default="frames")
    parser.add_argument("--embedded", action="store_true", help="without the real servers")
    parser.add_argument("--no-replay", dest="replay", action="store_false")
    parser.add_argument("--no-default-policy", dest="default", action="store_false")
    parser.add_argument(
        "--checkpoint-at", type=int, default=5, help="records a shard decided before it is taken"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (it always is)")
    options = parser.parse_args(arguments)
    if (options.oj is None) == (not options.synthetic_oj):
        parser.error("name --oj FILE or --synthetic-oj")
    result = run_once(options, POLICY if POLICY.is_file() else None)
    if options.default and "error" not in result:
        options.replay = False
        once_more = run_once(options, None)
        result["with_default_policy"] = {
            key: once_more.get(key)
            for key in ("breaker_trips", "trips", "states", "against_precedence", "error")
        }
    print_line({"row": "c, d", "machine": machine(), **result})
    good = (
        "error" not in result
        and result["against_precedence"] == 0
        and result["listings_priced"] == result["listings"]
        and result["stores_equal"]
        and all(each.get("differences") == 0 for each in result["replay"].values())
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
