"""`Wire`: turns calls into the bytes of a request, and replies into outcomes. It is the only place with the API key.

The operations and what their responses must satisfy come from the tables that are generated with `cycles_client`
(`protocol.py`), so a new version of the protocol needs no edit here. The wire sends nothing itself: drivers pass its
requests to connections and the replies back to it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

from attrs import frozen

from cycles._core.messages.outcome import Outcome, Reply, classify_response
from cycles._core.messages.requests import Call, Prepared, aware, check_id
from cycles._core.messages.schema import Check, Checkers
from cycles._core.protocol import GET_EVIDENCE_KEYS
from cycles._core.values.headers import KEY_HEADER, checked_header
from cycles._core.values.json_values import compact
from cycles._core.values.secret import Secret, pattern_of
from cycles._errors import InvalidRequestError
from cycles._version import __version__

USER_AGENT: Final = f"cycles-sdk/{__version__} python/{sys.version_info[0]}.{sys.version_info[1]}"

_KEPT_KEYS: Final = 4  # a response may repeat the key that it rejected
_JSON: Final = (b"Content-Type", b"application/json")
Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
_ONE_BY_ONE: Final = {GET_EVIDENCE_KEYS: "keys"}
"""Responses whose items their reader checks one by one: a key of an unknown type must not hide the others."""


@frozen
class _Operation:
    method: str
    path: str
    parameters: dict[str, Mapping[str, Any]]
    checks: dict[str, Check]
    request: Check | None
    success: int
    other_success: tuple[int, ...]
    response: Check | None
    error: Check
    public: bool


class _Operations(dict[str, _Operation]):
    """The operations by their id. Each is read from the tables at its first look-up: a client needs few of them."""

    def __init__(self, tables: Callable[[], Tables]) -> None:
        super().__init__()
        self._tables = tables

    def __missing__(self, name: str) -> _Operation:
        tables = self._tables()
        if name not in tables.OPERATIONS:
            raise InvalidRequestError(
                f"operation: the protocol has no {name!r:.80}; regenerate cycles_client if it is new"
            )
        requests, responses = (Checkers(tables.SCHEMAS, responses=each) for each in (False, True))
        return self.setdefault(name, _operation(name, tables, requests, responses))  # unless another thread has


class Wire:
    """Builds the requests of one API key, and classifies the replies to them."""

    def __init__(
        self,
        api_key: str,
        tables: Callable[[], Tables] | None = None,
        key_header: str = KEY_HEADER,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._tables = tables or runtime_tables
        self._keys: tuple[str, ...] = ()  # the current one first, then those before it
        self._secrets: re.Pattern[str] | None = None
        self._secret_bytes: tuple[bytes, ...] = ()
        self._key_header = key_header
        more = [self._header("default_headers", name, value) for name, value in (headers or {}).items()]
        self._public_headers: Headers = ((b"User-Agent", USER_AGENT.encode()), *more)
        self._headers = self._public_headers
        self._json_headers: Headers = (*self._headers, _JSON)  # made once: connections know them again
        if api_key:
            self.use_key(api_key)
        self._operations = _Operations(self._tables)

    def __repr__(self) -> str:
        return "<Wire>"

    def use_key(self, api_key: str) -> None:
        """Send this key from now on."""
        if self._keys[:1] != (api_key,):
            # The keys before it are kept, because a response to a request with one of them may still repeat it.
            self._keys = (api_key, *(key for key in self._keys if key != api_key))[:_KEPT_KEYS]
            self._secrets = pattern_of(self._keys)
            self._secret_bytes = tuple(Secret(key.encode()) for key in self._keys)
            self._headers = (*self._public_headers, (self._key_header.encode(), self._secret_bytes[0]))
            self._json_headers = (*self._headers, _JSON)

    def needs_key(self, call: Call) -> bool:
        """Return whether the operation of a call is sent with a key."""
        return not self._operations[call.operation].public

    def check(self, call: Call) -> None:
        """Check a call against the schema of its operation.

        Raises:
            InvalidRequestError: A value is wrong. The message names it and what is allowed; nothing was sent.
        """
        operation = self._operations[call.operation]
        for name, value in {**call.path, **call.query}.items():
            if name not in operation.parameters:
                known = ", ".join(operation.parameters)
                raise InvalidRequestError(f"{name} is not a parameter of {call.operation}: use one of {known}")
            schema = operation.parameters[name]["schema"]
            # Written as text later (`_query_text`), so what is passed here is no value of the schema.
            if schema.get("format") == "date-time" or (schema.get("type") == "array" and not isinstance(value, list)):
                continue
            problem = operation.checks[name](value, name)
            if problem is not None:
                raise InvalidRequestError(problem)
        if operation.request is not None and call.body is not None:
            problem = operation.request(call.body, "")
            if problem is not None:
                raise InvalidRequestError(problem.removeprefix(": "))

    def prepare(self, call: Call) -> Prepared:
        """Return the request of a call.

        Raises:
            InvalidRequestError: An id or an extra header cannot be sent, or the body is not JSON.
        """
        operation = self._operations[call.operation]
        # Ids are quoted one by one: a slash in one of them must not become part of the path.
        target = operation.path
        for name, value in call.path.items():
            quoted = value if _is_url_safe(value) else quote(check_id(name, value), safe="")
            target = target.replace(f"{{{name}}}", quoted)
        if call.query:
            target += "?" + urlencode(self._query(operation, call.query))
        content = b"" if call.body is None else _json(call.body)
        return Prepared(operation.method, target, self._headers_of(operation, call), content)

    def _headers_of(self, operation: _Operation, call: Call) -> Headers:
        """Return the headers of a call; what differs from call to call comes last."""
        if operation.public:
            headers = self._public_headers if call.body is None else (*self._public_headers, _JSON)
        else:
            headers = self._headers if call.body is None else self._json_headers
        trace_id, more = call.options.trace_id, call.options.headers
        if more:
            # Names of headers have no case: two that differ in case only would both be sent.
            own = {name.lower().encode() for name in more}
            kept = (header for header in headers if header[0].lower() not in own)
            headers = (*kept, *(self._header("extra_headers", name, value) for name, value in more.items()))
        if call.trace_headers is not None:
            return headers + tuple((name.encode(), value.encode()) for name, value in call.trace_headers.items())
        if trace_id is None:
            return headers
        return (*headers, (b"traceparent", f"00-{trace_id}-{trace_id[16:]}-01".encode()))

    def classify_response(self, call: Call, reply: Reply) -> Outcome:
        """Classify the reply to a call: see `docs/protocol/responses.md`."""
        operation = self._operations[call.operation]
        redact = _unchanged
        # Few bodies have a key in them, and replacing it needs the whole body as text. So it is looked for first.
        for secret in self._secret_bytes:
            if reply.body.find(secret) >= 0:  # `in` makes an exception first, to see that it is no number
                redact = self.redact
        return classify_response(
            reply,
            success=reply.status if reply.status in operation.other_success else operation.success,
            check=operation.response,
            error_check=operation.error,
            redact=redact,
        )

    def redact(self, text: str) -> str:
        """Return `text` without the API key, for messages of a server that repeat it."""
        return text if self._secrets is None else self._secrets.sub("[api key]", text)

    def item_check(self, operation: str) -> Check:
        """Return the check of one item of a list whose items are checked one by one."""
        tables = self._tables()
        members = tables.SCHEMAS[tables.OPERATIONS[operation]["response"]]["properties"]
        return Checkers(tables.SCHEMAS, responses=True).inline(members[_ONE_BY_ONE[operation]]["items"])

    def _header(self, where: str, name: Any, value: Any) -> tuple[bytes, bytes]:
        name, value = checked_header(where, name, value, self._key_header)
        return name.encode(), Secret(value.encode())

    def _query(self, operation: _Operation, query: Mapping[str, Any]) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        for name, value in query.items():
            items = value if isinstance(value, list | tuple) else [_query_text(name, value)]
            exploded = operation.parameters[name].get("explode", True)
            pairs += [(name, str(item)) for item in (items if exploded else [",".join(map(str, items))])]
        return pairs


def _operation(name: str, tables: Tables, requests: Checkers, responses: Checkers) -> _Operation:
    table = tables.OPERATIONS[name]
    parameters = {parameter["name"]: parameter for parameter in table["parameters"]}
    recognized = tables.PARAMETERS.get(name, {})
    request, response, error = table["request"], table["response"], table["error"]
    return _Operation(
        table["method"],
        table["path"],
        parameters,
        {key: _check(recognized.get(key), requests, each["schema"]) for key, each in parameters.items()},
        _check(tables.REQUESTS.get(request), requests, {"$ref": request}) if request else None,
        table["success"],
        tuple(table.get("other_success", ())),
        _response_check(name, response, tables, responses) if response else None,
        _check(tables.RESPONSES.get(error), responses, {"$ref": error}) if error else _anything,
        public=not table["security"],
    )


def _response_check(operation: str, name: str, tables: Tables, responses: Checkers) -> Check:
    """Return the check of a response, without its items if they are checked one by one."""
    schema, member = tables.SCHEMAS.get(name, {}), _ONE_BY_ONE.get(operation)
    if member not in schema.get("properties", {}):
        return _check(tables.RESPONSES.get(name), responses, {"$ref": name})
    return responses.inline({**schema, "properties": {**schema["properties"], member: {"type": "array"}}})


def _check(recognizes: Callable[[Any], bool] | None, checkers: Checkers, schema: Mapping[str, Any]) -> Check:
    """Return a check whose checker is only made for a value that is not recognized as valid."""

    def check(value: Any, path: str) -> str | None:
        if recognizes is not None and recognizes(value):
            return None
        return checkers.inline(schema)(value, path)

    return check


@frozen
class Tables:
    """The tables of a generated package: operations and schemas, and what recognizes valid bodies of these schemas."""

    OPERATIONS: Mapping[str, Mapping[str, Any]]
    SCHEMAS: Mapping[str, Mapping[str, Any]]
    REQUESTS: Mapping[str, Callable[[Any], bool]] = MappingProxyType({})
    RESPONSES: Mapping[str, Callable[[Any], bool]] = MappingProxyType({})
    PARAMETERS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = MappingProxyType({})


def tables_of(protocol: Any, checks: Any) -> Tables:
    """Return the tables of the modules `protocol` and `checks` of a package."""
    if checks.SCHEMAS is not protocol.SCHEMAS:  # a test or a program has replaced them
        return Tables(protocol.OPERATIONS, protocol.SCHEMAS)
    return Tables(protocol.OPERATIONS, protocol.SCHEMAS, checks.REQUESTS, checks.RESPONSES, checks.PARAMETERS)


def runtime_tables() -> Tables:
    """Return the tables of the runtime operations."""
    from cycles_client import checks, protocol

    return tables_of(protocol, checks)


def _query_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return aware(name, value).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def _json(body: Any) -> bytes:
    try:
        return compact(body)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the request cannot be encoded as JSON: {error}; pass strings, numbers, booleans, lists and mappings"
        raise InvalidRequestError(message) from error


def _is_url_safe(value: object) -> bool:
    """Return whether this is an id that is its own quoted form."""
    return isinstance(value, str) and value.isascii() and value.replace("-", "").isalnum()


def _unchanged(text: str) -> str:
    return text


def _anything(value: Any, path: str) -> str | None:
    return None
