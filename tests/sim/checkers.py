"""What must hold of every world that has ended.

The judge reads the raw log by its own few lines and not by production's reader: highest epoch,
first start of it, next ``seq``.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

from msgspec import Struct
from msgspec.structs import replace as replaced

from actors.artefacts import Artefacts as Fetched
from actors.follower import Follower
from actors.shard_actor import OwnerSettings, ShardActor
from engine.decided import Decided, Given
from engine.errors import CorruptCheckpoint, CorruptRecord, PricingError
from engine.microbatch import STOCK_COUNTED, UNITS_SOLD, FactColumns, Microbatch
from engine.replay import Agreement
from persistence.checkpoints import (
    CheckpointFiles,
    Increment,
    decode_increment,
    encode_increment,
    name_of,
)
from persistence.decision_reader import DecisionReader
from persistence.decision_records import (
    DecisionRecord,
    EpochStarted,
    LogPosition,
    Stamp,
    Trying,
    decode,
)
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Record
from persistence.wire import Decoder, encode_delta
from tests.sim.blobs import SimBlobs
from tests.sim.faults import Faults
from tests.sim.feed import KEYS, MURDEROUS_SKU, count
from tests.sim.folder import SimFolder
from tests.sim.heirs import Artefacts, Chronicle, Heirs, artefacts_of
from tests.sim.logs import Broker, Partition, SimLog, SimLogs
from tests.sim.loop import SimLoop
from tests.sim.sinks import Ledger, Store
from tests.sim.world import BASE_MS, STORM_S, HostClock, World


class Valid(Struct, frozen=True):
    """A decision that counts."""

    offset: int
    appended_ms: int
    stamp: Stamp
    decided: Decided


class Truth(Struct, frozen=True):
    """What the log says, by the rules."""

    decisions: list[Valid]  # seq 1, 2, 3 ...
    starts: list[tuple[int, Stamp]]  # that reigned, with their offsets
    attempts: dict[tuple[int, int], set[bytes]]  # lane and offset of what was tried alone -> owners


def truth_of(world: World) -> Truth:
    """Read the whole decision log, what retention took included."""
    decisions: list[Valid] = []
    starts: list[tuple[int, Stamp]] = []
    attempts: dict[tuple[int, int], set[bytes]] = {}
    epoch, owner = 0, b""
    begun: set[Stamp] = set()
    for record in world.broker.partition(DECISIONS).everything:
        found = decode(record.value)
        stamp = found.stamp
        if isinstance(found, EpochStarted):
            if found.first_offset < 0:
                if stamp in begun:
                    world.violation(f"epoch {stamp.epoch} was started twice by its owner")
                begun.add(stamp)
            if stamp.epoch > epoch:
                epoch, owner = stamp.epoch, stamp.owner
                starts.append((record.offset, stamp))
        elif (stamp.epoch, stamp.owner) == (epoch, owner):
            if isinstance(found, Trying):
                if (record_tried := alone(decisions, found)) is not None:
                    attempts.setdefault(record_tried, set()).add(stamp.owner)
                continue
            assert isinstance(found, DecisionRecord)
            seq = found.decided.seq
            if seq == len(decisions) + 1:
                decisions.append(Valid(record.offset, record.appended_ms, stamp, found.decided))
            elif seq > len(decisions):
                world.violation(f"seq {seq} at offset {record.offset} follows {len(decisions)}")
            elif found.decided.digest != decisions[seq - 1].decided.digest:
                world.violation(f"seq {seq} was decided twice, differently")
    return Truth(decisions, starts, attempts)


def alone(decisions: list[Valid], tried: Trying | Decided) -> tuple[int, int] | None:
    """Return lane and offset of the one record that follows these decisions up to some marks."""
    last_command, last_delta = -1, -1
    if decisions:
        last = decisions[-1].decided
        last_command, last_delta = last.last_command, last.last_delta
    new = [(0, offset) for offset in range(last_command + 1, tried.last_command + 1)]
    new += [(1, offset) for offset in range(last_delta + 1, tried.last_delta + 1)]
    return new[0] if len(new) == 1 else None


def judge(world: World, *, probes: bool = True) -> None:
    """Add what is wrong with a world to its violations; ``probes`` breaks its logs, too."""
    if world.violations:
        return
    truth = truth_of(world)
    if not truth.decisions:
        world.violation("nothing was decided")
        return
    check_order(world, truth)
    check_clocks(world, truth)
    check_owners(world, truth)
    check_answers(world, truth)
    check_followers(world, truth)
    check_skipped(world, truth)
    check_returns(world, truth)
    if world.violations:
        return  # what goes back in time cannot be decided again
    final = check_replay(world, truth)
    if not world.violations:
        check_model(world, truth, final)
    if probes and not world.violations:
        probe(world, truth, final)


def check_order(world: World, truth: Truth) -> None:
    """Time and both lanes go forward only."""
    before = None
    for valid in truth.decisions:
        now = valid.decided
        if before is not None and (
            now.decided_ms < before.decided_ms
            or now.last_command < before.last_command
            or now.last_delta < before.last_delta
        ):
            world.violation(f"seq {now.seq} goes back in time or in a lane")
        before = now


def check_clocks(world: World, truth: Truth) -> None:
    """No decision is of a time far off, and no owner goes on deciding with such a clock."""
    if world.kind.clock == "event":
        return  # no clock was read
    ahead: Counter[bytes] = Counter()
    latest_ms = 0
    for valid in truth.decisions:
        ahead_ms = valid.decided.decided_ms - valid.appended_ms
        if ahead_ms > 7_000:
            world.violation(f"seq {valid.decided.seq} is decided {ahead_ms} ms ahead of time")
        # A successor's time stands still until its clock comes by; only who moves it is ahead.
        if ahead_ms > 1_900 and valid.decided.decided_ms > latest_ms:
            ahead[valid.stamp.owner] += 1
        latest_ms = valid.decided.decided_ms
    if ahead and max(ahead.values()) > 1:
        world.violation("an owner goes on deciding although the broker's clock differs")


def check_owners(world: World, truth: Truth) -> None:
    """What any owner, replaced or not, took for recorded is in the log."""
    for owned in world.owned:
        if owned.seq > len(truth.decisions):
            world.violation(f"{owned.owner} recorded seq {owned.seq}, which is lost")
        elif truth.decisions[owned.seq - 1].decided.digest != owned.digest:
            world.violation(f"{owned.owner} recorded another seq {owned.seq} than counts")
    if world.different or any(owner.actor.different for owner in world.owners):
        world.violation("a successor's replay differs from the record")
    if world.folder.overtaken:
        world.violation("a replaced owner's checkpoint was taken")


def check_answers(world: World, truth: Truth) -> None:
    """Every price shown was in force by the log, at the seq with which it was shown."""
    prices: dict[int, dict[int, int]] = {key: {} for key in KEYS.values()}
    for valid in truth.decisions:
        for quote in valid.decided.quotes:
            prices.setdefault(int(quote["listing"]), {})[valid.decided.seq] = int(
                quote["in_force_minor"]
            )
    for seen in world.seen:
        then = [seq for seq in prices[seen.listing] if seq <= seen.seq]
        price = prices[seen.listing][max(then)] if then else 0
        if price != seen.price or seen.seq > len(truth.decisions):
            world.violation(
                f"{seen.owner} showed {seen.price} at seq {seen.seq}, the log says {price}"
            )
        if seen.seq < seen.least_seq:
            world.violation(f"{seen.owner} gave a strong read of seq {seen.seq}, too old")


def check_followers(world: World, truth: Truth) -> None:
    """The ledger's rows are the log's, once and in order; the cache holds each newest price."""
    cursor = world.ledger.cursor
    assert cursor is not None
    expected = list(range(1, cursor.seq + 1))
    if world.ledger.marks != expected:
        world.violation("the ledger's rows are not the log's")
    rows = [
        (valid.decided.seq, listing, price)
        for valid in truth.decisions[: cursor.seq]
        for listing, price in zip(
            valid.decided.quotes["listing"].tolist(),
            valid.decided.quotes["in_force_minor"].tolist(),
            strict=True,
        )
    ]
    if rows != world.ledger.rows:
        world.violation("the ledger's rows differ from the log's")
    cursor = world.cache_sink.cursor
    assert cursor is not None
    newest = {
        str(listing): (seq, str(price).encode())
        for seq, listing, price in rows
        if seq <= cursor.seq
    }
    if world.cache_sink.went_back:
        world.violation("an older price replaced a newer one in the cache")
    for key, entry in newest.items():
        found = world.cache._entries.get(key)
        if found is None or (found.version, found.value) < entry:
            world.violation(f"the cache holds {found} for {key}, the log says {entry}")


def check_skipped(world: World, truth: Truth) -> None:
    """Only a record on which two cautious owners fell is skipped, and what murders always is."""
    for number, valid in enumerate(truth.decisions):
        for refusal in valid.decided.exceptions:
            if refusal.verdict != "skipped":
                continue
            skipped = alone(truth.decisions[:number], valid.decided)
            if skipped is None:
                world.violation(f"seq {valid.decided.seq} skips more than one record")
                continue
            fallen = truth.attempts.get(skipped, set()) - {valid.stamp.owner}
            if len(fallen) < 2:
                world.violation(f"seq {valid.decided.seq} skips what {len(fallen)} owners fell on")
            if refusal.listing != KEYS[MURDEROUS_SKU]:
                world.notes["innocent skipped"] += 1


def check_returns(world: World, truth: Truth) -> None:
    """A replaced owner reigns again only when a seal of its was in doubt."""
    replaced: set[bytes] = set()
    for (_, before), (_, stamp) in zip(truth.starts, truth.starts[1:], strict=False):
        if stamp.owner != before.owner:
            replaced.add(before.owner)
        if stamp.owner in replaced and stamp.owner not in world.broker.doubtful_seals:
            world.violation(f"a replaced owner came back with epoch {stamp.epoch}")


def check_replay(world: World, truth: Truth) -> Any:
    """Deciding again what the log says gives what it says, digests included.

    So does a shard of a checkpoint that is taken on the way: the same digests, the same state.
    """
    heirs = Heirs(world.kind, len(truth.decisions), Random(world.seed), world.notes)
    chronicle = Chronicle(world.notes)

    def witness(shard: Any, batch: Microbatch, recorded: Decided, had: Artefacts) -> None:
        chronicle.note(shard, batch, recorded)
        heirs.follow(shard, batch, recorded, had)

    deltas = world.broker.partition(DELTAS).everything
    shard, differing = replayed(world, truth, deltas, witness)
    if differing:
        world.violation(f"replay differs from the record at seq {differing[0]}")
    else:
        for fault in heirs.faults(shard):
            world.violation(fault)
    return shard


def replayed(
    world: World,
    truth: Truth,
    deltas: list[Record],
    witness: Callable[[Any, Microbatch, Decided, Artefacts], None] = lambda *told: None,
) -> tuple[Any, list[int]]:
    """Return a shard that decided everything again, and the ``seq`` that came out differently."""
    decoder = Decoder(0, 1, {})
    commands = world.broker.partition(COMMANDS).everything
    shard = world.kind.new()
    had = artefacts_of(world.kind)
    differing = []
    for valid in truth.decisions:
        recorded = valid.decided
        batch = decoder.decode(
            commands[shard.last_command + 1 : recorded.last_command + 1],
            deltas[shard.last_delta + 1 : recorded.last_delta + 1],
            last_command=recorded.last_command,
            last_delta=recorded.last_delta,
        )
        if shard.replay(batch, recorded, *had) is not Agreement.EXACT:
            differing.append(recorded.seq)
        witness(shard, batch, recorded, had)
    return shard, differing


def check_model(world: World, truth: Truth, final: Any) -> None:
    """Every delta had its effect once: a few dictionaries say what the state must be."""
    skipped = {
        (one.position.lane, one.position.offset)
        for valid in truth.decisions
        for one in valid.decided.exceptions
        if one.verdict == "skipped"
    }
    units: dict[int, tuple[int, int]] = {}
    sold: dict[int, dict[object, int]] = {}
    decoder = Decoder(0, 1, {})
    deltas = world.broker.partition(DELTAS).everything
    batch = decoder.decode([], deltas, last_command=-1, last_delta=len(deltas) - 1)
    for run in batch.runs:
        if not isinstance(run, FactColumns):
            continue
        for at in range(len(run)):
            key = int(run.listing[at])
            if (int(run.lane[at]), int(run.offset[at])) in skipped:
                continue
            if run.kind[at] == STOCK_COUNTED:
                observed = int(run.observed_ms[at])
                if observed > units.get(key, (-1, -1))[0]:
                    units[key] = (observed, int(run.amount[at]))
            elif run.kind[at] == UNITS_SOLD:
                event = (int(run.event[at]), int(run.source[at]), int(run.source_seq[at]))
                sold.setdefault(key, {})[event] = int(run.amount[at])
    for sku in world.kind.skus:
        key = KEYS[sku]
        expected = units.get(key, (-1, -1))[1], sum(sold.get(key, {}).values())
        found = world.kind.table(final, key)
        if found != expected:
            world.violation(f"listing {key} holds {found}, the deltas make {expected}")
    answered = [one.command_id for valid in truth.decisions for one in valid.decided.outcomes]
    if len(answered) != len(set(answered)):
        world.violation("a command was answered twice")


# ----- what is done to the logs of a world that has ended


def probe(world: World, truth: Truth, final: Any) -> None:
    """Break the logs of an ended world, and see that nobody overlooks it."""
    random = Random(world.seed)
    probe_middle(world, truth)
    probe_missing(world, truth, random)
    probe_bit(world, random)
    probe_replay(world, truth)
    probe_truncated(world, random)
    probe_regressed(world, truth, random)
    probe_restart(world, truth, final)
    forge_checkpoint(world, truth)
    probe_restart(world, truth, final)


def probe_middle(world: World, truth: Truth) -> None:
    """A reader that retention left only the log's end finds who reigns, and nobody else.

    It may have kept everything after a checkpoint; or begin just before the start of one that lost
    a tie, whose winner's start is gone.
    """
    records = world.broker.partition(DECISIONS).everything
    for position in kept_positions(world):
        since = [one for one in truth.decisions if one.offset >= position.offset]
        # In the calm nothing delays the file, nor the repetition of the start after it.
        if since[0].appended_ms < BASE_MS + STORM_S * 1000 or len(since) < 2:
            continue
        lasted_ms = since[-1].appended_ms - since[0].appended_ms
        if lasted_ms > 600 and not taken_after(world, truth, position.offset):
            world.violation("a reader behind a checkpoint finds nobody reigning")
    winners = {stamp.epoch: stamp.owner for _, stamp in truth.starts}
    repeated = {}
    for record in records:
        found = decode(record.value)
        if isinstance(found, EpochStarted) and found.first_offset >= 0:
            repeated[found.stamp] = record.offset
            world.notes["starts repeated"] += 1
    for record in records:
        found = decode(record.value)
        if not isinstance(found, EpochStarted) or record.offset == 0:
            continue
        winner = winners.get(found.stamp.epoch, found.stamp.owner)
        if winner == found.stamp.owner:
            continue
        world.notes["ties"] += 1
        taken = taken_after(world, truth, record.offset - 1)
        again = repeated.get(replaced(found.stamp, owner=winner))
        expected = [
            one.offset
            for one in truth.decisions
            if again is not None
            and again > record.offset  # until then nothing tells them apart
            and one.offset > again
            and one.stamp.epoch == found.stamp.epoch
        ]
        if not set(expected) <= set(taken):
            world.violation("a reader that met the loser's start first never finds the winner")


def kept_positions(world: World) -> list[LogPosition]:
    """Return the marks of the checkpoint files that verify."""
    positions = []
    for content in world.folder.files.values():
        with suppress(CorruptCheckpoint):
            positions.append(decode_increment(content).position)
    return positions


def taken_after(world: World, truth: Truth, offset: int) -> list[int]:
    """Return which decisions a reader takes that begins after ``offset``."""
    reader = DecisionReader(None, shard=0, generation=1, after=offset)
    taken = []
    for record in world.broker.partition(DECISIONS).everything[offset + 1 :]:
        try:
            accepted = reader.accept(record)
        except PricingError as error:
            world.violation(f"a reader in the middle ended by {type(error).__name__}: {error}")
            return taken
        if accepted is not None and accepted.decided is not None:
            taken.append(record.offset)
    if not set(taken) <= {one.offset for one in truth.decisions}:
        world.violation("a reader in the middle takes decisions that do not count")
    return taken


def probe_missing(world: World, truth: Truth, random: Random) -> None:
    """A log that lacks one decision in its midst stops a follower."""
    world.faults.counts["decision_missing"] += 1
    missing = random.choice(truth.decisions[:-1]).decided.seq

    def lose(log: Partition) -> None:
        kept = []
        for record in log.records:
            found = decode(record.value)
            if not isinstance(found, DecisionRecord) or found.decided.seq != missing:
                kept.append(record)
        log.records = kept

    stopped = follower_ended_by(copied(world.broker.partition(DECISIONS), lose))
    if stopped != "SequenceGap":
        world.violation(f"a follower of a log with a gap ended by {stopped or 'nothing'}")


def forge_checkpoint(world: World, truth: Truth) -> None:
    """Add a checkpoint of a decision that never counted, as one fenced too late might leave."""
    world.faults.counts["checkpoint_forged"] += 1
    last = truth.decisions[-1]
    before = replaced(truth, decisions=truth.decisions[:-1])
    shard, _ = replayed(world, before, world.broker.partition(DELTAS).everything)
    decoder = Decoder(0, 1, {})
    later_ms = max(BASE_MS, last.decided.decided_ms) + 90_000
    forged = [Record(0, 0, b"acme", encode_delta(count("a", 77, later_ms)), "application/json")]
    mark = last.decided
    batch = decoder.decode([], forged, last_command=mark.last_command, last_delta=mark.last_delta)
    batch = replaced(batch, last_delta=mark.last_delta)
    shard.record(shard.apply(batch, mark.decided_ms, Given()))
    increment = Increment(
        shard=0,
        generation=1,
        position=LogPosition(
            last.stamp.log_id, last.offset, last.stamp.epoch, b"zombie".ljust(16), last.decided.seq
        ),
        last_command=last.decided.last_command,
        last_delta=last.decided.last_delta,
        decided_ms=last.decided.decided_ms,
        digest=0,
        replay_domain=shard.domain,
        parent="",
        parts=(shard.checkpoint_close(),),
    )
    # It sorts after whatever honest file stands at the same mark.
    world.folder.files[name_of(increment)] = b"".join(encode_increment(increment))


def probe_bit(world: World, random: Random) -> None:
    """One flipped bit in any record stops its reader."""
    world.faults.counts["bit_flipped"] += 1
    records = world.broker.partition(DECISIONS).everything
    record = random.choice(records)
    flipped = bytearray(record.value)
    flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    try:
        decode(bytes(flipped))
    except CorruptRecord:
        return
    world.violation(f"a flipped bit in record {record.offset} goes unnoticed")


def probe_replay(world: World, truth: Truth) -> None:
    """A delta that is not what it was makes the replay differ."""
    world.faults.counts["replay_disturbed"] += 1
    deltas = list(world.broker.partition(DELTAS).everything)
    final = truth.decisions[-1].decided
    extra = encode_delta(count("a", 31, max(BASE_MS, final.decided_ms) + 10_000_000))
    last = final.last_delta
    deltas[last] = Record(last, 0, b"acme", extra)
    if not replayed(world, truth, deltas)[1]:
        world.violation("a changed delta replays as if it had not changed")


def probe_truncated(world: World, random: Random) -> None:
    """A log without its head stops whoever needs that head."""
    world.faults.counts["log_truncated"] += 1
    topic = random.choice((DELTAS, DECISIONS))
    ended = ended_by(world, {topic: lambda log: log.truncate(min(2, log.end))}, with_files=False)
    if ended != "LogTruncated":
        world.violation(f"a start without the head of {topic} ended by {ended or 'nothing'}")
    log = copied(world.broker.partition(DECISIONS), lambda log: log.truncate(2))
    if (stopped := follower_ended_by(log)) != "LogTruncated":
        world.violation(f"a follower without the log's head ended by {stopped or 'nothing'}")


def probe_regressed(world: World, truth: Truth, random: Random) -> None:
    """An owner whose log forgot what it acknowledged stops at its next append."""
    world.faults.counts["log_regressed"] += 1
    lost = random.randrange(1, 4)
    ended = ended_by(world, {}, with_files=True, then_lose=lost)
    if ended != "LogRegressed":
        world.violation(f"an owner whose log lost {lost} records ended by {ended or 'nothing'}")


def probe_restart(world: World, truth: Truth, final: Any) -> None:
    """A start from what checkpoints there are comes to the same state."""
    settings = OwnerSettings(clock=world.kind.clock, checkpoint_interval_ms=10**9)
    loop, logs, broker = calm_world(world, {})
    actor = ShardActor(
        0,
        logs=logs,
        checkpoints=CheckpointFiles(world.folder),
        clock=HostClock(loop, 60_000),
        settings=settings,
        new_shard=world.kind.new,
        restore=world.kind.restore,
        owner=b"restarted".ljust(16),
        standby=True,
        artefacts=calm_artefacts(world, broker),
    )

    async def start() -> None:
        starting = asyncio.create_task(actor.start())
        while actor.phase != "waiting":
            if starting.done():
                starting.result()
            await asyncio.sleep(0.01)

    try:
        loop.run(start())
    except PricingError as error:
        world.violation(f"a restart ended by {type(error).__name__}: {error}")
        return
    if actor._shard.digest != final.digest or actor.different:
        world.violation("a restart comes to another state than a replay of everything")
    if world.kind.prices(actor._shard) != world.kind.prices(final):
        world.violation("a restart comes to other prices than a replay of everything")
    if world.kind.state(actor._shard) != world.kind.state(final):
        world.violation("a restart remembers otherwise than a replay of everything")


def calm_artefacts(world: World, broker: Broker) -> Fetched | None:
    """Return what fetches the models' artefacts without misfortune, where there are any."""
    held = world.kind.artefacts()
    return Fetched(SimBlobs(held, Random(0), broker.faults)) if held else None


