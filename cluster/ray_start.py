"""``ray start`` without the Ray Client's server: it runs code for whoever connects; we need none.

The command line cannot switch it off: without a port it takes 10001. It leaves the server out where
the client's dependencies are missing, so that is what it is told.

Nor can the command line change that Ray gives its node up after 30 s: on a crowded machine the node
comes later, and whoever tries again waits as long.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

from ray._private import services
from ray.scripts import scripts

NODE_S: Final = 120.0
"""How long the node has to register; ``cluster.ray_node`` gives the whole start a little more."""


def patient(ask: Callable[..., Any], wait_s: float = NODE_S) -> Callable[..., Any]:
    """Return a question that is asked again until there is an answer, or for so long."""

    def asked(*words: Any, **named: Any) -> Any:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return ask(*words, **named)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return asked


def main() -> None:
    """Run Ray's own command line with these two answers changed."""
    assert hasattr(scripts, "get_ray_client_dependency_error"), "another version of Ray"
    scripts.get_ray_client_dependency_error = lambda: "the Ray Client is not wanted"
    assert hasattr(services, "get_node"), "another version of Ray"
    services.get_node = patient(services.get_node)
    sys.argv[0] = "ray"
    command_line: Any = scripts.main
    command_line()


if __name__ == "__main__":
    main()
