"""The child that speaks to Ray: it makes detached actors, named by start, as it is told.

It is a process of its own, since a driver dies with its raylet. Ray's own restarts are off
(``max_restarts=0``): it does not notice a hung actor, and two who start successors are worse than
one.
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.starts import Start
from cluster.control import LOOPBACK
from cluster.owner import OwnerProcess
from cluster.processes import ProcessName, kill, lives
from cluster.ray_node import read_node
from cluster.servers.launch import end_with_parent
from cluster.settings import Settings

NAMESPACE: Final = "repricer"
LAUNCH_DEADLINE_S: Final = 40.0
SPARE_DEADLINE_S: Final = 8.0
"""A spare that has not begun by then is given up: a new process takes about as long."""

END_DEADLINE_S: Final = 5.0

Where = Mapping[str, Any]
"""What an actor answers that has begun: ``pid`` and ``address``."""


class Order(Struct, frozen=True, kw_only=True):
    """What the child is told: to start an owner, in a spare if one is named, or to make a spare."""

    spare: str = ""
    spare_process: ProcessName | None = None
    start: Start | None = None


class Placed(Struct, frozen=True, kw_only=True):
    """What the child answers to one order: where it runs, or why not."""

    name: str
    pid: int = 0
    address: str = ""
    problem: str = ""


def begin_once(
    order: Order, in_spare: Callable[[], Where | None], anew: Callable[[], Where]
) -> Where:
    """Begin a start in its spare, or in a new actor once the spare can begin it no more.

    A spare that did not answer in time may begin all the same: two actors of one start bear one
    name in the log, which then cannot tell them apart.

    Raises:
        TimeoutError: the spare does not end.
    """
    process = order.spare_process
    if process is None:
        return anew()
    where = in_spare()
    if where is not None:
        return where
    kill(process)
    until = time.monotonic() + END_DEADLINE_S
    while lives(process):
        if time.monotonic() > until:
            raise TimeoutError(f"{order.spare} does not end")
        time.sleep(0.01)
    return anew()


def place(settings_file: Path) -> None:
    """Carry out every order that is read from standard input, one a line."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    settings_json = settings_file.read_text()
    settings = Settings.model_validate_json(settings_json)
    node = read_node(settings.run_folder)
    assert node is not None
    ray.init(
        address=node.address,
        _node_ip_address=LOOPBACK,
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
    )
    owner_class: Any = ray.remote(OwnerProcess)  # Ray's types do not know detached actors' calls

    def make(name: str) -> Any:
        options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4, "num_cpus": 0}
        owner = owner_class.options(name=name, lifetime="detached", **options)
        return owner.remote(settings_json, name)

    def begin(actor: Any, start: Start, within_s: float = LAUNCH_DEADLINE_S) -> Where:
        call = actor.begin.options(name=start.name)  # Ray's dashboard lists the call by this name
        answer = call.remote(msgspec.json.encode(start).decode())
        where: Where = ray.get(answer, timeout=within_s)
        return where

    def carry_out(order: Order) -> Placed:
        if order.start is None:
            where = ray.get(make(order.spare).prepare.remote(), timeout=LAUNCH_DEADLINE_S)
            return Placed(name=order.spare, pid=where["pid"])
        start = order.start

        def in_spare() -> Where | None:
            try:
                spare = ray.get_actor(order.spare, namespace=NAMESPACE)
                return begin(spare, start, SPARE_DEADLINE_S)
            except (RayError, GetTimeoutError, ValueError) as error:
                print(f"{order.spare}: not usable: {error}", file=sys.stderr, flush=True)
                return None

        where = begin_once(order, in_spare, lambda: begin(make(start.name), start))
        return Placed(name=start.name, pid=where["pid"], address=where["address"])

    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        try:
            placed = carry_out(order)
        except (RayError, GetTimeoutError, TimeoutError, ValueError) as error:
            name = order.start.name if order.start else order.spare
            placed = Placed(name=name, problem=f"{type(error).__name__}: {error}"[:2000])
        sys.stdout.buffer.write(msgspec.json.encode(placed) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    # Nobody else gives it orders. Ray would take leave of its head first, and wait for ever for one
    # that hangs, as would an order that is being carried out.
    end_with_parent(int(sys.argv[2]))
    place(Path(sys.argv[1]))
