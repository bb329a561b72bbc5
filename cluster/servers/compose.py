"""The same four servers from docker compose, where a daemon answers."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Final, final

from cluster.servers.ports import LOOPBACK, free_ports
from cluster.servers.questdb import QuestDBAddress

COMPOSE_FILE: Final = Path(__file__).parent.parent / "deploy" / "compose.yaml"
UP_S: Final = 300
DOWN_S: Final = 60


def daemon_answers() -> bool:
    """Tell whether docker compose is installed and its daemon answers."""
    if shutil.which("docker") is None:
        return False
    try:
        for command in (["docker", "compose", "version"], ["docker", "info"]):
            subprocess.run(command, check=True, capture_output=True, timeout=10)
    except (subprocess.SubprocessError, OSError):
        return False
    return True


@final
class Compose:
    """One compose project of ours, on free loopback ports, with a password of its own."""

    def __init__(self) -> None:
        kafka, postgres, questdb_http, questdb_pg, redis = free_ports(5)
        self._project = f"repricer-{os.getpid()}"
        self._password = secrets.token_hex(16)
        self._kafka_port = kafka
        self._postgres_port = postgres
        self._questdb = QuestDBAddress(
            LOOPBACK, questdb_http, questdb_pg, "repricer", self._password
        )
        self._redis_port = redis

    def kafka(self) -> str:
        """Start Kafka and return its bootstrap address."""
        self._up("kafka")
        return f"{LOOPBACK}:{self._kafka_port}"

    def postgres(self) -> str:
        """Start Postgres and return its DSN."""
        self._up("postgres")
        return f"postgresql://repricer:{self._password}@{LOOPBACK}:{self._postgres_port}/repricer"

    def questdb(self) -> QuestDBAddress:
        """Start QuestDB and return where it listens."""
        self._up("questdb")
        return self._questdb

    def redis(self) -> str:
        """Start Redis and return its URL."""
        self._up("redis")
        return f"redis://:{self._password}@{LOOPBACK}:{self._redis_port}/0"

    def stop(self) -> None:
        """Remove the containers and their data."""
        self._run("down", "--volumes", "--timeout", "10", wait_s=DOWN_S)

    def _up(self, service: str) -> None:
        self._run("up", "--detach", "--wait", service, wait_s=UP_S)

    def _run(self, *words: str, wait_s: int) -> None:
        subprocess.run(
            ["docker", "compose", "-p", self._project, "-f", str(COMPOSE_FILE), *words],
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=wait_s,
            env={
                **os.environ,
                "REPRICER_PASSWORD": self._password,
                "REPRICER_KAFKA_PORT": str(self._kafka_port),
                "REPRICER_POSTGRES_PORT": str(self._postgres_port),
                "REPRICER_QUESTDB_HTTP_PORT": str(self._questdb.http_port),
                "REPRICER_QUESTDB_PG_PORT": str(self._questdb.pg_port),
                "REPRICER_REDIS_PORT": str(self._redis_port),
            },
        )
