"""Name what this machine lacks for the demo and for the tests, before anything is downloaded.

Run it as a script with any Python 3.11: ``python3.11 cluster/doctor.py``. It imports nothing but
the standard library, changes nothing, and opens no connection but to a local docker daemon.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Verdict = Literal["ok", "will fetch", "missing"]

DISK_MIN_GB: Final = 6
MEMORY_MIN_GB: Final = 4
JAVA_OLDEST: Final = 17

GIVEN: Final = {
    "kafka": "REPRICER_TEST_KAFKA",
    "postgres": "REPRICER_TEST_POSTGRES",
    "questdb": "REPRICER_TEST_QUESTDB",
    "redis": "REPRICER_TEST_REDIS",
}


@dataclass(frozen=True)
class Finding:
    """One thing a command needs, and whether it is there."""

    needed_by: str
    what: str
    verdict: Verdict
    detail: str


def examine() -> Iterator[Finding]:
    """Give everything that ``make demo`` and ``make test`` need, in the order they need it."""
    yield from demo_needs()
    if docker_answers():
        yield Finding("make test", "docker compose", "ok", "the shared servers come from it")
    for name, variable in GIVEN.items():
        if os.environ.get(variable):
            yield Finding("make test", name, "ok", f"its address is in {variable}")
    # Native servers are needed in any case: a test that kills a server kills one of its own.
    apt = os.geteuid() == 0 and shutil.which("apt-get") is not None
    postgres = next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), shutil.which("initdb"))
    yield java()
    yield package("maven", shutil.which("mvn"), apt)
    yield package("postgresql", postgres, apt)
    yield package("redis-server", shutil.which("redis-server"), apt)
    yield package("chromium", shutil.which("chromium"), apt)


def demo_needs() -> Iterator[Finding]:
    """Give what every command needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info[:2] == (3, 11)
    yield Finding("make demo", "python", "ok" if right else "missing", f"{version}; 3.11 is needed")
    pips = importlib.util.find_spec("ensurepip") is not None
    yield Finding(
        *("make demo", "venv", "ok" if pips else "missing"),
        "with pip" if pips else "as root: apt-get install python3.11-venv",
    )
    yield Finding(
        *("make demo", "linux", "ok" if sys.platform == "linux" else "missing"),
        f"{sys.platform}; processes are watched by pidfd, which is Linux's",
    )
    free_gb = shutil.disk_usage(Path(__file__).parent).free / 1e9
    yield Finding(
        *("make demo", "disk", "ok" if free_gb >= DISK_MIN_GB else "missing"),
        f"{free_gb:.0f} GB free; {DISK_MIN_GB} are needed",
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Finding(
        *("make demo", "memory", "ok" if memory_gb >= MEMORY_MIN_GB else "missing"),
        f"{memory_gb:.0f} GB; {MEMORY_MIN_GB} are needed",
    )
    made = (Path(__file__).parent.parent / ".venv" / "bin" / "repricer").exists()
    yield Finding(
        *("make demo", "requirements", "ok" if made else "will fetch"),
        "installed in .venv" if made else "about 0.5 GB, pinned by hash, into .venv",
    )


def java() -> Finding:
    """Say which Java the servers will run on."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    for candidate in [*candidates, shutil.which("java") or ""]:
        if candidate and Path(candidate).is_file():
            told = say([candidate, "-version"])
            version = re.search(r'version "(\d+)', told)
            if version and int(version[1]) >= JAVA_OLDEST:
                return Finding("make test", "java", "ok", f"version {version[1]}")
    return Finding("make test", "java", "will fetch", "a pinned runtime, about 40 MB")


def package(name: str, found: object, apt: bool) -> Finding:
    """Say whether a package of Debian's is there, or can be installed."""
    if found:
        return Finding("make test", name, "ok", str(found))
    if apt:
        return Finding("make test", name, "will fetch", f"apt-get install {name}")
    return Finding("make test", name, "missing", f"as root: apt-get install {name}")


def docker_answers() -> bool:
    """Tell whether docker compose is there and a daemon answers."""
    return (
        shutil.which("docker") is not None
        and "version" in say(["docker", "compose", "version"]).lower()
        and bool(say(["docker", "info", "--format", "{{.ServerVersion}}"], errors=False))
    )


def say(command: Sequence[str], errors: bool = True) -> str:
    """Return what a program says, or nothing if it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout + done.stderr if errors else done.stdout).strip()


def main() -> int:
    """Print the findings, what is missing last, and fail if anything is."""
    findings = sorted(
        examine(), key=lambda finding: ("ok", "will fetch", "missing").index(finding.verdict)
    )
    for finding in findings:
        print(f"{finding.verdict:<11}{finding.what:<14}{finding.detail}  (for {finding.needed_by})")
    missing = [finding.what for finding in findings if finding.verdict == "missing"]
    print(f"missing: {', '.join(missing)}" if missing else "nothing is missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
