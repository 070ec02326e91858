"""Encode JSON without API keys: a client may send one in a path, a subject or a body by mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cycles._core.values.secret import pattern_of
from cycles.embedded.records import ApiKey, Record

REDACTED: Final = "***"
# Keys of the form that the servers make need no list; a deployment may have very many of them.
_KEY: Final = re.compile(r"cyc_[a-z]+_[0-9A-Za-z_-]{8,}")
_KEY_BYTES: Final = re.compile(_KEY.pattern.encode())
# A shorter key protects nothing, and replacing it would make pages unreadable.
_SHORTEST: Final = 4


class Redactor:
    """Knows the keys of a server and keeps them out of JSON."""

    def __init__(self, keys: Iterable[str | None]) -> None:
        self._keys: set[str] = set()
        for key in keys:
            self._add(key)

    def _add(self, key: str | None) -> None:
        if key is not None and len(key) >= _SHORTEST and _KEY.fullmatch(key) is None:
            self._keys.add(key)

    def changed(self, changes: Sequence[tuple[Record | None, Record | None]]) -> None:
        """Take note of new keys. The ledger calls it while it is locked."""
        for _, after in changes:
            if isinstance(after, ApiKey):
                self._add(after.secret)

    def encode(self, value: Any) -> bytes:
        """Return a JSON value as bytes, with keys in its strings replaced."""
        encoded = _encoded(value)
        if _KEY_BYTES.search(encoded) or any(_encoded(key)[1:-1] in encoded for key in list(self._keys)):
            return _encoded(self._cleaned(value))
        return encoded

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            keys = pattern_of(self._keys)
            return _KEY.sub(REDACTED, value if keys is None else keys.sub(REDACTED, value))
        if isinstance(value, dict):
            return {name: self._cleaned(item) for name, item in value.items()}
        return [self._cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
