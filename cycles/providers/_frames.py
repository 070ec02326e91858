"""Frames of AWS event streams in bytes: forwarded unchanged, and read for usage. boto3 and anthropic decode them later.

A frame is its length, that of its headers, a checksum of both (4 bytes each), headers, payload and a checksum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cycles._usage.tokens import decoded_base64
from cycles.providers._provider import StreamRules
from cycles.providers._stream_filter import StreamFilter

_PRELUDE: Final = 12
_CHECKSUM: Final = 4
_LONGEST: Final = 32 * 1024 * 1024
"""Bytes of a frame; AWS allows 24 MiB. A longer one is a stream of another format, which is no longer read."""
_STRING: Final = 7
_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value, by its type; other types begin with their length."""
_BYTES: Final = re.compile(rb'"bytes"\s*:\s*"([^"]*)"')


class FrameFilter(StreamFilter):
    """As `StreamFilter`, for frames. What InvokeModel packs into a frame is read in place of the frame."""

    __slots__ = ("_data", "_is_other")

    def __init__(self, rules: StreamRules) -> None:
        super().__init__(rules, hide_usage=False)
        self._data = bytearray()
        self._is_other = False

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the body and return them."""
        if not self._is_other:
            self._data += chunk
            for headers, payload in self._frames():
                self._see_frame(headers, payload)
        return chunk

    def flush(self) -> bytes:
        """Return nothing: all bytes are forwarded when they arrive."""
        return b""

    def _frames(self) -> Iterator[tuple[dict[str, str], bytes]]:
        data = self._data
        while len(data) >= _PRELUDE:
            length, of_headers = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
            if not _PRELUDE + of_headers + _CHECKSUM <= length <= _LONGEST:
                self._is_other = True
                return
            if len(data) < length:
                return
            frame = bytes(data[:length])
            del data[:length]
            begin = _PRELUDE + of_headers
            yield _headers(frame[_PRELUDE:begin]), frame[begin:-_CHECKSUM]

    def _see_frame(self, headers: dict[str, str], payload: bytes) -> None:
        if headers.get(":message-type", "event") != "event":
            self.failed = True
            return
        packed = _BYTES.search(payload) if headers.get(":event-type") == "chunk" else None
        self._see(payload if packed is None else decoded_base64(packed[1]))


def _headers(data: bytes) -> dict[str, str]:
    """Return the headers that are strings."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        name, kind = data[at + 1 : end].decode("utf-8", "replace"), data[end] if end < len(data) else 0
        at = end + 1
        size = _SIZES.get(kind)
        if size is None:
            size, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        if kind == _STRING:
            found[name] = data[at : at + size].decode("utf-8", "replace")
        at += size
    return found
