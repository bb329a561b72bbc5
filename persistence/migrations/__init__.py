"""Forward-only, checksummed schema changes, one folder a dialect.

``tables/`` serves Postgres and SQLite alike, ``questdb/`` and ``sqlite_series/`` the two series
stores. A file, once released, is never edited: the store remembers its checksum and refuses to go
on when it differs. A change is a new file with the next number.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files

from msgspec import Struct

from engine.errors import SettingsRefused


class Migration(Struct, frozen=True):
    """One file: its name, its statements in order, and the checksum of its text."""

    name: str
    statements: tuple[str, ...]
    checksum: str


def split(text: str) -> tuple[str, ...]:
    """Return the statements of a script; ``--`` begins a comment, ``;`` ends a statement."""
    code = "\n".join(line.split("--", 1)[0].rstrip() for line in text.splitlines())
    return tuple(statement.strip() for statement in code.split(";") if statement.strip())


def migrations(dialect: str) -> Sequence[Migration]:
    """Return the migrations of one dialect, in order."""
    folder = files("persistence.migrations") / dialect
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    assert found, f"no migrations for {dialect}"
    loaded = []
    for name in found:
        text = (folder / name).read_text(encoding="utf-8")
        checksum = blake2b(text.encode(), digest_size=16).hexdigest()
        loaded.append(Migration(name.removesuffix(".sql"), split(text), checksum))
    return loaded


def missing(wanted: Sequence[Migration], applied: Mapping[str, str]) -> Sequence[Migration]:
    """Return what must still be applied.

    Raises:
        SettingsRefused: an applied migration was edited since, one we do not know was applied (the
            store is newer than this program), or one is missing before an applied one.
    """
    unknown = sorted(set(applied) - {migration.name for migration in wanted})
    if unknown:
        raise SettingsRefused(
            f"the store has migrations {unknown} that this version does not know: upgrade repricer"
        )
    for migration in wanted:
        known = applied.get(migration.name)
        if known is not None and known != migration.checksum:
            raise SettingsRefused(
                f"migration {migration.name} was edited after it was applied: restore the file"
                f" (checksum {known} in the store, {migration.checksum} here)"
            )
    pending = [migration for migration in wanted if migration.name not in applied]
    if pending and any(name > pending[0].name for name in applied):
        raise SettingsRefused(f"migration {pending[0].name} was never applied but later ones were")
    return pending
