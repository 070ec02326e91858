"""Calls to bytes, bytes to outcomes: the only importer of `cycles_client`, and the only place that knows the API key.

What an operation looks like and what its answer must satisfy comes from the tables generated with `cycles_client`
(`protocol.py`), so that a new version of the protocol is a regeneration, not an edit here. The wire sends nothing
itself; drivers hand its bytes to their connections and the reply back to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

from attrs import field, frozen

from cycles._core.outcome import Outcome, classify_response
from cycles._core.protocol import GET_EVIDENCE_KEYS
from cycles._core.requests import Call, aware, check_id
from cycles._core.schema import Check, Checkers
from cycles._errors import InvalidRequestError
from cycles._version import __version__

USER_AGENT: Final = f"cycles-sdk/{__version__} python/{sys.version_info[0]}.{sys.version_info[1]}"

_KEY_HEADER: Final = b"X-Cycles-API-Key"
_ONE_BY_ONE: Final = {GET_EVIDENCE_KEYS: "keys"}
"""Answers whose items are judged one by one by their reader: one foreign key must not hide the others."""


class ReplyLike(Protocol):
    """What connections answer: see `_http.factory.Reply`."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def sent(self) -> float | None: ...
    @property
    def received(self) -> float: ...
    def header(self, name: str, /) -> str | None: ...


