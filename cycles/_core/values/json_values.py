"""JSON values: what metadata and custom metrics may contain, and how bodies and records are written.

Allowed are None, booleans, finite numbers (integers within 64 bits), strings, lists, and mappings with string keys.
Anything else (datetimes, Decimals, bytes, sets, NaN, other classes) is rejected when the caller passes it, with a hint
how to write it. When a settlement is sent, it is omitted: an amount must never be lost because of a label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cycles._errors import InvalidRequestError

# Deeper than anything written by hand, far from the recursion limit, and the end of a value that contains itself.
MAX_DEPTH: Final = 32
_INT64: Final = 2**63
_LEFT_OUT: Final = object()

_HINTS: Final = {
    "datetime": "write it as text with .isoformat()",
    "date": "write it as text with .isoformat()",
    "time": "write it as text with .isoformat()",
    "timedelta": "write it as a number, .total_seconds()",
    "Decimal": "write it as text with str(), or as a float",
    "bytes": "decode it, or write it as base64 text",
    "bytearray": "decode it, or write it as base64 text",
    "set": "write it as a sorted list",
    "frozenset": "write it as a sorted list",
    "UUID": "write it as text with str()",
}

# One encoder for all: creating one takes as long as encoding a small body. The one of C has no Python around it.
_encoder: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_encoder_in_c: Final = getattr(json.encoder, "c_make_encoder", None)
_chunks: Final[Callable[[Any, int], Iterable[str]] | None] = _encoder_in_c and _encoder_in_c(
    None, _encoder.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False
)
_sorted: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, sort_keys=True, ensure_ascii=False)

Reject = Callable[[str, str], None]


def canonical(value: Any) -> bytes:
    """Return a value as JSON without spaces, with sorted keys, in UTF-8: the same bytes in every language.

    Raises:
        TypeError, ValueError, RecursionError: It cannot be written as JSON; the message says why.
    """
    return _sorted.encode(value).encode("utf-8", "surrogatepass")


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


def clean_json(value: Any, where: str) -> Any:
    """Return a copy of a JSON value: later changes to the original do not reach it.

    Args:
        value: The caller's value.
        where: Its name in the error, for example ``metadata``.

    Raises:
        InvalidRequestError: the message has the place (``metadata.run.started``), the problem and what to write.
    """

    def reject(path: str, why: str) -> None:
        raise InvalidRequestError(f"{path:.200} {why}")

    return _copy(value, where, reject, 0)


def clean_object(value: Any, where: str) -> dict[str, Any]:
    """Return a copy of a JSON object, such as metadata.

    Raises:
        InvalidRequestError: as `clean_json`, and for a value that is no mapping.
    """
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{where} must be a mapping with string keys, got {type(value).__name__}")
    cleaned: dict[str, Any] = clean_json(value, where)
    return cleaned


def salvage_json(value: Any, where: str = "metadata") -> tuple[Any, list[str]]:
    """Return what can be sent of a value, and the places that were omitted. Never raises.

    A bad member of a mapping is dropped, a bad item of a list becomes None (the others keep their places), and a value
    that is bad as a whole becomes None.
    """
    left_out: list[str] = []
    try:
        kept = _copy(value, where, lambda path, why: left_out.append(path), 0)
    except Exception:  # a caller's own class failed while it was read; the amount goes out without it
        return None, [where]
    return (None if kept is _LEFT_OUT else kept), left_out


def salvage_metadata(value: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the usable members of the caller's metadata, and the places of the others. Never raises."""
    if value is None or (type(value) is dict and not value):
        return {}, []
    if not isinstance(value, Mapping):
        return {}, ["metadata"]
    kept, omitted = salvage_json(value)
    return (kept if isinstance(kept, dict) else {}), omitted


def _copy(value: Any, path: str, reject: Reject, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if depth > MAX_DEPTH:
        reject(path, f"is nested too deeply: it has more than {MAX_DEPTH} levels, or contains itself")
    elif isinstance(value, str):
        return _text(value, path, reject)
    elif isinstance(value, int | float):
        return _number(value, path, reject)
    elif isinstance(value, Mapping):
        return _mapping(value, path, reject, depth)
    elif isinstance(value, list | tuple):
        items = [_copy(item, f"{path}[{i}]", reject, depth + 1) for i, item in enumerate(value)]
        return [None if item is _LEFT_OUT else item for item in items]
    else:
        kind = type(value).__name__
        reject(
            path, f"is a {kind}, which JSON has no form for; {_HINTS.get(kind, 'pass a string, a number or a list')}"
        )
    return _LEFT_OUT


def _mapping(value: Mapping[Any, Any], path: str, reject: Reject, depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    # A copy of the items: another thread may change the mapping of the caller.
    for key, member in list(value.items()):
        if not isinstance(key, str) or _text(key, f"a key of {path}", reject) is _LEFT_OUT:
            reject(f"{path}[{key!r:.80}]", "has a key that must be a string")
            continue
        copied = _copy(member, f"{path}.{key}", reject, depth + 1)
        if copied is not _LEFT_OUT:
            kept[str.__str__(key)] = copied
    return kept


def _number(value: float, path: str, reject: Reject) -> Any:
    if isinstance(value, int):
        if -_INT64 <= value < _INT64:
            return int(value)
        reject(path, "is an integer of more than 64 bits; pass it as a string")
    elif math.isfinite(value):
        return float(value)
    else:
        reject(path, f"is {value!r:.80}, which JSON has no form for; omit it or pass a number")
    return _LEFT_OUT


def is_text(value: str) -> bool:
    """Return whether UTF-8 can encode it: half of a surrogate pair is no Unicode text, though JSON can contain it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: str, path: str, reject: Reject) -> Any:
    if not is_text(value):
        reject(path, "must be Unicode text: it has half of a surrogate pair")
        return _LEFT_OUT
    return str.__str__(value)
