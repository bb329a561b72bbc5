"""Ports on loopback that nobody uses.

They are taken from below the range the kernel gives to outgoing connections. A port of that range
may be lent to a client while a killed server is down; worse, a client that reconnects to such a
port can be given the very same port and connect to itself. Nor are they of the range from which
Ray's workers take theirs, 10002 to 19999. Where the kernel's range begins below 21,000 there is no
room between both, and ports may be lent after all.
"""

import random
import socket
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
LOWEST: Final = 20_000
TRIES: Final = 1_000


def free_ports(count: int) -> list[int]:
    """Return so many different ports that were free a moment ago."""
    held: list[socket.socket] = []
    try:
        for _ in range(TRIES):
            if len(held) == count:
                break
            candidate = socket.socket()
            try:
                candidate.bind((LOOPBACK, random.randrange(LOWEST, first_outgoing_port())))
            except OSError:
                candidate.close()
                continue
            held.append(candidate)
        if len(held) < count:
            raise OSError(f"no {count} free ports found on {LOOPBACK}")
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def first_outgoing_port() -> int:
    """Return the lowest port that the kernel gives to outgoing connections."""
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        low = 32_768
    return max(low, LOWEST + 1_000)
