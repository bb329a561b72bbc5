"""The process of one owner: a shard actor on a loop of its own, watched and steered over loopback.

A *spare* is such a process that has imported and compiled everything and owns nothing yet: it
becomes the owner of whichever shard needs one next.

``cluster.placement`` makes a Ray actor of :class:`OwnerProcess`. Ray starts it, names it and shows
it; nothing that matters afterwards goes through Ray, so an owner decides on when Ray's head is
gone. It is crash-only: whatever ends it, it leaves word of why and is gone.
"""

import asyncio
import importlib.abc
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop
from msgspec import Struct, structs

from actors.pauses import keep
from actors.shard_actor import ShardActor
from actors.starts import Start
from cluster.control import ControlServer, control_token
from cluster.priority import stand_alone
from cluster.processes import ProcessName, own_name, write_file
from cluster.settings import Settings
from cluster.telemetry import configure_logs, make_registry, owner_samples
from engine.errors import (
    ClockFault,
    FailedDependency,
    LogFault,
    MurderousBatch,
    SettingsRefused,
    StaleEpoch,
)
from engine.microbatch import STOCK_COUNTED
from persistence.frames import FRAME, FrameColumns, encode_frame
from persistence.ports import Record
from persistence.wire import Decoder

LOGGER = logging.getLogger("repricer.owner")

DRAIN_CHECKPOINT_S = 20.0

ENDS: tuple[tuple[type[Exception], str], ...] = (
    (StaleEpoch, "fenced"),
    (ClockFault, "clock_fault"),
    (LogFault, "log_fault"),
    (SettingsRefused, "settings_refused"),
    (MurderousBatch, "murderous_batch"),
    (FailedDependency, "no_answer"),
)
"""Ends that say themselves why. Everything else is unexplained."""

WARM_LEARNING_AFTER_S = 20.0
"""When learning's kernels are compiled: not while an engine begins and its processors are full."""


class OwnerCard(Struct, frozen=True, kw_only=True):
    """Where an owner runs, as its file in the run folder says."""

    start: Start
    process: ProcessName
    address: str


class End(Struct, frozen=True, kw_only=True):
    """Why an owner ended; ``end`` is ``None`` when it does not know either."""

    end: str | None
    detail: str


def end_of(error: BaseException) -> End:
    """Return the last words of an owner that this error ended."""
    kinds = [kind for type_, kind in ENDS if isinstance(error, type_)]
    return End(end=next(iter(kinds), None), detail=f"{type(error).__name__}: {error}")


def owner_card_file(run_folder: Path, name: str) -> Path:
    """Return the file that says where an owner runs."""
    return run_folder / "owners" / f"{name}.json"


def end_file(run_folder: Path, name: str) -> Path:
    """Return the file that says why an owner ended."""
    return run_folder / "ends" / f"{name}.json"


def spare_cards(run_folder: Path) -> dict[str, ProcessName]:
    """Return the spares that were made and not cleared away, by name."""
    folder = run_folder / "spares"
    return {
        card.stem: msgspec.json.decode(content, type=ProcessName)
        for card, content in _read_cards(folder, "spare-*.json")
    }


def spare_file(run_folder: Path, name: str) -> Path:
    """Return the file that says where a spare waits."""
    return run_folder / "spares" / f"{name}.json"


def owner_cards(run_folder: Path) -> list[OwnerCard]:
    """Return the cards of all owners that ever ran and were not cleared away, by name."""
    folder = run_folder / "owners"
    return [
        msgspec.json.decode(content, type=OwnerCard)
        for _, content in _read_cards(folder, "shard-*.json")
    ]


