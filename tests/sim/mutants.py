"""Defences of production's code, removed one by one: the simulator must notice each.

A mutant is a replacement in the source text of a production module. It is shown to apply: the text
must occur exactly once. The functions that come out differently get the mutated code in place, so
everybody who holds a reference to them runs it, and get their own back afterwards.
"""

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

from msgspec import Struct


class Patch(Struct, frozen=True):
    """One replacement in one module's source."""

    module: str
    old: str
    new: str


class Mutant(Struct, frozen=True):
    """A defence, or two that stand in for each other, removed."""

    name: str
    patches: tuple[Patch, ...]
    kind: str = "toy"  # of the worlds that must notice it, by name


READER = "persistence.decision_reader"
REIGN = "actors.reign"
ACTOR = "actors.shard_actor"
FILES = "persistence.checkpoints"
RECORDS = "persistence.decision_records"
ONCE = "engine.deduplication"
CLOCK = "actors.clock"
FOLLOWER = "actors.follower"

EPOCH_FILTER = Patch(
    READER, "return stamp.epoch < self.epoch or stamp.owner != self.owner", "return False"
)
OWN_EPOCH_FILTER = Patch(
    READER,
    "return stamp.epoch < self.epoch or stamp.owner != self.owner",
    "return stamp.owner != self.owner",
)
TIE_RULE = Patch(READER, "return first_offset < self.first_offset", "return True")
FIRST_OFFSET = Patch(READER, "return first_offset < self.first_offset", "return False")
HIGHEST_EPOCH = Patch(READER, "return stamp.epoch > self.epoch\n", "return True\n")
SEQ_DROP = Patch(READER, "return seq <= self.seq", "return False")
SEQ_CONTIGUOUS = Patch(READER, "seq != self.seq + 1:", "False:")
GAP_RULE = Patch(REIGN, "if appended.offset > self._expected_offset:", "if False:")
LOWER_OFFSET = Patch(
    REIGN,
    "if appended.offset < self._expected_offset:",
    "if appended.offset < self._expected_offset:\n"
    "            self._reader.offset = appended.offset - 1\n"
    "        if False:",
)
IN_DOUBT_IS_SUCCESS = Patch(
    REIGN,
    "                found = await self._resolve_doubt(is_ours)\n",
    "                self.abandon()\n"
    "                while self._appender is None:\n"
    "                    try:\n"
    "                        self._appender = await self._log.appender()\n"
    "                    except FailedDependency:\n"
    "                        await patience.wait()\n"
    "                return await self._acknowledged(\n"
    "                    Appended(self._expected_offset, self._watch.wall_ms()), is_ours, seq\n"
    "                )\n",
)
IN_DOUBT_IS_FAILURE = Patch(
    REIGN,
    "                found = await self._resolve_doubt(is_ours)\n",
    "                self.abandon()\n"
    "                while self._appender is None:\n"
    "                    try:\n"
    "                        self._appender = await self._log.appender()\n"
    "                    except FailedDependency:\n"
    "                        await patience.wait()\n"
    "                found = None\n",
)
IN_DOUBT_UNSEEN = Patch(REIGN, "return found[0] if found else None", "return None")
SEAL_IN_DOUBT = Patch(REIGN, "epoch = epoch + 1", "epoch = epoch + 0")
OWN_EPOCH = Patch(
    REIGN, "await self._seal(self.epoch + 1, lambda", "await self._seal(self.epoch + 1000, lambda"
)
FOREIGN_DECISION = Patch(REIGN, "elif accepted.decided is not None:", "elif False:")
REIGNING = Patch(REIGN, "if reader.epoch != epoch or reader.owner != self._owner:", "if False:")
FLUSH = Patch(
    REIGN,
    "        self.doubts += 1\n        self.abandon()\n        found",
    "        self.doubts += 1\n"
    "        await self._appender.close()\n"
    "        self.abandon()\n"
    "        found",
)
FLUSH_SEAL = Patch(
    REIGN,
    "                self.abandon()\n                epoch = epoch + 1",
    "                await self._appender.close()\n"
    "                self.abandon()\n"
    "                epoch = epoch + 1",
)
START_REPEATED = Patch(ACTOR, "await self._reign.repeat_start()", "pass")
LATER_CLOCK = Patch(CLOCK, "return max(previous_ms, wall_ms)", "return wall_ms")
CLOCK_JUMP = Patch(CLOCK, "if abs(moved_ms) > JUMP_MS:", "if False:")
CLOCK_DIFFERS = Patch(CLOCK, "if not earliest_ms <= appended_ms <= latest_ms:", "if False:")
STANDS_IN_LOG = Patch(
    FILES,
    "    if records[0].offset != position.offset:\n        return False\n",
    "    return True\n",
)
LEARNT_ROWS = Patch(
    "engine.checkpoint",
    "learnt=memory.learnt.saved(rows),",
    'learnt=b"",',
)
PREDICTED = Patch("engine.checkpoint", "predicted=memory.serving.saved(rows),", 'predicted=b"",')
CLOSE_UNSAVED = Patch(
    "engine.learning",
    "held.period_days)\n    memory.unsaved[rows] = True\n    work.changed",
    "held.period_days)\n    work.changed",
)
DAYS_PHASE = Patch(
    "engine.learnt",
    "            setattr(learning, name, value)\n",
    '            if name not in ("phase", "cursor"):\n'
    "                setattr(learning, name, value)\n",
)
MISSING = Patch("actors.artefacts", "if reasons.get(position) == MISSING or", "if")
HAD = Patch("engine.promotion", "if artefact.checksum not in missing]", "]")

