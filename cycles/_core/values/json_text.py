"""Write JSON as short as it can be: the bodies of requests, and the records of the journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

# One encoder for all: creating one takes as long as encoding a small body. The one of C has no Python around it.
_encoder: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_encoder_in_c: Final = getattr(json.encoder, "c_make_encoder", None)
_chunks: Final[Callable[[Any, int], Iterable[str]] | None] = _encoder_in_c and _encoder_in_c(
    None, _encoder.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False
)


def compact(value: Any) -> bytes:
    """Return a value as JSON without spaces, in ASCII.

    Raises:
        TypeError, ValueError, RecursionError: It cannot be written as JSON; the message says why.
    """
    if _chunks is not None:
        try:
            return "".join(_chunks(value, 0)).encode("ascii")
        except (TypeError, ValueError, RecursionError):
            pass  # the whole encoder finds the error again, and says what it is
    return _encoder.encode(value).encode("ascii")
