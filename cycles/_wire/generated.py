"""The generated functions, reached by name: arguments become a call, the body of a success the generated model.

Only the building and the reading are theirs; the request goes out over this client's connections like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, Final
from urllib.parse import unquote

from attrs import frozen

from cycles._core.requests import Call
from cycles._errors import AmbiguousResponseError, InvalidRequestError

_PACKAGE: Final = "cycles_client"


def find(operation: str | ModuleType, package: str = _PACKAGE) -> str:
    """The operation id of an operation that is given by its id or by its generated module.

    Raises:
        InvalidRequestError: for anything else, with the ids that look like it.
    """
    protocol = _protocol(package)
    if isinstance(operation, ModuleType):
        module = operation.__name__.removeprefix(f"{package}.")
        for name, entry in protocol.OPERATIONS.items():
            if entry["module"] == module:
                return str(name)
    elif operation in protocol.OPERATIONS:
        return operation
    shown = operation.__name__ if isinstance(operation, ModuleType) else str(operation)
    near = get_close_matches(shown, protocol.OPERATIONS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(protocol.OPERATIONS)}"
    raise InvalidRequestError(f"operation: the protocol has no {shown!r}; {hint}")


def is_read(operation: str, package: str = _PACKAGE) -> bool:
    """Whether the operation changes nothing, so that it may be repeated freely."""
    return _entry(operation, package)["method"] in ("GET", "HEAD", "OPTIONS")


def call_of(
    operation: str,
    arguments: Mapping[str, Any],
    headers: Mapping[str, str],
    trace_id: str,
    package: str = _PACKAGE,
) -> Call:
    """The call that the generated code makes of its arguments; a body may be a generated model or a mapping.

    Raises:
        InvalidRequestError: where the generated code cannot make a request of them.
    """
    entry = _entry(operation, package)
    given = dict(arguments)
    if isinstance(given.get("body"), Mapping):
        given["body"] = _Body(given["body"])
    try:
        built = _module(entry, package)._get_kwargs(**given)
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidRequestError(f"{operation}: {str(error).removeprefix('_get_kwargs() ')}") from error
    sent = {name: str(value) for name, value in built.get("headers", {}).items() if name != "Content-Type"}
    return Call(
        operation,
        _path_parameters(entry["path"], built["url"]),
        query=built.get("params", {}),
        body=built.get("json"),
        headers={**sent, **headers},
        trace_id=trace_id,
    )


def model_of(operation: str, body: Any, package: str = _PACKAGE) -> Any:
    """The generated model of the body of a success; None for an operation whose success carries no JSON.

    Raises:
        AmbiguousResponseError: where the generated code cannot read what the schema allows.
    """
    import httpx

    entry = _entry(operation, package)
    if entry["response"] is None:
        return None
    client = import_module(package).Client(base_url="")
    answer = httpx.Response(entry["success"], json=body)
    built = _module(entry, package)._build_response(client=client, response=answer)
    if built.parse_error is not None:
        raise AmbiguousResponseError(f"{operation}: the generated model cannot hold the answer") from built.parse_error
    return built.parsed


@frozen
class _Body:
    """A mapping where the generated code expects a model."""

    members: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return dict(self.members)


def _protocol(package: str) -> Any:
    """Return the tables of a generated package."""
    return import_module(f"{package}.protocol")


def _entry(operation: str, package: str) -> dict[str, Any]:
    entry: dict[str, Any] = _protocol(package).OPERATIONS[operation]
    return entry


def _module(entry: Mapping[str, Any], package: str) -> Any:
    return import_module(f"{package}.{entry['module']}")


def _path_parameters(template: str, url: str) -> dict[str, str]:
    """What the generated code has filled into the path, to be checked and quoted like every other id."""
    names = re.findall(r"{([^}]+)}", template)
    pattern = "([^/]*)".join(re.escape(piece) for piece in re.split(r"{[^}]+}", template))
    match = re.fullmatch(pattern, url)
    return dict(zip(names, map(unquote, match.groups()), strict=True)) if match else {}
