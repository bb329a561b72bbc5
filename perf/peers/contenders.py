"""Who takes part, how each is started, and what each keeps."""

import sys
from pathlib import Path
from string import Template
from typing import Final

from msgspec import Struct

from cluster.servers.installation import java_program
from cluster.servers.scratch import java_scratch
from perf.peers.environments import HERE, flink_class_path, python_of, version_of
from perf.workload import CLOCK

NOT_KEPT: Final = "none: state in memory, lost with the process"
CHANGELOG: Final = "state in a changelog topic"

FLINK_OPTIONS: Final = (
    *("-Xms512m", "-Xmx1536m", "-XX:+UseParallelGC"),
    *("--add-exports=java.base/sun.net.util=ALL-UNNAMED",),
    *("--add-opens=java.base/java.lang=ALL-UNNAMED", "--add-opens=java.base/java.net=ALL-UNNAMED"),
    *("--add-opens=java.base/java.io=ALL-UNNAMED", "--add-opens=java.base/java.nio=ALL-UNNAMED"),
    *("--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.time=ALL-UNNAMED"),
    *("--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",),
)

FLINK_SETTINGS: Final = """\
execution.target: local
taskmanager.numberOfTaskSlots: 1
taskmanager.memory.managed.size: 16m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
state.backend.type: hashmap
io.tmp.dirs: {folder}
"""
"""Where Java's modules would keep Flink out, as its own start scripts open them."""


class Run(Struct, frozen=True, kw_only=True):
    """One run of one contender."""

    bootstrap: str
    input: str
    output: str
    catalogue: Path
    events: int
    partitions: int
    folder: Path


class Contender(Struct, frozen=True, kw_only=True):
    """A peer."""

    name: str
    title: str
    package: str  # whose version is printed
    keeps: str
    share: float = 1.0  # of the events; the slowest would take all of the time
    limit_s: float = 300.0

    @property
    def version(self) -> str:
        """Return the version that its lock names."""
        return version_of(self.name, self.package)

    def prepare(self) -> None:
        """Have its environment made, so that no run pays for it."""
        if self.name == "flink":
            flink_class_path()
            java_program()
        else:
            python_of(self.name)

    def command(self, run: Run) -> list[str]:
        """Return what to start, in the run's folder."""
        if self.name == "flink":
            return _flink(run)
        return [
            *(str(python_of(self.name)), str(HERE / f"run_{self.name}.py")),
            *("--bootstrap", run.bootstrap, "--input", run.input, "--output", run.output),
            *("--catalogue", str(run.catalogue), "--events", str(run.events)),
            *("--partitions", str(run.partitions), "--folder", str(run.folder)),
        ]

    def environment(self, run: Run) -> dict[str, str]:
        """Return the variables it needs."""
        if self.name == "flink":
            return {"FLINK_CONF_DIR": str(run.folder)}
        return {"PYTHONDONTWRITEBYTECODE": "1", "PATHWAY_THREADS": "1"}


PEERS: Final = (
    Contender(
        name="aiokafka",
        title="aiokafka and a dictionary",
        package="aiokafka",
        keeps=NOT_KEPT,
    ),
    Contender(
        name="confluent",
        title="confluent-kafka and a dictionary",
        package="confluent-kafka",
        keeps=NOT_KEPT,
    ),
    Contender(name="bytewax", title="Bytewax", package="bytewax", keeps=NOT_KEPT),
    Contender(name="pathway", title="Pathway", package="pathway", keeps=NOT_KEPT),
    Contender(name="flink", title="Flink SQL", package="apache-flink-libraries", keeps=NOT_KEPT),
    Contender(
        name="quix",
        title="Quix Streams",
        package="quixstreams",
        keeps=f"{CHANGELOG} and RocksDB, committed every 30 s",
    ),
    Contender(name="faust", title="Faust", package="faust-streaming", keeps=CHANGELOG, share=0.05),
)


def _flink(run: Run) -> list[str]:
    script = run.folder / "run.sql"
    script.write_text(
        Template((HERE / "run_flink.sql").read_text()).substitute(
            bootstrap=run.bootstrap,
            input=run.input,
            output=run.output,
            catalogue=run.catalogue,
            none=1 << 20,
        )
    )
    (run.folder / "config.yaml").write_text(FLINK_SETTINGS.format(folder=run.folder))
    return [
        *(str(java_program()), *FLINK_OPTIONS, *java_scratch(run.folder)),
        *("-cp", flink_class_path()),
        *("org.apache.flink.table.client.SqlClient", "embedded", "-f", str(script)),
    ]


def owner_command(
    bootstrap: str, partitions: int, openings: str, deltas: str, decisions: str, prices: Path
) -> list[str]:
    """Return what starts ours: the production owners, one a partition, in one process."""
    return [
        *(sys.executable, "-m", "perf.owner_run", "--bootstrap", bootstrap),
        *("--partitions", str(partitions), "--openings", openings, "--deltas", deltas),
        *("--decisions", decisions, "--prices", str(prices), "--clock", CLOCK),
    ]
