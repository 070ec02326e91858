"""Decode request bodies strictly, check every field by its schema, and return them in one canonical form.

The form has the fixed fields in the protocol's order, without nulls and with defaults, so that equal requests are equal
values (idempotency). A message names the path of each wrong field. The reference server also accepts numbers as strings
and fractions for integers; this server rejects them, which the protocol allows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias

from attrs import frozen

from cycles._core.amounts import INT64_MAX
from cycles._core.subjects import LEVELS
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body
from cycles_client.protocol import OPERATIONS, SCHEMAS

INT32_MAX: Final = 2**31 - 1
# Far more than useful, and far less than the JSON parser and encoder can process.
MAX_NESTING: Final = 500
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
MAX_ID_LENGTH: Final = 128
# Bounds the message for a body with many wrong fields.
MAX_MESSAGE: Final = 2_000

Problems: TypeAlias = list[str]
Check: TypeAlias = Callable[[Any, str, Problems], Any]

_LEVEL_VALUE: Final = re.compile(r"[a-zA-Z0-9_.-]+")
_ABSENT: Final = object()


# --- decoding -----------------------------------------------------------------------------------------------------


def decode(body: bytes) -> Any:
    """Return the JSON value of a request body.

    Raises:
        ApiError: INVALID_REQUEST (400; 413 if the body is too big).
    """
    if len(body) > MAX_BODY_BYTES:
        raise ApiError(
            "INVALID_REQUEST", f"the body is larger than {MAX_BODY_BYTES} bytes; send less metadata", status=413
        )
    try:
        value = _DECODER.decode(body.decode("utf-8-sig"))
    except RecursionError:
        raise _too_deep() from None
    except ValueError as wrong:
        raise ApiError("INVALID_REQUEST", f"the body is not JSON: {wrong}") from None
    # Counting brackets is cheap and almost always suffices.
    if body.count(b"{") + body.count(b"[") > MAX_NESTING and _nesting(value) > MAX_NESTING:
        raise _too_deep()
    return value


def _too_deep() -> ApiError:
    return ApiError("INVALID_REQUEST", f"the body is nested too deeply; send at most {MAX_NESTING} levels")


def _nesting(value: Any) -> int:
    level, depth = [value], 0
    while level:
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [member for item in containers for member in (item.values() if isinstance(item, dict) else item)]
        depth += bool(containers)
    return depth


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} does not fit into a number")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON value")


_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)


# --- checks: each returns the canonical value and appends to `problems` what is wrong --------------------------------


def _text(most: int, least: int = 0, *, pattern: re.Pattern[str] | None = None, blank: bool = True) -> Check:
    def check(value: Any, path: str, problems: Problems) -> Any:
        if not isinstance(value, str):
            problems.append(f"{path}: must be a string")
        elif not least <= _length(value) <= most:
            problems.append(f"{path}: must have {least} to {most} characters")
        elif pattern is not None and not pattern.fullmatch(value):
            problems.append(f"{path}: must be one or more letters, digits, '_', '.' or '-'")
        elif not blank and all(character <= " " for character in value):
            problems.append(f"{path}: must not be blank")
        return value

    return check


def _length(value: str) -> int:
    # The protocol's limits count UTF-16 units: a character beyond the basic plane counts twice.
    return len(value) if value.isascii() else len(value.encode("utf-16-le", "surrogatepass")) // 2


def _integer(least: int, most: int = INT64_MAX) -> Check:
    def check(value: Any, path: str, problems: Problems) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            problems.append(f"{path}: must be an integer")
        elif not least <= value <= most:
            problems.append(f"{path}: must be between {least} and {most}")
        return value

    return check


def _one_of(keywords: Sequence[str]) -> Check:
    def check(value: Any, path: str, problems: Problems) -> Any:
        if not isinstance(value, str) or value not in keywords:
            problems.append(f"{path}: must be one of {', '.join(keywords)}")
        return value

    return check


def _flag(value: Any, path: str, problems: Problems) -> Any:
    if not isinstance(value, bool):
        problems.append(f"{path}: must be true or false")
    return value


def _free(value: Any, path: str, problems: Problems) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{path}: must be an object")
    return value


def _strings(most: int, each: Check) -> Check:
    def check(value: Any, path: str, problems: Problems) -> Any:
        if not isinstance(value, list) or len(value) > most:
            problems.append(f"{path}: must be a list of at most {most} strings")
            return value
        return [each(item, f"{path}[{place}]", problems) for place, item in enumerate(value)]

    return check


def _entries(most: int, each: Check) -> Check:
    def check(value: Any, path: str, problems: Problems) -> Any:
        if not isinstance(value, dict) or len(value) > most:
            problems.append(f"{path}: must be an object of at most {most} entries")
            return value
        return {name: each(item, f"{path}.{name}", problems) for name, item in value.items()}

    return check


@frozen
class _Field:
    check: Check
    required: bool
    default: Any
    # Null counts as absent, except for two fields whose null is another payload on the reference server.
    null_stays: bool


def _object(fields: Mapping[str, _Field]) -> Check:
    def check(value: Any, path: str, problems: Problems) -> Any:
        if not isinstance(value, dict):
            problems.append(f"{path or 'body'}: must be an object")
            return value
        prefix = f"{path}." if path else ""
        problems.extend(f"{prefix}{name}: is not a member of this request" for name in value if name not in fields)
        form: Body = {}
        for name, field in fields.items():
            member = value.get(name, field.default)
            if member is not None and member is not _ABSENT:
                form[name] = field.check(member, prefix + name, problems)
            elif field.required:
                problems.append(f"{prefix}{name}: is required")
            elif field.null_stays:
                form[name] = None
        return form

    return check


# --- the protocol's shapes, and where the reference server differs from them -----------------------------------------

_REQUESTS: Final = {
    "reserve": "createReservation",
    "decide": "decide",
    "commit": "commitReservation",
    "release": "releaseReservation",
    "extend": "extendReservation",
    "event": "createEvent",
}
_NEXT: Final = frozenset({"policy_keys", "observe_mode"})
"""Members of protocol 0.1.26."""
_STRICTER: Final[Mapping[str, Check]] = {
    **dict.fromkeys(LEVELS, _text(128, pattern=_LEVEL_VALUE)),
    "kind": _text(64, blank=False),
    "name": _text(256, blank=False),
}
_DEFAULTS: Final = {"grace_period_ms": 5_000, "dry_run": False}
"""A null of these two is another payload than their absence."""


def _check_of(schema: Mapping[str, Any], without: frozenset[str]) -> Check:
    """Return the check of a schema. An integer has 64 bits only if the schema says so."""
    if "$ref" in schema:
        return _check_of(SCHEMAS[schema["$ref"]], without)
    if "enum" in schema:
        return _one_of(schema["enum"])
    kind, values = schema.get("type"), schema.get("additionalProperties")
    if kind == "string":
        return _text(schema.get("maxLength", INT32_MAX), schema.get("minLength", 0))
    if kind == "integer":
        most = INT64_MAX if schema.get("format") == "int64" else INT32_MAX
        return _integer(schema.get("minimum", -most), schema.get("maximum", most))
    if kind == "boolean":
        return _flag
    if kind == "array":
        return _strings(schema.get("maxItems", INT32_MAX), _check_of(schema["items"], without))
    if "properties" in schema:
        return _object({name: _field(schema, name, without) for name in schema["properties"] if name not in without})
    if isinstance(values, Mapping):
        return _entries(schema.get("maxProperties", INT32_MAX), _check_of(values, without))
    return _free


def _field(schema: Mapping[str, Any], name: str, without: frozenset[str]) -> _Field:
    check = _STRICTER.get(name) or _check_of(schema["properties"][name], without)
    default = _DEFAULTS.get(name, _ABSENT)
    return _Field(check, name in schema.get("required", ()), default, null_stays=name in _DEFAULTS)


def _shapes(without: frozenset[str]) -> dict[str, Check]:
    return {name: _check_of({"$ref": OPERATIONS[each]["request"]}, without) for name, each in _REQUESTS.items()}


SHAPES: Final[Mapping[str, Check]] = _shapes(_NEXT)
NEXT_SHAPES: Final[Mapping[str, Check]] = _shapes(frozenset())
"""The shapes of protocol 0.1.26."""


def checked(operation: str, value: Any, shapes: Mapping[str, Check] = SHAPES) -> Body:
    """Return a decoded request body in canonical form.

    Raises:
        ApiError: INVALID_REQUEST, with every wrong field and the reason.
    """
    problems: Problems = []
    form: Body = shapes[operation](value, "", problems)
    if problems:
        raise ApiError("INVALID_REQUEST", "; ".join(problems)[:MAX_MESSAGE])
    return form


def require_level(subject: Body) -> None:
    """Raise INVALID_REQUEST for a subject that has dimensions only."""
    if not any(level in subject for level in LEVELS):
        raise ApiError("INVALID_REQUEST", f"subject: at least one of {', '.join(LEVELS)} is required")


def require_id_length(reservation_id: str) -> None:
    """Raise INVALID_REQUEST for an id of the path that is empty or too long."""
    if not 1 <= _length(reservation_id) <= MAX_ID_LENGTH:
        raise ApiError(
            "INVALID_REQUEST",
            f"reservation_id: must have 1 to {MAX_ID_LENGTH} characters, has {_length(reservation_id)}",
        )
