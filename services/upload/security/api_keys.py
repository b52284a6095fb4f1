"""Defines API keys, their scopes, and the file of their hashes, which has no keys."""

from __future__ import annotations

import codecs
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.shared.errors import InvalidSettings

_PREFIX: Final = "simile_"
"""A prefix by which scanners of repositories and logs find a leaked key."""

_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_KEY_CHARACTERS: Final = 256
_FIELDS: Final = 3
_SHOWN: Final = 10


class Scope(StrEnum):
    """Names the uses of a key; no scope includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with its name and its hash. Several may share a name during a rotation."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes

    @property
    def line(self) -> str:
        """Return its line in the file of keys."""
        return f"{self.name} {','.join(sorted(self.scopes))} sha256:{self.digest.hex()}"


def new_key(name: str, scopes: Iterable[Scope]) -> tuple[str, ApiKey]:
    """Return a new key, to be shown once, and its entry. Raises InvalidSettings."""
    if not _NAME.fullmatch(name):
        message = (
            f"{name!r} is not a valid name of a key: use up to 64 letters, digits, '.', '_' and '-'"
        )
        raise InvalidSettings(message)
    secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    return secret, ApiKey(name, frozenset(scopes), digest_of(secret))


def digest_of(key: str) -> bytes:
    """Return the key's sha256.

    A fast hash suffices: slow hashes protect passwords, which can be guessed. A key
    has 256 random bits, which can't be tried out, and each request has to hash it.
    """
    return hashlib.sha256(key.encode(errors="replace")).digest()


def find(keys: Iterable[ApiKey], given: str) -> ApiKey | None:
    """Return the given key, if it is known; in constant time."""
    if len(given) > _MAX_KEY_CHARACTERS:
        return None
    digest, found = digest_of(given), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


@dataclass(frozen=True, slots=True)
class KeyLines:
    """Holds the lines of a file of keys.

    Attributes:
        keys: the keys of the lines that can be read.
        broken: the numbers of the others, from 1.
    """

    keys: tuple[ApiKey, ...]
    broken: tuple[int, ...]

    def require_sound(self) -> None:
        """Raise InvalidSettings for a broken line, or without any key.

        The message has the lines' numbers, never their text: a line may be a plain key.
        """
        if self.broken:
            numbers = ", ".join(map(str, self.broken[:_SHOWN]))
            message = (
                f"line {numbers} is not `NAME SCOPE[,SCOPE] sha256:HASH` with scopes of "
                f"{', '.join(Scope)}; `simile keys new` prints such lines"
            )
            raise InvalidSettings(message)
        if not self.keys:
            message = "it holds no key: `simile keys new` makes one"
            raise InvalidSettings(message)


def parse_keys(text: bytes) -> KeyLines:
    """Read a file's lines, `NAME SCOPE[,SCOPE] sha256:HASH` for each key; # begins a comment."""
    # An editor's byte order mark would break the first line.
    lines = text.removeprefix(codecs.BOM_UTF8).splitlines()
    meant = [
        (number, line.decode(errors="replace"))
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith(b"#")
    ]
    read = [(number, _read_line(line)) for number, line in meant]
    keys = tuple(key for _, key in read if key is not None)
    return KeyLines(keys, tuple(number for number, key in read if key is None))


def read_keys(text: bytes) -> tuple[ApiKey, ...]:
    """Return the keys of a file's text. Raises InvalidSettings for a broken or empty file."""
    lines = parse_keys(text)
    lines.require_sound()
    return lines.keys


def _read_line(line: str) -> ApiKey | None:
    fields = line.split()
    if len(fields) != _FIELDS:
        return None
    name, scopes, hashed = fields
    known = set(scopes.split(",")) <= set(Scope)
    digest = _HASH.fullmatch(hashed)
    if not (_NAME.fullmatch(name) and known and digest):
        return None
    return ApiKey(name, frozenset(map(Scope, scopes.split(","))), bytes.fromhex(digest[1]))
