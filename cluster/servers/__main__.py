"""``python -m cluster.servers install`` fetches the servers; ``up`` runs them until interrupted."""

import signal
import sys
import threading
import time

from cluster.servers import installation
from cluster.servers.installation import NotInstalled
from cluster.servers.process import ServerFailed
from cluster.servers.stack import Stack


def install() -> None:
    """Fetch whatever of the four servers, Java and the tests' browser is missing."""
    installation.java_program()
    installation.kafka_jars()
    installation.questdb_jar()
    installation.postgres_programs()
    installation.redis_program()
    installation.chromium_program()


def up() -> None:
    """Run all four until interrupted, and print how a test finds them."""
    started = time.monotonic()
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    with Stack() as stack:
        quest = stack.questdb.address
        print(f"export REPRICER_TEST_KAFKA='{stack.kafka.address}'")
        print(f"export REPRICER_TEST_POSTGRES='{stack.postgres.address}'")
        print(
            f"export REPRICER_TEST_QUESTDB='http://{quest.user}:{quest.password}@{quest.host}:"
            f"{quest.http_port}?pg_port={quest.pg_port}'"
        )
        print(f"export REPRICER_TEST_REDIS='{stack.redis.address}'", flush=True)
        print(f"ready after {time.monotonic() - started:.1f} s; Ctrl-C ends it", file=sys.stderr)
        interrupted.wait()


def main() -> int:
    """Do what the one argument says."""
    commands = {"install": install, "up": up}
    command = commands.get(sys.argv[1]) if len(sys.argv) == 2 else None
    if command is None:
        print("usage: python -m cluster.servers install|up", file=sys.stderr)
        return 2
    try:
        command()
    except (NotInstalled, ServerFailed) as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
