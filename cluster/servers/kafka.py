"""A Kafka broker of one node, in KRaft mode, from its published jars."""

import asyncio
import secrets
import socket
import string
import subprocess
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from cluster.servers import installation
from cluster.servers.ports import LOOPBACK, free_ports
from cluster.servers.process import NotReady, Process, ServerFailed
from cluster.servers.scratch import java_scratch

PROBE_S: Final = 5.0

# One node, so every internal topic has one replica. The short session timeout is what a restart
# after a kill waits for: the controller keeps the dead broker's place until it has passed.
SETTINGS: Final = string.Template("""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port$proxied
advertised.listeners=PLAINTEXT://127.0.0.1:$port$advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$data
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes=4194304
log.cleaner.dedupe.buffer.size=16777216
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
""")


@final
class Kafka:
    """One broker, its data in one folder, on the same ports for as long as it exists.

    With ``advertised_port`` it also listens on ``proxied_port`` and tells whoever comes that way
    to come back through the advertised one, where a proxy stands that leads there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        advertised_port: int | None = None,
    ) -> None:
        free = free_ports(3)
        self.proxied_port = free[2]
        self._advertised_port = advertised_port
        self._folder = folder
        self._port = port or free[0]
        self._controller_port = controller_port or free[1]
        self._settings = folder / "server.properties"
        self._process = Process("kafka", folder / "kafka.log")

    @property
    def address(self) -> str:
        """Return the bootstrap address."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int:
        """Return the broker's pid."""
        return self._process.pid

    def version(self) -> str:
        """Return the version of the jars that run; the protocol does not tell it."""
        return installation.KAFKA_VERSION

    def start(self) -> None:
        """Start the broker, format its folder first if it is new, and wait until it answers."""
        jars = f"{installation.kafka_jars()}/*"
        java = str(installation.java_program())
        self._prepare(java, jars)
        self._process.start(
            [
                *(java, "-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
                # A broker of minutes: its second compiler would take a fifth of a core meanwhile.
                "-XX:TieredStopAtLevel=1",
                *("-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true"),
                *java_scratch(self._folder),
                *("-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
                *("-cp", jars, "kafka.Kafka", str(self._settings)),
            ],
            lambda: probe(LOOPBACK, self._port),
            wait_s=90,
        )

    def stop(self) -> None:
        """Let the broker flush and end."""
        self._process.stop()

    def kill(self) -> None:
        """End the broker as a power cut would."""
        self._process.kill()

    def pause(self) -> None:
        """Freeze the broker."""
        self._process.pause()

    def resume(self) -> None:
        """Let a frozen broker go on."""
        self._process.resume()

    def _prepare(self, java: str, jars: str) -> None:
        data = self._folder / "data"
        if (data / "meta.properties").exists():
            return
        data.mkdir(parents=True, exist_ok=True)
        proxied = advertised = ""
        if self._advertised_port is not None:
            proxied = f",PROXIED://127.0.0.1:{self.proxied_port}"
            advertised = f",PROXIED://127.0.0.1:{self._advertised_port}"
        self._settings.write_text(
            SETTINGS.substitute(
                port=self._port,
                controller_port=self._controller_port,
                data=data,
                proxied=proxied,
                advertised=advertised,
            )
        )
        # A cluster id is 16 random bytes; a leading dash would look like an option.
        cluster_id = "A" + urlsafe_b64encode(secrets.token_bytes(16)).decode()[1:22]
        done = subprocess.run(
            [
                *(java, "-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"),
                *java_scratch(self._folder),
                *("-cp", jars, "kafka.tools.StorageTool", "format"),
                *("-t", cluster_id, "-c", str(self._settings)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(f"kafka could not format {data}: {done.stdout}{done.stderr}")


def probe(host: str, port: int) -> None:
    """Return if a broker is ready for clients.

    Kafka accepts connections seconds before it can serve them, so only a new client that finds a
    live broker proves anything. The client has a thread and an event loop of its own: the caller
    may be inside one.

    Raises:
        NotReady: not yet.
    """
    with socket.create_connection((host, port), timeout=1.0):
        pass
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, find_brokers(f"{host}:{port}")).result()


async def find_brokers(bootstrap: str) -> None:
    """Raise NotReady unless a new client sees at least one broker."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=2_000)
    try:
        async with asyncio.timeout(PROBE_S):
            await client.start()
            cluster = await client.describe_cluster()
    except (KafkaError, TimeoutError, OSError) as error:
        raise NotReady(repr(error)) from error
    finally:
        with suppress(KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(client.close(), PROBE_S)
    if not cluster["brokers"]:
        raise NotReady("the cluster has no live broker")
