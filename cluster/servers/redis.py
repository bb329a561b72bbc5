"""A Redis of our own, with a password and an append-only file."""

import secrets
from pathlib import Path
from typing import Final, final

import redis

from cluster.servers import installation
from cluster.servers.ports import LOOPBACK, free_ports
from cluster.servers.process import NotReady, Process

PROBE_S: Final = 5.0


@final
class Redis:
    """One Redis, its data in one folder, on the same port for as long as it exists."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self._folder = folder
        self._port = port or free_ports(1)[0]
        self._password = secrets.token_hex(16)
        self._process = Process("redis", folder / "redis.log")

    @property
    def address(self) -> str:
        """Return the URL, password included."""
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Return the server's pid."""
        return self._process.pid

    def version(self) -> str:
        """Ask the server what it is."""
        return version_at(self.address)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        # In a file, because the words of a command are visible to every user of the machine.
        settings = self._folder / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind {LOOPBACK}\nport {self._port}\nrequirepass {self._password}\n"
            f'dir "{data}"\nappendonly yes\nappendfsync everysec\nsave ""\ndaemonize no\n'
        )
        self._process.start(
            [str(installation.redis_program()), str(settings)],
            lambda: probe(self.address),
            wait_s=30,
        )

    def stop(self) -> None:
        """Let the server write what it holds and end."""
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


def probe(url: str) -> None:
    """Return if the server answers and has read its data back.

    Raises:
        NotReady: not yet.
    """
    try:
        version_at(url)
    except redis.RedisError as error:
        raise NotReady(repr(error)) from error


def version_at(url: str) -> str:
    """Return the version of the Redis at a URL."""
    with redis.Redis.from_url(
        url, socket_timeout=PROBE_S, socket_connect_timeout=PROBE_S
    ) as client:
        client.ping()  # refused while the data is being loaded, which `info` is not
        return str(client.info("server")["redis_version"])
