"""Servers that somebody else runs: all we know of them is an address."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, final

Address = TypeVar("Address")


@final
@dataclass(frozen=True)
class Given(Generic[Address]):
    """A server reached by its address, and how to ask it for its version."""

    address: Address
    ask_version: Callable[[Address], str]

    def version(self) -> str:
        """Ask the server what it is."""
        return self.ask_version(self.address)
