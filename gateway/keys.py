"""API keys: made, written down as an HMAC only, and recognised in constant time.

A key is ``rp_live_`` (or ``rp_test_``), 32 random bytes in base 62 and six characters of CRC-32, so
that a scanner finds a leaked key and a typing error is told from a stranger without a look-up.
The file holds ``HMAC-SHA256(pepper, key)`` and is readable by its owner only. What a caller may see
comes from his credential and from nowhere else.
"""

import hashlib
import hmac
import os
import re
import secrets
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.errors import SettingsRefused

READ = "prices:read"
APPROVE = "prices:approve"
HALT = "publishing:halt"
POLICY = "policies:write"
SCOPES = (READ, APPROVE, HALT, POLICY)

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARACTERS = 43  # 62**43 > 256**32
_CHECKSUM_CHARACTERS = 6  # 62**6 > 2**32
_KEY = re.compile(r"^rp_(?:live|test)_[0-9A-Za-z]{49}$", re.ASCII)


class Credential(Struct, frozen=True):
    """Who a key belongs to and what it may do. ``retailers`` holding ``*`` sees every retailer."""

    id: str
    retailers: frozenset[str]
    scopes: frozenset[str]
    only: str | None = None  # the one retailer that it sees, if that is settled

    def sees(self, retailer: str) -> bool:
        """Whether the retailer's listings are visible to this key."""
        return retailer in self.retailers or "*" in self.retailers


class StoredKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key as the file holds it: never the key itself."""

    id: str
    hmac_sha256: str
    retailers: tuple[str, ...] = ("*",)
    scopes: tuple[str, ...] = SCOPES


class KeyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a key file."""

    pepper: str
    keys: tuple[StoredKey, ...] = ()


class Keys:
    """The keys that are valid now."""

    def __init__(self, content: KeyFile) -> None:
        self._pepper = bytes.fromhex(content.pepper)
        # What was found before is found again by Python's hash of text, a MAC (SipHash) under a
        # secret of this process: of a guess no more is compared than that. It is bounded, because
        # only keys that are valid get in.
        self._found: dict[str, Credential] = {}
        # Looked up by the HMAC: its bytes tell an attacker nothing about how near his guess was.
        self._credentials = {
            bytes.fromhex(key.hmac_sha256): Credential(
                key.id,
                frozenset(key.retailers),
                frozenset(key.scopes),
                key.retailers[0] if len(key.retailers) == 1 and "*" not in key.retailers else None,
            )
            for key in content.keys
        }

    def find(self, presented: str) -> Credential | None:
        """Return the credential of a presented key, ``None`` when it is not one of ours."""
        credential = self._found.get(presented)
        if credential is None and _KEY.match(presented) is not None:
            digest = hmac.digest(self._pepper, presented.encode(), "sha256")
            credential = self._credentials.get(digest)
            if credential is not None:
                self._found[presented] = credential
        return credential

    def __len__(self) -> int:
        return len(self._credentials)


def new_key(*, live: bool = True) -> str:
    """Return a fresh random key with its checksum."""
    body = f"rp_{'live' if live else 'test'}_" + _base62(secrets.token_bytes(32))
    return body + _checksum(body)


def checksum_holds(key: str) -> bool:
    """Whether ``key`` has our form and its checksum is right: what a secret scanner asks."""
    return _KEY.match(key) is not None and _checksum(key[:-6]) == key[-6:]


def create_key_file(path: Path, *, retailers: Iterable[str] = ("*",)) -> str:
    """Create a key file with one key and return the key, which is shown this once.

    Raises:
        SettingsRefused: the file exists; a key that works is never replaced by accident.
    """
    key, pepper = new_key(), secrets.token_bytes(32)
    stored = StoredKey(
        id="key-" + secrets.token_hex(4),
        hmac_sha256=hmac.digest(pepper, key.encode(), "sha256").hex(),
        retailers=tuple(retailers),
    )
    content = KeyFile(pepper=pepper.hex(), keys=(stored,))
    try:
        # Created with its final mode: no moment at which somebody else could open it.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as fault:
        raise SettingsRefused(f"key file {path} exists already: load it or remove it") from fault
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    return key


def load_keys(path: Path) -> Keys:
    """Read a key file.

    Raises:
        SettingsRefused: missing, readable by others, or not a key file.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as fault:
        raise SettingsRefused(f"key file {path}: {fault.strerror}") from fault
    if mode & 0o077:
        raise SettingsRefused(f"key file {path} is open to others: run chmod 600 {path}")
    try:
        return Keys(msgspec.json.decode(content, type=KeyFile))
    except (msgspec.DecodeError, ValueError) as fault:
        raise SettingsRefused(f"key file {path} is not a key file: {fault}") from fault


def fingerprint(*parts: str) -> str:
    """Return a short stable name of some strings, for ids that must not reveal them."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def _base62(raw: bytes) -> str:
    number, text = int.from_bytes(raw, "big"), ""
    for _ in range(_SECRET_CHARACTERS):
        number, digit = divmod(number, 62)
        text = _ALPHABET[digit] + text
    return text


def _checksum(body: str) -> str:
    number, text = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_CHARACTERS):
        number, digit = divmod(number, 62)
        text = _ALPHABET[digit] + text
    return text
