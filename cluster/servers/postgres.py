"""A Postgres of our own, from Debian's programs, with a password."""

import asyncio
import os
import pwd
import secrets
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, final

import asyncpg

from cluster.servers import installation
from cluster.servers.ports import LOOPBACK, free_ports
from cluster.servers.process import NotReady, Process, ServerFailed

USER: Final = "repricer"
DATABASE: Final = "repricer"
LOCALE: Final = {"LC_ALL": "C.UTF-8"}


@final
class Postgres:
    """One Postgres, its data in one folder, on the same port for as long as it exists.

    Postgres refuses to run as root. When we are root it runs as the user ``postgres``, who must be
    able to enter the folder: one below a private temporary folder will not do.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self._folder = folder / "cluster"
        self._port = port or free_ports(1)[0]
        self._password = secrets.token_hex(16)
        self._user = "postgres" if os.geteuid() == 0 else None
        # An interrupt is its fast shutdown; a plain termination waits for every client to leave.
        self._process = Process("postgres", folder / "postgres.log", signal.SIGINT)

    @property
    def address(self) -> str:
        """Return the DSN of an empty database, as its owner."""
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self._port}/{DATABASE}"

    @property
    def pid(self) -> int:
        """Return the postmaster's pid."""
        return self._process.pid

    def version(self) -> str:
        """Ask the server what it is."""
        return version_at(self.address)

    def start(self) -> None:
        """Start the server, make its cluster first if it is new, and wait until it answers."""
        programs = installation.postgres_programs()
        self._prepare(programs)
        self._process.start(
            [
                *(str(programs / "postgres"), "-D", str(self._folder / "data")),
                *("-c", f"listen_addresses={LOOPBACK}", "-p", str(self._port)),
                *("-c", f"unix_socket_directories={self._folder}"),
            ],
            lambda: probe(self.address),
            environment=LOCALE,
            user=self._user,
            wait_s=60,
        )

    def stop(self) -> None:
        """Shut down at once but cleanly."""
        self._process.stop()

    def kill(self) -> None:
        """End the server and all its backends as a power cut would."""
        self._process.kill()

    def pause(self) -> None:
        """Freeze the server and all its backends."""
        self._process.pause()

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._process.resume()

    def _prepare(self, programs: Path) -> None:
        data = self._folder / "data"
        if (data / "PG_VERSION").exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(self._password + "\n")
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            for path in (self._folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._run(
            [
                *(str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "scram-sha-256"),
                *(f"--pwfile={password}", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"),
            ]
        )
        password.unlink()
        # In single-user mode, where no password is asked because nobody listens.
        self._run(
            [str(programs / "postgres"), "--single", "-D", str(data), "postgres"],
            f"CREATE DATABASE {DATABASE}\n",
        )

    def _run(self, command: list[str], text: str = "") -> None:
        """Run one of Postgres' programs as the user who will own the data."""
        entry = pwd.getpwnam(self._user) if self._user is not None else None
        try:
            done = subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                check=False,
                cwd=self._folder,
                env={**os.environ, **LOCALE},
                user=entry.pw_uid if entry else None,
                group=entry.pw_gid if entry else None,
                extra_groups=[] if entry else None,
            )
        except PermissionError as error:
            raise ServerFailed(
                f"the user {self._user} cannot enter {self._folder}: some folder above it is closed"
            ) from error
        if done.returncode != 0:
            raise ServerFailed(f"{command[0]} failed: {done.stdout}{done.stderr}")


def probe(dsn: str) -> None:
    """Return if the server answers a query.

    Raises:
        NotReady: not yet.
    """
    try:
        version_at(dsn)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise NotReady(repr(error)) from error


def version_at(dsn: str) -> str:
    """Return the version of the Postgres at a DSN.

    The client has a thread and an event loop of its own: the caller may be inside one.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask_version(dsn)).result()


async def ask_version(dsn: str) -> str:
    """Return what the server calls itself."""
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        return str(await connection.fetchval("show server_version", timeout=5))
    finally:
        await connection.close(timeout=5)
