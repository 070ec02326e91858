"""Decode request bodies strictly, check every field, and return them in one canonical form.

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

from cycles._core.amounts import INT64_MAX, Unit
from cycles._core.subjects import LEVELS
from cycles.embedded.errors import ApiError
from cycles.embedded.overage import POLICIES
from cycles.embedded.records import Body

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


def _dimensions(value: Any, path: str, problems: Problems) -> Any:
    if not isinstance(value, dict) or len(value) > 16:
        problems.append(f"{path}: must be an object of at most 16 entries")
        return value
    return {name: _DIMENSION(item, f"{path}.{name}", problems) for name, item in value.items()}


_DIMENSION: Final = _text(256)


@frozen
class _Field:
    check: Check
    required: bool = False
    default: Any = _ABSENT
    # Null counts as absent, except for two fields whose null is another payload on the reference server.
    null_stays: bool = False


def _object(**fields: _Field) -> Check:
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


# --- the protocol's shapes ------------------------------------------------------------------------------------------

_AMOUNT: Final = _object(
    unit=_Field(_one_of([unit.value for unit in Unit]), required=True), amount=_Field(_integer(0), required=True)
)
_SUBJECT: Final = _object(
    **{level: _Field(_text(128, pattern=_LEVEL_VALUE)) for level in LEVELS}, dimensions=_Field(_dimensions)
)
_ACTION_FIELDS: Final = {
    "kind": _Field(_text(64, blank=False), required=True),
    "name": _Field(_text(256, blank=False), required=True),
    "tags": _Field(_strings(10, _text(64))),
}
_ACTION: Final = _object(**_ACTION_FIELDS)
_METRICS: Final = _object(
    tokens_input=_Field(_integer(0, INT32_MAX)),
    tokens_output=_Field(_integer(0, INT32_MAX)),
    latency_ms=_Field(_integer(0, INT32_MAX)),
    model_version=_Field(_text(128)),
    custom=_Field(_free),
)
_DAY_MS: Final = 86_400_000
_KEY: Final = _Field(_text(256, 1), required=True)
_WHO: Final = {"idempotency_key": _KEY, "subject": _Field(_SUBJECT, required=True), "action": _Field(_ACTION, True)}
_METADATA: Final = _Field(_free)
_POLICY: Final = _Field(_one_of(POLICIES))

_RESERVE: Final = {
    **_WHO,
    "estimate": _Field(_AMOUNT, required=True),
    "ttl_ms": _Field(_integer(1_000, _DAY_MS)),
    "grace_period_ms": _Field(_integer(0, 60_000), default=5_000, null_stays=True),
    "overage_policy": _POLICY,
    "dry_run": _Field(_flag, default=False, null_stays=True),
    "metadata": _METADATA,
}
_DECIDE: Final = {**_WHO, "estimate": _Field(_AMOUNT, required=True), "metadata": _METADATA}
_EVENT: Final = {
    **_WHO,
    "actual": _Field(_AMOUNT, required=True),
    "overage_policy": _POLICY,
    "metrics": _Field(_METRICS),
    "client_time_ms": _Field(_integer(0)),
    "metadata": _METADATA,
}

SHAPES: Final[Mapping[str, Check]] = {
    "reserve": _object(**_RESERVE),
    "decide": _object(**_DECIDE),
    "commit": _object(
        idempotency_key=_KEY, actual=_Field(_AMOUNT, required=True), metrics=_Field(_METRICS), metadata=_METADATA
    ),
    "release": _object(idempotency_key=_KEY, reason=_Field(_text(256))),
    "extend": _object(
        idempotency_key=_KEY, extend_by_ms=_Field(_integer(1, _DAY_MS), required=True), metadata=_METADATA
    ),
    "event": _object(**_EVENT),
}


_CUSTOM_KEY: Final = _text(256)


def _custom(value: Any, path: str, problems: Problems) -> Any:
    if not isinstance(value, dict) or len(value) > 8:
        problems.append(f"{path}: must be an object of at most 8 entries")
        return value
    return {name: _CUSTOM_KEY(item, f"{path}.{name}", problems) for name, item in value.items()}


_POLICY_KEYS: Final = _object(
    host=_Field(_text(253)),
    recipient_domain=_Field(_text(253)),
    resource_type=_Field(_text(128)),
    path_prefix=_Field(_text(512)),
    custom=_Field(_custom),
)
_NEXT_WHO: Final = {**_WHO, "action": _Field(_object(**_ACTION_FIELDS, policy_keys=_Field(_POLICY_KEYS)), True)}
NEXT_SHAPES: Final[Mapping[str, Check]] = {
    **SHAPES,
    "reserve": _object(**{**_RESERVE, **_NEXT_WHO}, observe_mode=_Field(_one_of(("DISABLED", "OBSERVE", "ENFORCE")))),
    "decide": _object(**{**_DECIDE, **_NEXT_WHO}),
    "event": _object(**{**_EVENT, **_NEXT_WHO}),
}
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
