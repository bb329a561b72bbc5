"""Settings come from four sources, and what is misspelt is refused with a suggestion."""

from pathlib import Path

import pytest

from cluster.settings import (
    SeriesSettings,
    ShardSettings,
    TrainingSettings,
    forgotten_history,
    load,
    origins,
    read_secret,
    uneven_spreads,
)
from engine.errors import RejectedInput


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "repricer.toml"
    path.write_text('folder = "data"\n[shards]\ncount = 3\nclock = "event"\n')
    return path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(file=file).shards.count == 3
    monkeypatch.setenv("REPRICER_SHARDS__COUNT", "4")
    assert load(file=file).shards.count == 4
    assert load({"shards": {"count": 5}}, file=file).shards.count == 5
    assert load({"shards": {"count": 5}}, file=file).shards.clock == "event"


def test_every_value_says_where_it_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRICER_SHARDS__COUNT", "4")
    flags = {"gateway": {"port": 0}}
    found = origins(load(flags, file=file), flags, file)
    assert found["shards.count"] == "REPRICER_SHARDS__COUNT"
    assert found["shards.clock"] == str(file)
    assert found["gateway.port"] == "flag"
    assert found["cache.backend"] == "default"


@pytest.mark.parametrize(
    ("content", "names", "suggests"),
    [
        ("[shards]\ncuont = 1", "/shards/cuont", "`shards.count`"),
        ("shard = 1", "/shard", "`shards`"),
        ('[log]\nbackend = "kafak"', "/log/backend", "'sqlite' or 'kafka'"),
        ("[shards]\ncount = 0", "/shards/count", "greater than or equal to 1"),
        ("[shards", "no valid TOML", "mend the line named"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key_and_the_fix(
    tmp_path: Path, content: str, names: str, suggests: str
) -> None:
    path = tmp_path / "repricer.toml"
    path.write_text(content)
    with pytest.raises(RejectedInput) as refused:
        load(file=path)
    assert names in str(refused.value)
    assert suggests in str(refused.value)


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRICER_SHARDS__CUONT", "1")
    with pytest.raises(RejectedInput, match="did you mean REPRICER_SHARDS__COUNT"):
        load()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="there is no file"):
        load(file=tmp_path / "absent.toml")


def test_a_secret_open_to_others_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hush\n")
    secret.chmod(0o644)
    with pytest.raises(RejectedInput, match="chmod 600"):
        read_secret(secret)
    secret.chmod(0o600)
    assert read_secret(secret) == "hush"


def test_slots_that_fall_on_one_shard_are_told_with_a_number_that_is_even() -> None:
    shards = ShardSettings(count=2, spreads={"shop": 2, "store": 2, "small": 1})
    (warning,) = uneven_spreads(shards)
    assert "shop's 2 slots fall unevenly (shard 1 100%)" in warning
    assert "24 slots would be even" in warning
    assert not list(uneven_spreads(ShardSettings(count=2, spreads={"shop": 24})))


def test_fewer_slots_than_shards_need_not_reach_all() -> None:
    assert not list(uneven_spreads(ShardSettings(count=8, spreads={"store": 2})))


def test_training_on_days_that_questdb_has_dropped_is_warned_of() -> None:
    """Both settings are named; and of themselves they agree."""
    training = TrainingSettings()
    short = SeriesSettings(backend="questdb", ttl_days=90)
    (warning,) = forgotten_history(short, training)
    assert "training.days" in warning
    assert "series.ttl_days" in warning
    assert not list(forgotten_history(short, training, 90))
    assert list(forgotten_history(short, training, 91))
    for enough in ({}, {"ttl_days": 0}, {"ttl_days": training.days}):
        assert not list(forgotten_history(SeriesSettings(backend="questdb", **enough), training))
    assert not list(forgotten_history(SeriesSettings(ttl_days=1), training)), "files stay for ever"
