"""A QuestDB of our own, from its one jar, with a password on both of its doors."""

import base64
import http.client
import json
import re
import secrets
import string
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from cluster.servers import installation
from cluster.servers.ports import LOOPBACK, free_ports
from cluster.servers.process import NotReady, Process
from cluster.servers.scratch import java_scratch

USER: Final = "repricer"
PROBE_S: Final = 5.0

# Tables are made by DDL only: one made by the first row has no deduplication. Columns grow by a
# megabyte, not by sixteen: a few empty tables would fill a small disk.
SETTINGS: Final = string.Template("""\
config.validation.strict=true
http.net.bind.to=127.0.0.1:$http_port
http.min.net.bind.to=127.0.0.1:$health_port
pg.net.bind.to=127.0.0.1:$pg_port
http.user=$user
http.password=$password
pg.user=$user
pg.password=$password
line.tcp.enabled=false
line.udp.enabled=false
line.auto.create.new.tables=false
line.auto.create.new.columns=false
telemetry.enabled=false
metrics.enabled=true
cairo.commit.mode=nosync
cairo.ttl.use.wall.clock=true
cairo.writer.data.append.page.size=1048576
""")

# A worker without work first yields its processor 7,000 times in a row, then naps for a millisecond
# 3,000 times, and only then sleeps. With rows every second none of them ever comes to rest.
WORKERS: Final = ("shared", "http.min", "wal.apply", "mat.view.refresh", "view.compiler", "export")
RESTING: Final = {
    "yield.threshold": 10,
    "nap.threshold": 100,
    "sleep.threshold": 200,
    "sleep.timeout": 10,
}
"""When a worker that found nothing to do so many times yields, naps (1 ms), sleeps (so many ms)."""

# Its logging thread rests no sooner, so it is given little to write: no line for every commit.
LOG_SETTINGS: Final = """\
writers=stdout
w.stdout.class=io.questdb.log.LogConsoleWriter
w.stdout.level=ERROR,CRITICAL,ADVISORY
"""


@dataclass(frozen=True)
class QuestDBAddress:
    """Where a QuestDB listens, and as whom to speak to it."""

    host: str
    http_port: int
    pg_port: int
    user: str
    password: str

    @property
    def http_url(self) -> str:
        """Return the base URL, without credentials: send those as basic authentication."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def pg_dsn(self) -> str:
        """Return the DSN of its Postgres wire. It has no COPY."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.pg_port}/qdb"

    @property
    def sender_conf(self) -> str:
        """Return the configuration string of the client's ``Sender``, over HTTP."""
        return (
            f"http::addr={self.host}:{self.http_port};"
            f"username={self.user};password={self.password};"
        )

    @classmethod
    def parse(cls, url: str) -> "QuestDBAddress":
        """Read ``http://user:password@host:9000?pg_port=8812``."""
        parts = urllib.parse.urlsplit(url)
        query = urllib.parse.parse_qs(parts.query)
        return cls(
            host=parts.hostname or LOOPBACK,
            http_port=parts.port or 9000,
            pg_port=int(query.get("pg_port", ["8812"])[0]),
            user=urllib.parse.unquote(parts.username or "admin"),
            password=urllib.parse.unquote(parts.password or "quest"),
        )


@final
class QuestDB:
    """One QuestDB, its data in one folder, on the same ports for as long as it exists."""

    def __init__(
        self, folder: Path, *, http_port: int | None = None, pg_port: int | None = None
    ) -> None:
        free = free_ports(3)
        self._folder = folder
        self._address = QuestDBAddress(
            host=LOOPBACK,
            http_port=http_port or free[0],
            pg_port=pg_port or free[1],
            user=USER,
            password=secrets.token_hex(16),
        )
        self._health_port = free[2]
        self._process = Process("questdb", folder / "questdb.log")

    @property
    def address(self) -> QuestDBAddress:
        """Return where it listens, and as whom to speak to it."""
        return self._address

    @property
    def pid(self) -> int:
        """Return the server's pid."""
        return self._process.pid

    def version(self) -> str:
        """Ask the server what it is."""
        return version_at(self._address)

    def start(self) -> None:
        """Start the server and wait until it answers a query."""
        jar = installation.questdb_jar()
        java = installation.java_program()
        self._prepare()
        self._process.start(
            [
                *(str(java), "-XX:+UseParallelGC", "-Xms128m", "-Xmx1g"),
                *java_scratch(self._folder),
                *("-p", str(jar), "-m", "io.questdb/io.questdb.ServerMain"),
                *("-d", str(self._folder / "root"), "-n"),
            ],
            lambda: probe(self._address),
            wait_s=90,
            # A projection stands back behind whoever decides and answers on the same machine.
            yielding=True,
        )

    def stop(self) -> None:
        """Ask the server to end; one that hangs, which it sometimes does, is killed."""
        self._process.stop()

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._process.kill()

    def pause(self) -> None:
        """Freeze the server."""
        self._process.pause()

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._process.resume()

    def _prepare(self) -> None:
        settings = self._folder / "root" / "conf" / "server.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.touch(mode=0o600)
        settings.write_text(
            SETTINGS.substitute(
                http_port=self._address.http_port,
                pg_port=self._address.pg_port,
                health_port=self._health_port,
                user=self._address.user,
                password=self._address.password,
            )
            + resting_workers()
        )
        (settings.parent / "log.conf").write_text(LOG_SETTINGS)


def resting_workers() -> str:
    """Return the settings that let workers come to rest between two writes."""
    return "".join(
        f"{pool}.worker.{name}={value}\n" for pool in WORKERS for name, value in RESTING.items()
    )


def probe(address: QuestDBAddress) -> None:
    """Return if the server answers a query.

    Raises:
        NotReady: not yet.
    """
    try:
        answer = query(address, "select 1")
    except (http.client.HTTPException, urllib.error.URLError, TimeoutError) as error:
        raise NotReady(repr(error)) from error
    if "dataset" not in answer:
        raise NotReady(repr(answer))


def version_at(address: QuestDBAddress) -> str:
    """Return the version of the QuestDB at an address."""
    build = str(query(address, "select build()")["dataset"][0][0])
    told = re.search(r"QuestDB (\S+?),", build)
    return told[1] if told else build


def query(address: QuestDBAddress, statement: str) -> dict[str, Any]:
    """Run one statement over HTTP and return the decoded answer."""
    credentials = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
    request = urllib.request.Request(
        f"{address.http_url}/exec?{urllib.parse.urlencode({'query': statement})}",
        headers={"Authorization": f"Basic {credentials}"},
    )
    with urllib.request.urlopen(request, timeout=PROBE_S) as response:
        decoded: dict[str, Any] = json.load(response)
        return decoded
