"""``ray start`` without the Ray Client's server: it runs code for whoever connects; we need none.

The command line cannot switch it off: without a port it takes 10001. It leaves the server out where
the client's dependencies are missing, so that is what it is told.
"""

import sys
from typing import Any

from ray.scripts import scripts


def main() -> None:
    """Run Ray's own command line with that one answer changed."""
    assert hasattr(scripts, "get_ray_client_dependency_error"), "another version of Ray"
    scripts.get_ray_client_dependency_error = lambda: "the Ray Client is not wanted"
    sys.argv[0] = "ray"
    command_line: Any = scripts.main
    command_line()


if __name__ == "__main__":
    main()