@frozen
class Prepared:
    """One request, ready to be written. `target` is path and query, below the path of the base URL."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    content: bytes = field(repr=False)


@frozen
class _Operation:
    method: str
    path: str
    parameters: dict[str, Mapping[str, Any]]
    request: str | None
    success: int
    other_success: tuple[int, ...]
    response: str | None
    error: str | None
    public: bool


class Wire:
    """One key: how its requests look and what the answers to them prove."""

    def __init__(
        self, api_key: str, *, tables: Callable[[], Any] | None = None, key_header: bytes = _KEY_HEADER
    ) -> None:
        self._tables = tables or _runtime_tables
        self._key = api_key
        self._key_bytes = api_key.encode()
        common = [(b"User-Agent", USER_AGENT.encode())]
        self._public_headers = common
        self._headers = [*common, (key_header, self._key_bytes)]
        self._operations: dict[str, _Operation] = {}
        self._requests: Checkers | None = None
        self._answers: Checkers | None = None

    def __repr__(self) -> str:
        return "<Wire>"

    def check(self, call: Call) -> None:
        """Hold a call against the schema of its operation.

        Raises:
            InvalidRequestError: naming the member and the bound it breaks. Nothing has been sent.
        """
        operation = self._operation(call.operation)
        assert self._requests is not None
        for name, value in {**call.path, **call.query}.items():
            if name not in operation.parameters:
                raise InvalidRequestError(f"{name}: the protocol has no such parameter of {call.operation}")
            schema = operation.parameters[name]["schema"]
            if schema.get("type") == "array" or schema.get("format") == "date-time":
                continue
            _raise(self._requests.inline(schema)(value, name))
        if operation.request is not None and call.body is not None:
            _raise(self._requests[operation.request](call.body, ""))

    def prepare(self, call: Call) -> Prepared:
        """The bytes of a call.

        Raises:
            InvalidRequestError: for an id that is not one, or a body that is not JSON.
        """
        operation = self._operation(call.operation)
        target = operation.path
        for name, value in call.path.items():
            target = target.replace(f"{{{name}}}", quote(check_id(name, value), safe=""))
        if call.query:
            target += "?" + urlencode(self._query(operation, call.query))
        headers = list(self._public_headers if operation.public else self._headers)
        if call.trace_id is not None:
            headers.append((b"traceparent", f"00-{call.trace_id}-{call.trace_id[16:]}-01".encode()))
        content = b""
        headers += [_header(name, value) for name, value in call.headers.items()]
        if call.body is not None:
            content = _json(call.body)
            headers.append((b"Content-Type", b"application/json"))
        return Prepared(operation.method, target, headers, content)

    def classify_response(self, call: Call, reply: ReplyLike) -> Outcome:
        """What the reply to a call proves (semantics 8)."""
        operation = self._operation(call.operation)
        answers = self._answers
        assert answers is not None
        return classify_response(
            success=reply.status if reply.status in operation.other_success else operation.success,
            check=answers[operation.response] if operation.response is not None else None,
            error_check=answers[operation.error] if operation.error is not None else _anything,
            status=reply.status,
            header=reply.header,
            body=reply.body,
            sent=reply.sent,
            received=reply.received,
            redact=self.redact if self._key_bytes in reply.body else _as_it_is,
        )

    def redact(self, text: str) -> str:
        """`text` without the API key, should somebody echo it (decisions 18)."""
        return text.replace(self._key, "[api key]")

    def item_check(self, operation: str) -> Check:
        """The tolerant checker of one item of a list that is read item by item."""
        protocol = self._tables()
        self._load()
        assert self._answers is not None
        members = protocol.SCHEMAS[protocol.OPERATIONS[operation]["response"]]["properties"]
        return self._answers.inline(members[_ONE_BY_ONE[operation]]["items"])

    def _operation(self, name: str) -> _Operation:
        try:
            return self._operations[name]
        except KeyError:
            self._load()
        if name not in self._operations:
            raise InvalidRequestError(f"the protocol this client was generated from has no operation {name}")
        return self._operations[name]

    def _load(self) -> None:
        # The tables are read when the first call is made, not when the client is.
        protocol = self._tables()
        if self._requests is None:
            self._answers = Checkers(_without_items(protocol.SCHEMAS, protocol.OPERATIONS), responses=True)
            self._operations = {name: _operation(table) for name, table in protocol.OPERATIONS.items()}
            self._requests = Checkers(protocol.SCHEMAS, responses=False)

    def _query(self, operation: _Operation, query: Mapping[str, Any]) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        for name, value in query.items():
            if isinstance(value, list | tuple):
                exploded = operation.parameters[name].get("explode", True)
                texts = [str(item) for item in value]
                pairs += [(name, text) for text in (texts if exploded else [",".join(texts)])]
            else:
                pairs.append((name, _query_text(name, value)))
        return pairs


def _operation(table: Mapping[str, Any]) -> _Operation:
    parameters = {parameter["name"]: parameter for parameter in table["parameters"]}
    return _Operation(
        table["method"],
        table["path"],
        parameters,
        table["request"],
        table["success"],
        tuple(table.get("other_success", ())),
        table["response"],
        table["error"],
        public=not table["security"],
    )


def _runtime_tables() -> Any:
    """Return the tables of the runtime operations."""
    from cycles_client import protocol

    return protocol


def _without_items(schemas: Mapping[str, Any], operations: Mapping[str, Any]) -> dict[str, Any]:
    """The schemas, where lists that are judged one by one are plain lists."""
    changed: dict[str, Any] = dict(schemas)
    for operation, member in _ONE_BY_ONE.items():
        name = operations.get(operation, {}).get("response")
        if member in changed.get(name, {}).get("properties", {}):
            members = {**changed[name]["properties"], member: {"type": "array"}}
            changed[name] = {**changed[name], "properties": members}
    return changed


def _query_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return aware(name, value).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    try:
        return name.encode("ascii"), value.encode("ascii")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"header {name}: HTTP headers are ASCII") from error


# One encoder for all requests: making one costs as much as encoding a small body.
_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _json(body: Any) -> bytes:
    try:
        return _to_json(body).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the request is not JSON: {error}") from error


def _raise(problem: str | None) -> None:
    if problem is not None:
        raise InvalidRequestError(problem.removeprefix(": "))


def _as_it_is(text: str) -> str:
    return text


def _anything(value: Any, path: str) -> str | None:
    return None
