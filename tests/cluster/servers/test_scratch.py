"""A Java program that is killed leaves nothing outside its own folder."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.servers.kafka import Kafka
from cluster.servers.scratch import java_scratch
from perf.peers import contenders
from perf.peers.contenders import PEERS, Run


def test_the_scratch_is_empty_at_every_start(tmp_path: Path) -> None:
    java_scratch(tmp_path)
    left = tmp_path / "scratch" / "library.so"
    left.touch()
    assert f"-Djava.io.tmpdir={left.parent}" in java_scratch(tmp_path)
    assert not left.exists()
    assert left.parent.is_dir()


@pytest.mark.servers
def test_a_running_broker_writes_no_performance_file(start_kafka: Callable[[], Kafka]) -> None:
    """It lies in the system's temporary folder, and a killed JVM's stays."""
    pid = start_kafka().pid
    assert "scratch" in Path(f"/proc/{pid}/cmdline").read_text()
    assert not list(Path(tempfile.gettempdir()).glob(f"hsperfdata_*/{pid}"))


def test_the_peer_on_java_keeps_to_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "java_program", lambda: Path("java"))
    monkeypatch.setattr(contenders, "flink_class_path", lambda: "jars")
    (flink,) = (peer for peer in PEERS if peer.name == "flink")
    run = Run(
        bootstrap="",
        input="",
        output="",
        catalogue=tmp_path,
        events=1,
        partitions=1,
        folder=tmp_path,
    )
    assert f"-Djava.io.tmpdir={tmp_path / 'scratch'}" in flink.command(run)