MUTANTS = (
    Mutant("epoch filter", (EPOCH_FILTER,)),
    Mutant("epoch filter, own late records", (OWN_EPOCH_FILTER,)),
    Mutant("highest epoch", (HIGHEST_EPOCH,)),
    Mutant("tie rule", (TIE_RULE,)),
    Mutant("tie rule, lowest first offset", (FIRST_OFFSET,)),
    Mutant("seq drop", (SEQ_DROP,)),
    Mutant("seq contiguous", (SEQ_CONTIGUOUS,)),
    Mutant("gap rule", (GAP_RULE,)),
    Mutant("lower offset", (LOWER_OFFSET,)),
    Mutant("append in doubt is success", (IN_DOUBT_IS_SUCCESS,)),
    Mutant("append in doubt is failure", (IN_DOUBT_IS_FAILURE,)),
    Mutant("append in doubt, look", (IN_DOUBT_UNSEEN,)),
    Mutant("seal in doubt", (SEAL_IN_DOUBT,)),
    Mutant("own epoch + 1", (OWN_EPOCH,)),
    Mutant("abandon, never flush", (FLUSH,)),
    Mutant("abandon, never flush, in a seal", (FLUSH_SEAL,)),
    Mutant("the loser stops", (REIGNING,)),
    Mutant("start repeated", (START_REPEATED,)),
    Mutant("checkpoint stands in the log", (STANDS_IN_LOG,)),
    Mutant("checkpoint checksum", (Patch(FILES, "if found != digest:", "if False:"),)),
    Mutant("checkpoint epoch", (Patch(FILES, "if highest > position.epoch:", "if False:"),)),
    Mutant(
        "record checksum",
        (
            Patch(RECORDS, "if crc32(body) != mark.body_checksum:", "if False:"),
            Patch(
                RECORDS,
                "if crc32(memoryview(value)[_CHECKED_FROM:MARK_BYTES]) !=",
                "if False and crc32(value) !=",
            ),
        ),
    ),
    Mutant("event window", (Patch(ONCE, "if event in events:", "if False:"),)),
    Mutant(
        "high-water mark",
        (
            Patch(
                ONCE,
                "newest(number, sequences, same, known, same).effective & (known > NO_ROOM)",
                "known > NO_ROOM",
            ),
        ),
    ),
    Mutant(
        "observed_ms order",
        (
            Patch(ONCE, "late = observed_ms < known_ms", "late = observed_ms < -1"),
            Patch(ONCE, "late = rank < before", "late = rank < -1"),
        ),
    ),
    Mutant("cursor fence", (Patch(FOLLOWER, "if found != expected:", "if False:"),)),
    Mutant(
        "write in doubt is failure",
        (Patch(FOLLOWER, "if await self._was_written(accepted[-1].position):", "if False:"),),
    ),
    Mutant(
        "write in doubt is success",
        (Patch(FOLLOWER, "if await self._was_written(accepted[-1].position):", "if True:"),),
    ),
    Mutant(
        "versioned cache put",
        (Patch("persistence.memory_cache", "if self._is_newer(key, version):", "if False:"),),
    ),
    Mutant(
        "replay compared",
        (Patch("engine.replay", "Agreement.DIFFERENT if differences(ours, recorded) else ", ""),),
    ),
    Mutant("gate", (Patch("actors.gate", "while not self._opened.is_set():", "while False:"),)),
    Mutant(
        "strong read after the next mark",
        (Patch(ACTOR, "(1 if self._gate.is_open else 2)", "0"),),
    ),
    Mutant("time does not go back", (LATER_CLOCK,)),
    Mutant("clock jump", (CLOCK_JUMP,)),
    Mutant("clock differs from the broker's", (CLOCK_DIFFERS,)),
    Mutant(
        "murderous record skipped",
        (Patch(ACTOR, "if deaths < DEATHS_BEFORE_SKIP:", "if True:"),),
    ),
    Mutant(
        "only after two deaths",
        (Patch(ACTOR, "if deaths < DEATHS_BEFORE_SKIP:", "if False:"),),
    ),
    Mutant(
        "deaths close in on one record",
        (Patch("actors.attempts", "-(-min(fallen) // NARROWER)", "min(fallen)"),),
    ),
    # Pairs of defences that stand in for each other: alone, the other one may hide the loss.
    Mutant("own epoch + 1, and another's decision", (OWN_EPOCH, FOREIGN_DECISION)),
    Mutant("gap rule, and checkpoint in the log", (GAP_RULE, STANDS_IN_LOG)),
    Mutant("epoch filter, and seq drop", (EPOCH_FILTER, SEQ_DROP)),
    Mutant("in doubt is failure, and seq drop", (IN_DOUBT_IS_FAILURE, SEQ_DROP)),
    Mutant("clock jump, and difference", (CLOCK_JUMP, CLOCK_DIFFERS)),
    # What learning must not lose: these need a shard that learns.
    Mutant("checkpoint keeps what is learnt", (LEARNT_ROWS,), "learning"),
    Mutant("a close leaves its rows to the next checkpoint", (CLOSE_UNSAVED,), "learning"),
    Mutant("checkpoint keeps the phase of a day", (DAYS_PHASE,), "learning"),
    Mutant("checkpoint keeps what models predict", (PREDICTED,), "learning"),
    Mutant("an artefact that was missing stays so", (MISSING, HAD), "learning"),
)


