"""What every test runs under: no test may be left out without the run failing."""

import os
import shutil
import tempfile

import pytest

from tests.servers import (
    SERVERS_SPOKEN_TO,
    kafka_server,
    postgres_server,
    questdb_server,
    redis_server,
    servers_compose,
    servers_folder,
    start_kafka,
    start_postgres,
    start_questdb,
    start_redis,
)

__all__ = [
    "kafka_server",
    "postgres_server",
    "questdb_server",
    "redis_server",
    "servers_compose",
    "servers_folder",
    "start_kafka",
    "start_postgres",
    "start_questdb",
    "start_redis",
]

KERNELS = {
    "JAX_COMPILATION_CACHE_DIR": "",  # a folder of the run
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""What all processes of a run compile they compile once: whole engines, commands and this process.

Nothing outlives the run, so each still compiles everything, from this code, on this machine.
"""

KERNELS_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Name the run's folder of compiled kernels, unless whoever runs it has named one."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = tempfile.mkdtemp(prefix="repricer-kernels-")
        config.stash[KERNELS_FOLDER] = folder
        os.environ.update(KERNELS | {"JAX_COMPILATION_CACHE_DIR": folder})


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take away what the run has compiled."""
    folder = config.stash.get(KERNELS_FOLDER, None)
    if folder is not None:
        for name in KERNELS:
            os.environ.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)


LEFT_OUT = ("skipped", "xfailed", "xpassed", "rerun")
"""Outcomes that let a suite look green although something was not tested."""


def left_out(config: pytest.Config) -> list[str]:
    """Name the tests of this run that were skipped, expected to fail, or run again."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats if reporter is not None else {}
    return [
        f"{outcome}: {report.nodeid}" for outcome in LEFT_OUT for report in stats.get(outcome, ())
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a run that left tests out into a failed one."""
    if session.exitstatus == pytest.ExitCode.OK and left_out(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which real servers answered, and what was left out, above pytest's own summary."""
    spoken_to = config.stash.get(SERVERS_SPOKEN_TO, [])
    if spoken_to:
        terminalreporter.section("real servers")
        for line in spoken_to:
            terminalreporter.line(line)
    names = left_out(config)
    if names:
        terminalreporter.section("left out, so this run fails", red=True)
        for name in names:
            terminalreporter.line(name)
