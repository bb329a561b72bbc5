"""A whole engine on the real servers, for the rows of ``docs/evidence.md``.

``EngineUnderTest`` is ``repricer up`` as an operator runs it: a child process, spoken to by its
command line, its files and the servers; nothing of it is imported into the measuring process.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.assembly import make_logs
from cluster.commands.living import gather_status
from cluster.processes import leftovers, tree_mark
from cluster.servers.kafka import Kafka
from cluster.servers.postgres import Postgres
from cluster.servers.questdb import QuestDB
from cluster.servers.redis import Redis
from cluster.servers.stack import Stack
from cluster.settings import Settings, load
from persistence.decision_reader import Accepted, DecisionReader
from persistence.ports import DECISIONS

ROOT = Path(__file__).resolve().parent.parent
READY_S = 240.0
SAID_CHARACTERS = 2_000
"""So much of a state is told to people; ``NotReached.whole`` holds the rest."""


class NotReached(Exception):
    """Something that must happen did not in time; ``whole`` is all that is known of it."""

    def __init__(self, said: str, whole: str = "") -> None:
        super().__init__(said)
        self.whole = whole or said


class EngineUnderTest:
    """``repricer up`` in a folder of its own."""

    def __init__(self, folder: Path, values: Mapping[str, Any]) -> None:
        self.folder = folder
        self.values = {"folder": str(folder / "data"), "gateway.port": 0, **values}
        self.values.setdefault("ray.dashboard_port", 0)
        self.ready: dict[str, Any] = {}
        self._up: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        """Return the settings as the engine resolves them."""
        nested: dict[str, Any] = {}
        for name, value in self.values.items():
            *parts, last = name.split(".")
            place = nested
            for part in parts:
                place = place.setdefault(part, {})
            place[last] = value
        return load(nested)

    @property
    def flags(self) -> list[str]:
        """Return the settings as flags of any verb."""
        flags = []
        for name, value in self.values.items():
            text = toml(value)
            flags += ["--set", f"{name}={text}"]
        return flags

    def start(self) -> float:
        """Start it and return after how many seconds every shard is live.

        A spare is made after that and takes a core for some seconds, so it is waited for: what is
        measured then is not a start.
        """
        began = time.monotonic()
        ends = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ends and threading.current_thread() is threading.main_thread():
            # Whoever ends a measurement ends its engine and servers, too.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with (self.folder / "up.log").open("ab") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "cluster", "up", "--json", *self.flags],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._up.stdout is not None
        line = self._up.stdout.readline()
        answer = json.loads(line) if line else {"error": {"detail": "it ended"}}
        if "error" in answer:
            raise NotReached(f"repricer up: {answer['error']['detail']}; see {self.folder}")
        self.ready = answer
        live_s = time.monotonic() - began
        if self.settings.supervisor.spare:
            asyncio.run(
                self.until(lambda state: state["supervisor"].get("spare", False), "a spare waits")
            )
        return live_s

    def stop(self) -> int:
        """Drain it; return how many processes it left behind."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(90)
            except subprocess.TimeoutExpired:
                self._up.kill()
        if self._up is not None and self._up.stdout is not None:
            self._up.stdout.close()
        return len(leftovers(tree_mark(self.settings.folder)))

    def last_words(self) -> str:
        """Return the ends of the processes' logs, for an error's message."""
        logs = sorted((self.folder / "data" / "logs").glob("*.log"))
        tails = (f"{path.name}: " + " | ".join(_tail(path)) for path in logs)
        return "\n".join(tails)

    def verb(self, *words: str, wait_s: float = 1800) -> dict[str, Any]:
        """Run another verb on the same settings and return its last line."""
        done = subprocess.run(
            [sys.executable, "-m", "cluster", *words, "--json", *self.flags],
            cwd=ROOT,
            capture_output=True,
            timeout=wait_s,
            check=False,
        )
        lines = done.stdout.decode().strip().splitlines()
        if not lines:
            raise NotReached(f"repricer {words[0]}: {done.stderr.decode()[-800:]}")
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer | {"exit_code": done.returncode}

    def begin_verb(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start another verb and leave it running; its last line is read with ``end_verb``."""
        return subprocess.Popen(
            [sys.executable, "-m", "cluster", *words, "--json", *self.flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    async def status(self) -> dict[str, Any]:
        """Return what ``repricer status`` shows."""
        return await gather_status(self.settings)

    async def until(
        self, reached: Callable[[dict[str, Any]], bool], what: str, wait_s: float = 300.0
    ) -> dict[str, Any]:
        """Return the first state in which something holds."""
        deadline = time.monotonic() + wait_s
        while True:
            state = await self.status()
            if reached(state):
                return state
            if time.monotonic() > deadline:
                whole = f"not within {wait_s:.0f} s: {what}: {json.dumps(state)}"
                raise NotReached(whole[:SAID_CHARACTERS], whole)
            await asyncio.sleep(1.0)

    async def until_decided(self, wait_s: float = 900.0) -> dict[str, Any]:
        """Return once every delta sent is decided and every follower has written it.

        How far the followers must come is read from the log itself, after the owners have said
        that they are done: an owner that was killed meanwhile has said nothing.
        """
        count = self.settings.shards.count
        await self.until(lambda state: decided(state, count), "every delta decided", wait_s)
        reached = await last_seqs(self.settings)
        return await self.until(
            lambda state: caught_up(state, reached), "followers caught up", wait_s
        )


def _tail(path: Path, lines: int = 4) -> list[str]:
    return [line[:400] for line in path.read_text(errors="replace").splitlines()[-lines:]]


def end_verb(process: "subprocess.Popen[bytes]", wait_s: float = 1800) -> dict[str, Any]:
    """Return the last line of a verb that was left running."""
    out, _ = process.communicate(timeout=wait_s)
    answer: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return answer


def decided(state: Mapping[str, Any], shards: int) -> bool:
    """Whether every shard has a live owner that has consumed all deltas."""
    live = [each for each in state["shards"] if each.get("phase") == "live"]
    return len({each["shard"] for each in live}) == shards and all(
        each.get("lag_records") == 0 for each in live
    )


def caught_up(state: Mapping[str, Any], reached: Mapping[int, int]) -> bool:
    """Whether every follower has written what the shards had decided by then."""
    followers = state["followers"]
    return bool(followers) and all(
        not each["stopped_by"] and each["seq"] >= reached[each["shard"]] for each in followers
    )


def toml(value: object) -> str:
    """Return a value as the right side of a TOML assignment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return str(value)


@contextmanager
def real_servers() -> Iterator[tuple[Stack, dict[str, Any], Path]]:
    """Start Kafka, Postgres, QuestDB and Redis; give them, the settings for them, and a folder."""
    with (
        tempfile.TemporaryDirectory(prefix="repricer-", ignore_cleanup_errors=True) as name,
        Stack() as stack,
    ):
        folder = Path(name)
        settings = server_settings(folder, stack.kafka, stack.postgres, stack.questdb, stack.redis)
        yield stack, settings, folder


def server_settings(
    folder: Path, broker: Kafka, tables: Postgres, series: QuestDB, cache: Redis
) -> dict[str, Any]:
    """Return the settings that point at these servers; passwords lie in files."""
    postgres, redis = urlsplit(tables.address), urlsplit(cache.address)
    quest = series.address
    passwords = {
        "tables": postgres.password or "",
        "series": quest.password,
        "cache": redis.password or "",
    }
    values: dict[str, Any] = {}
    for name, password in passwords.items():
        path = folder / f"{name}.password"
        path.touch(mode=0o600)
        path.write_text(password)
        values[f"{name}.password_file"] = str(path)
    place = f"{postgres.username}@{postgres.hostname}:{postgres.port}{postgres.path}"
    return values | {
        "log.backend": "kafka",
        "log.bootstrap": broker.address,
        "tables.backend": "postgres",
        "tables.url": f"postgresql://{place}",
        "series.backend": "questdb",
        "series.url": f"http://{quest.host}:{quest.http_port}",
        "series.user": quest.user,
        "series.ttl_days": 0,
        "cache.backend": "redis",
        "cache.url": f"redis://{redis.hostname}:{redis.port}{redis.path or '/0'}",
    }


@contextmanager
def engine(embedded: bool, **values: Any) -> Iterator[EngineUnderTest]:
    """Give an engine on the real servers, or on embedded stores, not yet started."""
    if embedded:
        with tempfile.TemporaryDirectory(prefix="repricer-", ignore_cleanup_errors=True) as name:
            yield EngineUnderTest(Path(name), values)
        return
    with real_servers() as (_, settings, folder):
        yield EngineUnderTest(folder, {**settings, **values})


def on_engine(
    embedded: bool,
    values: Mapping[str, Any],
    say: Callable[[str], None],
    measure: Callable[[EngineUnderTest], Coroutine[Any, Any, dict[str, Any]]],
) -> dict[str, Any]:
    """Start an engine, measure on it, stop it; return the figures and what it left behind.

    ``start_s`` is what ``repricer up`` took until every shard was live, with nothing in it.
    """
    with engine(embedded, **values) as under_test:
        say("starting the stack")
        start_s = under_test.start()
        try:
            figures = asyncio.run(measure(under_test))
        finally:
            left = under_test.stop()
    return figures | {"start_s": round(start_s, 2), "processes_left": left}


async def decisions(settings: Settings, shard: int) -> AsyncIterator[Accepted]:
    """Yield every record that counts of one shard's decision log, up to its present end.

    The reader raises at a gap, a doubled ``seq`` is dropped: so what is yielded is contiguous.
    """
    logs = make_logs(settings)
    log = await logs.open(DECISIONS, shard)
    try:
        end = await log.end()
        reader = DecisionReader(None, shard=shard, generation=settings.shards.generation)
        while reader.offset < end - 1:
            for record in await log.read(reader.offset, limit=500, wait_ms=1000):
                accepted = reader.accept(record)
                if accepted is not None:
                    yield accepted
    finally:
        await log.close()
        await logs.close()


async def last_seqs(settings: Settings) -> dict[int, int]:
    """Return the last decision that counts of every shard, by the log."""
    found = {}
    for shard in range(settings.shards.count):
        found[shard] = 0
        async for accepted in decisions(settings, shard):
            found[shard] = accepted.position.seq
    return found


def print_line(value: Mapping[str, Any]) -> None:
    """Print the one line of JSON with which every row's command ends."""
    print(json.dumps(value, sort_keys=False), flush=True)


def machine() -> str:
    """Return what was measured on, in a few words."""
    return f"{os.cpu_count()} cores, Linux {os.uname().release.split('-')[0]}"