def calm_world(world: World, changes: dict[str, Any]) -> tuple[SimLoop, SimLogs, Broker]:
    """Return a world without misfortunes on copies of the logs."""
    loop = SimLoop(Random(world.seed))
    faults = Faults(Random(0))
    faults.calm = True
    # It goes on an hour later, so that no clock stands behind what was recorded.
    broker = Broker(loop, Random(0), faults, BASE_MS + 60_000)
    for topic in (COMMANDS, DELTAS, DECISIONS):
        change = changes.get(topic, lambda log: None)
        source = world.broker.partition(topic)
        broker.partitions[topic] = copied(source, change, everything=bool(changes))
    return loop, SimLogs(broker), broker


def copied(source: Partition, change: Any, *, everything: bool = True) -> Partition:
    """Return a changed copy of a partition, what retention took included."""
    partition = Partition()
    if everything:
        partition.records = list(source.everything)
    else:
        partition.records, partition.begin = list(source.records), source.begin
    change(partition)
    return partition


def ended_by(world: World, changes: dict[str, Any], *, with_files: bool, then_lose: int = 0) -> str:
    """Return the name of the error that ends an owner on the changed logs, ``""`` for none."""
    loop, logs, broker = calm_world(world, changes)
    folder = world.folder
    if not with_files:
        folder = SimFolder(Random(0), broker.faults)
    actor = ShardActor(
        0,
        logs=logs,
        checkpoints=CheckpointFiles(folder),
        clock=HostClock(loop, 60_000),
        settings=OwnerSettings(clock=world.kind.clock, checkpoint_interval_ms=10**9),
        new_shard=world.kind.new,
        restore=world.kind.restore,
        owner=b"prober".ljust(16),
        artefacts=calm_artefacts(world, broker),
    )

    async def own() -> str:
        running = asyncio.create_task(actor.run())
        await asyncio.sleep(1.0)
        if then_lose:
            partition = broker.partition(DECISIONS)
            partition.regress(partition.end - then_lose)
        await asyncio.sleep(2.0)
        if not running.done():
            return ""
        return type(running.exception()).__name__

    return str(run_quietly(loop, own()))


def follower_ended_by(partition: Partition) -> str:
    """Return the name of the error that ends a follower of these records, ``""`` for none."""
    loop = SimLoop(Random(0))
    faults = Faults(Random(0))
    faults.calm = True
    broker = Broker(loop, Random(0), faults, BASE_MS)
    broker.partitions[DECISIONS] = partition
    sink = Ledger(Store(loop, Random(0), faults))
    follower = Follower(0, log=SimLog(broker, DECISIONS), sink=sink, generation=1)

    async def follow() -> str:
        running = asyncio.create_task(follower.run())
        await asyncio.sleep(0.5)
        return type(running.exception()).__name__ if running.done() else ""

    return str(run_quietly(loop, follow()))


def run_quietly(loop: SimLoop, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run a probe, whose loud endings are what it is for."""
    return loop.run(coro)
