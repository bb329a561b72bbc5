"""Every setting stands in the documentation and in the commented file."""

import tomllib
from pathlib import Path

import pytest

from cluster.settings import known_keys, load

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("key", list(known_keys()))
def test_every_setting_is_documented(key: str) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert f"| `{key}` |" in page


def test_the_commented_file_holds_every_key_and_is_valid_once_uncommented(tmp_path: Path) -> None:
    lines = (ROOT / "config" / "repricer.toml").read_text().splitlines()
    settings = [
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in lines
    ]
    # The head comments hold an assignment too, in prose.
    text = "\n".join(line for line in settings if not line.startswith("change"))
    text = "\n".join(line for line in text.splitlines() if '_file = ""' not in line)
    text = "\n".join(line for line in text.splitlines() if line != 'folder = ""')
    document = tomllib.loads(text)
    assert set(document) >= {"folder", "log", "shards", "gateway"}
    path = tmp_path / "repricer.toml"
    path.write_text(text)
    assert load(file=path).shards == load().shards
