"""``ray start``, with what its command line cannot say.

* No server for the Ray Client: it runs code for whoever connects; we need none. It is left out
  where the client's dependencies are missing, so that is what the command line is told.
* A raylet that waits for nothing. It waits 15 s for the files in which its agents write their
  ports, a constant of its own, and dies of a longer wait (ray-project/ray issue 65983). Ports that
  it is given are not waited for; that of the agent's own server is one which Ray takes from its
  user and does not hand on.
* Patience: Ray gives its node up after 30 s. On a crowded machine the node comes later, and whoever
  tries again waits as long.
* No more questions after a raylet that is dead, and its last words, which Ray does not show.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ray._private import ray_constants, services
from ray.scripts import scripts

NODE_S: Final = 120.0
"""How long the node has to register; ``cluster.ray_node`` gives the whole start a little more."""

LISTEN_PORT: Final = "--dashboard-agent-listen-port"
STACK: Final = "*** StackTrace"
WORDS: Final = 600
"""How many characters of what a raylet said last are told."""


class RayletDied(Exception):
    """The raylet ended before its node registered; the message says what it said."""


class Raylet:
    """The raylet that this start begins."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._listen_port = _after(LISTEN_PORT, arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._logs = Path()

    def begun_by(self, begin: Callable[..., Any]) -> Callable[..., Any]:
        """Return what begins Ray's processes, and hands the raylet the port that Ray keeps back."""

        def begun(command: list[str], process_type: str, *words: Any, **named: Any) -> Any:
            if process_type != ray_constants.PROCESS_TYPE_RAYLET:
                return begin(command, process_type, *words, **named)
            if self._listen_port is not None:
                command = [*command, f"--dashboard_agent_listen_port={self._listen_port}"]
            info = begin(command, process_type, *words, **named)
            self._process = info.process
            self._logs = Path(_after("--log_dir", command) or "")
            return info

        return begun

    def refuse_dead(self) -> None:
        """Raise if it has ended.

        Raises:
            RayletDied: it has.
        """
        if self._process is not None and self._process.poll() is not None:
            raise RayletDied(f"the raylet ended with {self._process.returncode}: {self._words()}")

    def _words(self) -> str:
        for name in ("raylet.err", "raylet.out"):
            file = self._logs / name
            said = file.read_text(errors="replace") if file.exists() else ""
            said = said.partition(STACK)[0].strip()
            if said:
                return said[-WORDS:]
        return f"it left no words in {self._logs}"


def patient(
    ask: Callable[..., Any],
    wait_s: float = NODE_S,
    refuse: Callable[[], None] = lambda: None,
) -> Callable[..., Any]:
    """Return a question that is asked again until there is an answer, or for so long.

    ``refuse`` raises where there will be none.
    """

    def asked(*words: Any, **named: Any) -> Any:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return ask(*words, **named)
            except RuntimeError:
                refuse()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return asked


def _after(option: str, arguments: Sequence[str]) -> str | None:
    """Return an option's value, whether it follows or stands behind a sign of equality."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else arguments[place + 1]
    return None


def main() -> None:
    """Run Ray's own command line with these answers changed."""
    assert hasattr(scripts, "get_ray_client_dependency_error"), "another version of Ray"
    scripts.get_ray_client_dependency_error = lambda: "the Ray Client is not wanted"
    raylet = Raylet(sys.argv)
    assert hasattr(services, "start_ray_process"), "another version of Ray"
    services.start_ray_process = raylet.begun_by(services.start_ray_process)
    assert hasattr(services, "get_node"), "another version of Ray"
    services.get_node = patient(services.get_node, refuse=raylet.refuse_dead)
    sys.argv[0] = "ray"
    command_line: Any = scripts.main
    command_line()


if __name__ == "__main__":
    main()
