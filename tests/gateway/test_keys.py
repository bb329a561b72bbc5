"""API keys are recognised, never stored, and never guessed."""

import os
import stat
from pathlib import Path

import pytest

from engine.errors import SettingsRefused
from gateway.keys import (
    READ,
    SCOPES,
    KeyFile,
    Keys,
    checksum_holds,
    create_key_file,
    load_keys,
    new_key,
)
from tests.gateway.hand import PEPPER, stored_key


def test_a_key_is_made_written_as_hmac_and_recognised(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key_file(path, retailers=["acme"])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert key not in path.read_text()
    assert key[8:-6] not in path.read_text()
    credential = load_keys(path).find(key)
    assert credential is not None
    assert credential.sees("acme")
    assert not credential.sees("bolt")
    assert credential.scopes == frozenset(SCOPES)


def test_a_key_that_works_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key_file(path)
    with pytest.raises(SettingsRefused, match="exists already"):
        create_key_file(path)
    assert load_keys(path).find(key) is not None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    create_key_file(path)
    path.chmod(mode)
    with pytest.raises(SettingsRefused, match="chmod 600"):
        load_keys(path)


@pytest.mark.parametrize("content", ["", "{}", '{"pepper": "xyz", "keys": []}', '{"keys": 1}'])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(SettingsRefused, match="not a key file"):
        load_keys(path)
    with pytest.raises(SettingsRefused, match="No such file"):
        load_keys(tmp_path / "absent.json")


def test_a_changed_key_is_found_by_its_checksum() -> None:
    key = new_key()
    assert key.startswith("rp_live_")
    assert checksum_holds(key)
    assert new_key(live=False).startswith("rp_test_")
    for place in range(8, len(key)):
        changed = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        assert not checksum_holds(changed)


def test_only_the_very_key_is_recognised_also_after_it_was_seen() -> None:
    """The shortcut for keys seen before must not widen what is accepted."""
    key, other = new_key(), new_key()
    stored = [stored_key("one", key, ("acme",), (READ,)), stored_key("two", other, ("a", "b"))]
    keys = Keys(KeyFile(pepper=PEPPER.hex(), keys=tuple(stored)))
    for _ in range(3):
        found = keys.find(key)
        assert found is not None
        assert (found.id, found.only) == ("one", "acme")
        second = keys.find(other)
        assert second is not None
        assert (second.id, second.only) == ("two", None)
        for wrong in ["", key[:-1], key + "A", key.lower(), new_key(), "rp_live_", "\x00" * 57]:
            assert keys.find(wrong) is None
