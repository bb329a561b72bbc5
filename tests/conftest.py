"""What every test runs under: no test may be left out without the run failing."""

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