@contextmanager
def applied(mutant: Mutant) -> Iterator[int]:
    """Run production with a defence removed; yields how many functions were changed."""
    sources: dict[str, str] = {}
    for patch in mutant.patches:
        module = importlib.import_module(patch.module)
        source = sources.get(patch.module) or inspect.getsource(module)
        occurrences = source.count(patch.old)
        assert occurrences == 1, (
            f"mutant {mutant.name!r}: the text occurs {occurrences} times in {patch.module}"
        )
        sources[patch.module] = source.replace(patch.old, patch.new)
    own: list[tuple[FunctionType, CodeType]] = []
    try:
        for name, source in sources.items():
            module = importlib.import_module(name)
            code = compile(source, module.__file__ or name, "exec")
            mutated: dict[str, Any] = {
                "__name__": f"{name}.mutated",
                "__package__": module.__package__,
            }
            exec(code, mutated)
            for function, other in functions_of(module, mutated):
                if function.__code__ != other.__code__:
                    own.append((function, function.__code__))
                    function.__code__ = other.__code__
        assert own, f"mutant {mutant.name!r} changes no function"
        yield len(own)
    finally:
        for function, original in own:
            function.__code__ = original


def functions_of(
    module: ModuleType, mutated: dict[str, Any]
) -> Iterator[tuple[FunctionType, FunctionType]]:
    """Yield each function of a module beside its mutated twin."""
    for name, found in vars(module).items():
        twin = mutated.get(name)
        if getattr(found, "__module__", None) != module.__name__ or twin is None:
            continue
        if isinstance(found, FunctionType):
            yield found, twin
        elif isinstance(found, type):
            for attribute, member in vars(found).items():
                other = vars(twin).get(attribute)
                if isinstance(member, classmethod | staticmethod):
                    member, other = member.__func__, other and other.__func__
                elif isinstance(member, property):
                    member, other = member.fget, other and other.fget
                if isinstance(member, FunctionType) and isinstance(other, FunctionType):
                    yield member, other
