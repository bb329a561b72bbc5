"""A download counts only if it is what we recorded."""

import hashlib
from pathlib import Path

import pytest

from cluster.servers.installation import HERE, NotInstalled, verify


def recorded(folder: Path, contents: dict[str, bytes]) -> Path:
    sums = folder / "jars.sha256"
    sums.write_text(
        "".join(
            f"{hashlib.sha256(value).hexdigest()}  {name}\n" for name, value in contents.items()
        )
    )
    return sums


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"a.jar": b"a", "b.jar": b"changed"}, "b.jar"),
        ({"a.jar": b"a"}, "b.jar"),
        ({"a.jar": b"a", "b.jar": b"b", "c.jar": b"c"}, "c.jar"),
    ],
)
def test_a_changed_missing_or_additional_jar_is_refused(
    tmp_path: Path, found: dict[str, bytes], wrong: str
) -> None:
    sums = recorded(tmp_path, {"a.jar": b"a", "b.jar": b"b"})
    for name, value in found.items():
        (tmp_path / name).write_bytes(value)
    with pytest.raises(NotInstalled, match=wrong):
        verify(tmp_path, sums)


def test_the_recorded_jars_are_accepted(tmp_path: Path) -> None:
    sums = recorded(tmp_path, {"a.jar": b"a"})
    (tmp_path / "a.jar").write_bytes(b"a")
    verify(tmp_path, sums)


def test_every_jar_has_a_checksum() -> None:
    assert len((HERE / "kafka.sha256").read_text().splitlines()) == 44
    assert len((HERE / "questdb.sha256").read_text().splitlines()) == 1