def _read_cards(folder: Path, pattern: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the cards of a folder, in the order of their names, with what they say.

    Who ends takes its card away, perhaps after it was listed here.
    """
    for card in sorted(folder.glob(pattern)) if folder.is_dir() else []:
        try:
            yield card, card.read_bytes()
        except FileNotFoundError:
            continue


class OwnerProcess:
    """Hosts one shard actor. Its methods are called by Ray, in threads that are not the loop's."""

    def __init__(self, settings_json: str, name: str) -> None:
        self._settings = Settings.model_validate_json(settings_json)
        self._name = name
        self._start: Start
        self._begun: Future[dict[str, Any]] = Future()
        self._warming: threading.Thread | None = None
        # JAX comes with them: whoever only knows of owners (the gateway, the supervisor, a verb)
        # does without its 140 MB and seconds of start, and an owner has it before it is begun.
        from engine import learning, pricing

        self._learning, self._pricing = learning, pricing

    def prepare(self) -> dict[str, Any]:
        """Import and compile what any owner needs, and say in the run folder that a spare waits.

        None of it depends on the shard, and it is nearly all that a cold start takes.
        """
        warm_process(self._settings)
        process = own_name()
        write_file(spare_file(self._settings.run_folder, self._name), process)
        self._warm_learning()
        return {"pid": process.pid}

    def begin(self, start_json: str) -> dict[str, Any]:
        """Start the loop; return the process's pid and address once it can be asked."""
        stand_alone()
        self._start = msgspec.json.decode(start_json, type=Start)
        thread = threading.Thread(target=self._run, name=self._start.name, daemon=True)
        thread.start()
        return self._begun.result(timeout=30)

    def where(self) -> dict[str, Any]:
        """Return pid and address again."""
        return self._begun.result(timeout=0)

    def __repr__(self) -> str:
        return self._name

    def _run(self) -> None:
        name, run_folder = self._start.name, self._settings.run_folder
        telemetry = self._settings.telemetry
        try:
            # No spare any more, whoever dies next: a supervisor that begins anew ends spares.
            spare_file(run_folder, self._name).unlink(missing_ok=True)
            configure_logs(
                name,
                self._settings.folder / "logs",
                level=telemetry.level,
                as_json=telemetry.json_logs,
            )
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._live())
            end = End(end="drained", detail="told to stop")
        except BaseException as error:  # the one place: log, leave word, die
            end = end_of(error)
            LOGGER.error("%s ended: %s", name, end.detail, exc_info=error)
        try:
            write_file(end_file(run_folder, name), end)
            owner_card_file(run_folder, name).unlink(missing_ok=True)
        except OSError as error:
            # A full disk takes no last words, and it must be gone all the same.
            LOGGER.error("%s leaves no word: %s", name, error)
        logging.shutdown()
        sys.stderr.flush()
        # Ray would keep the process; a dead owner must be seen to be dead.
        os._exit(0 if end.end == "drained" else 1)

    async def _live(self) -> None:
        from cluster.assembly import fetch_checkpoint, make_logs, make_owner

        do_without_pandas()
        logs = make_logs(self._settings)
        shard = self._start.shard
        warm_wire()
        await fetch_checkpoint(self._settings, shard)
        actor = await make_owner(self._settings, self._start, logs)
        draining = asyncio.Event()

        async def take_over(arguments: Mapping[str, Any]) -> dict[str, Any]:
            return await self._take_over(actor, address, arguments)

        async def checkpoint(_: Mapping[str, Any]) -> dict[str, Any]:
            return {"name": await actor.checkpoint()}

        async def strong_read(arguments: Mapping[str, Any]) -> dict[str, Any]:
            listing, deadline_ms = int(arguments["listing"]), int(arguments["deadline_ms"])
            return {"listing": await actor.strong_read(listing, deadline_ms)}

        async def features(arguments: Mapping[str, Any]) -> dict[str, Any]:
            return await actor.features(
                msgspec.convert(arguments["listings"], tuple[int, ...]),
                int(arguments["deadline_ms"]),
                strong=bool(arguments["strong"]),
            )

        async def learning(arguments: Mapping[str, Any]) -> dict[str, Any]:
            retailer, deadline_ms = str(arguments["retailer"]), int(arguments["deadline_ms"])
            return await actor.learning(retailer, deadline_ms)

        async def live_facts(arguments: Mapping[str, Any]) -> dict[str, Any]:
            listing, deadline_ms = int(arguments["listing"]), int(arguments["deadline_ms"])
            told = await actor.live_facts(listing, deadline_ms)
            return {**told, "facts": msgspec.to_builtins(told["facts"])}

        async def models(_: Mapping[str, Any]) -> dict[str, Any]:
            return actor.models()

        async def stop(_: Mapping[str, Any]) -> dict[str, Any]:
            draining.set()
            return {"phase": actor.phase}

        server = ControlServer(
            control_token(self._settings.run_folder),
            status=lambda: self._status(actor),
            registry=make_registry("owner", lambda: owner_samples(self._status(actor))),
            acts={
                "take-over": take_over,
                "checkpoint": checkpoint,
                "strong-read": strong_read,
                "features": features,
                "learning": learning,
                "live-facts": live_facts,
                "models": models,
                "stop": stop,
            },
        )
        address = await server.start()
        process = own_name()
        self._leave_card(address)
        self._begun.set_result({"pid": process.pid, "address": address})
        await self._until_drained(actor, draining)
        await server.close()
        await logs.close()

    async def _take_over(
        self, actor: ShardActor, address: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Let it seal, and keep on its card whom it pardons: who else knows it may be replaced."""
        told = map(bytes.fromhex, msgspec.convert(arguments.get("pardoned", ()), tuple[str, ...]))
        pardoned = tuple(dict.fromkeys((*self._start.pardoned, *told)))
        await actor.take_over(pardoned)
        self._start = structs.replace(self._start, pardoned=pardoned)
        try:
            self._leave_card(address)
        except OSError as error:
            # A full disk takes no card, and the shard must have its owner all the same.
            LOGGER.error("%s leaves no card of its pardons: %s", self._start.name, error)
        return {"phase": actor.phase}

    def _leave_card(self, address: str) -> None:
        """Say in the run folder what a supervisor that begins anew must know of this start."""
        card = OwnerCard(start=self._start, process=own_name(), address=address)
        write_file(owner_card_file(self._settings.run_folder, self._start.name), card)

    async def _until_drained(self, actor: ShardActor, draining: asyncio.Event) -> None:
        """Let the actor live until it ends by itself, or is told to: then with a checkpoint."""
        warming = asyncio.ensure_future(self._warm_once_ready(actor))
        try:
            await self._live_out(actor, draining)
        finally:
            warming.cancel()

    async def _warm_once_ready(self, actor: ShardActor) -> None:
        """Let a start that somebody waits for come first: this process was no spare."""
        await actor.ready.wait()
        self._warm_learning()

    def _warm_learning(self) -> None:
        """Compile what learning needs, once, soon, beside whatever this process does.

        A retailer's learning may be switched on in any microbatch, which then decides by it: by
        then it must be compiled, or that microbatch takes a second. The thread is a daemon: who
        ends does not wait for a compiler.
        """
        if self._warming is None:
            self._warming = threading.Timer(WARM_LEARNING_AFTER_S, self._compile)
            self._warming.daemon = True
            self._warming.start()

    def _compile(self) -> None:
        try:
            self._learning.warm()
        except Exception:
            LOGGER.exception("%s could not compile what learning needs ahead", self._name)
        keep()

    async def _live_out(self, actor: ShardActor, draining: asyncio.Event) -> None:
        living = asyncio.ensure_future(actor.run())
        told = asyncio.ensure_future(draining.wait())
        await asyncio.wait({living, told}, return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            told.cancel()
            living.result()
            return
        if actor.phase == "live":
            await self._last_checkpoint(actor, living)
        living.cancel()
        await asyncio.wait({living}, timeout=5)

    async def _last_checkpoint(self, actor: ShardActor, living: "asyncio.Future[None]") -> None:
        """Take one more checkpoint, so that the next start replays little; do not insist on it."""
        taking = asyncio.ensure_future(actor.checkpoint())
        both: set[asyncio.Future[Any]] = {taking, living}
        await asyncio.wait(both, timeout=DRAIN_CHECKPOINT_S, return_when=asyncio.FIRST_COMPLETED)
        if taking.done() and taking.exception() is None:
            LOGGER.info("%s drained to %s", self._start.name, taking.result())
            return
        taking.cancel()
        LOGGER.warning("%s stops without a last checkpoint", self._start.name)

    def _status(self, actor: ShardActor) -> dict[str, Any]:
        return {
            "name": self._start.name,
            "number": self._start.number,
            "pid": os.getpid(),
            "memory_bytes": memory_bytes(),
            # Constant while it lives, but for its first seconds.
            "compiled_shapes": self._pricing.compiled_shapes() + self._learning.compiled_shapes(),
            "tasks": len(asyncio.all_tasks()),
            **actor.status(),
        }


def warm_process(settings: Settings) -> None:
    """Do what a cold start spends its time on: imports, the wire's first frame, the kernels."""
    from cluster.assembly import make_logs, make_tables
    from engine.shard import Shard, ShardSettings

    do_without_pandas()
    make_logs(settings)  # neither connects before it is used
    if settings.tables.backend != "sqlite":
        make_tables(settings)
    warm_wire()
    Shard(ShardSettings(shard=0, generation=settings.shards.generation)).warm()


def do_without_pandas() -> None:
    """Let Arrow believe that pandas is not installed, in this process.

    It looks for it at its first array, and importing it takes a second and 40 MB. Nothing in an
    owner uses it, and what asks for it (Arrow, XGBoost) does without where it is missing.
    """
    if not any(isinstance(finder, WithoutPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, WithoutPandas())


class WithoutPandas(importlib.abc.MetaPathFinder):
    """Says that there is no pandas."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Raise for pandas, and know nothing of any other module."""
        if name == "pandas":
            raise ModuleNotFoundError("an owner does without pandas", name=name)


def warm_wire() -> None:
    """Encode and decode one frame, so that no owner meets anything for the first time live."""
    zero = np.zeros(1, np.int64)
    facts = FrameColumns(
        kind=zero.astype(np.uint8) + STOCK_COUNTED,
        listing=zero.astype(np.uint64),
        amount=zero,
        observed_ms=zero,
        rival=zero.astype(np.int32) - 1,
        shipping_minor=zero.astype(np.int32),
        currency=zero.astype(np.uint32),
        flags=zero.astype(np.uint8),
        source=zero.astype(np.int32) - 1,
        source_seq=zero - 1,
        event=zero.astype(np.uint64),
    )
    record = Record(0, 0, b"warm", encode_frame("warm", facts), FRAME)
    batch = Decoder(0, 1, {}).decode([], [record], last_command=-1, last_delta=0)
    assert batch.deltas == 1


def memory_bytes() -> int:
    """Return how much memory this process has resident."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
