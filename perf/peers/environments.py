"""What each peer runs in: a virtual environment of its own, and for Flink its jars.

Made by the command itself from locks with hashes, and kept in the cache folder beside the servers'
jars. A folder's name holds the fingerprint of its lock, so a changed lock never meets an old one.
"""

import sys
from pathlib import Path
from typing import Final

from cluster.servers import installation
from cluster.servers.installation import cache_folder, locked, note, replaced, run

HERE: Final = Path(__file__).parent
INTERPRETER: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, made when it is not there yet."""
    lock = HERE / f"{peer}.txt"
    folder = cache_folder() / "peers" / f"{peer}-{INTERPRETER}-{installation.fingerprint(lock)}"
    with locked(folder):
        if not folder.is_dir():
            note(f"making the environment of {peer}")
            with replaced(folder) as fresh:
                _make(fresh, lock)
    return folder / "bin" / "python"


def _make(folder: Path, lock: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    python = str(folder / "bin" / "python")
    if uv.is_file():
        run([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        run([str(uv), "pip", "sync", "--quiet", "--python", python, "--require-hashes", str(lock)])
    else:
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)])


def version_of(peer: str, package: str) -> str:
    """Return the version of a package that the lock of a peer names."""
    for line in (HERE / f"{peer}.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.split("==")[1].split()[0]
    raise AssertionError(f"{peer}.txt names no {package}")


def flink_class_path() -> str:
    """Return the class path of Flink's SQL client: its jars from the wheel, its connector's by pom.

    Raises:
        NotInstalled: there is no Java, or a jar is not the one whose checksum we recorded.
    """
    packages = python_of("flink").parent.parent / "lib" / f"python{INTERPRETER}" / "site-packages"
    library, optional = packages / "pyflink" / "lib", packages / "pyflink" / "opt"
    # The SQL client looks for Python's options, whether or not any Python runs.
    clients = [*optional.glob("flink-sql-client-*.jar"), *optional.glob("flink-python-*.jar")]
    jars = [*library.glob("*.jar"), *clients, *connector_jars().glob("*.jar")]
    return ":".join(sorted(map(str, jars)))


def connector_jars() -> Path:
    """Return the folder of the Kafka connector and what it needs, fetched and verified."""
    sums, pom = HERE / "flink.sha256", HERE / "pom-flink.xml"
    folder = cache_folder() / "peers" / f"flink-kafka-{installation.fingerprint(sums)}"
    with locked(folder):
        if not folder.is_dir():
            note("fetching Flink's Kafka connector")
            with replaced(folder) as fresh:
                installation.fetch_jars(pom, fresh)
                installation.verify(fresh, sums)
    return folder
