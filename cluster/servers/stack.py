"""All four servers at once, under one temporary folder."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, final

from cluster.servers.kafka import Kafka
from cluster.servers.postgres import Postgres
from cluster.servers.questdb import QuestDB
from cluster.servers.redis import Redis


@final
class Stack:
    """The four servers of one trial; use it in a ``with``, and nothing is left behind."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="repricer-", ignore_cleanup_errors=True)
        root = Path(self._folder.name)
        root.chmod(0o711)  # Postgres may run as another user and must get through
        for name in ("kafka", "postgres", "questdb", "redis"):
            (root / name).mkdir()
        self.kafka = Kafka(root / "kafka")
        self.postgres = Postgres(root / "postgres")
        self.questdb = QuestDB(root / "questdb")
        self.redis = Redis(root / "redis")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all four side by side; if one fails, none stays."""
        servers = (self.kafka, self.postgres, self.questdb, self.redis)
        with ThreadPoolExecutor(len(servers)) as threads:
            starts = [threads.submit(server.start) for server in servers]
        failures = [failure for start in starts if (failure := start.exception())]
        if failures:
            self.stop()
            raise failures[0]

    def stop(self) -> None:
        """Stop all four side by side and remove their data."""
        servers = (self.kafka, self.postgres, self.questdb, self.redis)
        with ThreadPoolExecutor(len(servers)) as threads:
            stops = [threads.submit(server.stop) for server in servers]
        self._folder.cleanup()
        for stop in stops:
            stop.result()
