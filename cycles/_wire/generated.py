"""The generated functions by operation id: turn arguments into a call, and the body of a success into a model.

Only building and reading use the generated code. The request is sent over the connections of this client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, Final
from urllib.parse import unquote

from attrs import evolve, frozen

from cycles._core.messages.requests import Call, CallOptions
from cycles._core.values.headers import merged_headers
from cycles._errors import AmbiguousResponseError, InvalidRequestError

_PACKAGE: Final = "cycles_client"


def find(operation: str | ModuleType, package: str = _PACKAGE) -> str:
    """Return the id of an operation that is given by its id or by its generated module.

    Raises:
        InvalidRequestError: There is no such operation. The message names similar ones.
    """
    operations = _operations(package)
    if isinstance(operation, ModuleType):
        module = operation.__name__.removeprefix(f"{package}.")
        for name, entry in operations.items():
            if entry["module"] == module:
                return str(name)
    elif operation in operations:
        return operation
    shown = operation.__name__ if isinstance(operation, ModuleType) else str(operation)
    # A list of all operations is too long to find a typing error in.
    near = get_close_matches(shown, operations, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(operations)}"
    raise InvalidRequestError(f"operation: the protocol has no {shown!r:.80}; {hint}")


def is_read(operation: str, package: str = _PACKAGE) -> bool:
    """Return whether the operation changes nothing, so that it can always be retried."""
    return _operations(package)[operation]["method"] in ("GET", "HEAD", "OPTIONS")


def call_of(
    operation: str,
    arguments: Mapping[str, Any],
    headers: Mapping[str, str],
    options: CallOptions,
    package: str = _PACKAGE,
) -> Call:
    """Return the call that the generated code makes of its arguments. A body may be a model or a mapping.

    Raises:
        InvalidRequestError: The generated code cannot make a request of them.
    """
    if not isinstance(headers, Mapping):
        raise InvalidRequestError(f"extra_headers must be a mapping of names to values, got {type(headers).__name__}")
    entry = _operations(package)[operation]
    given = dict(arguments)
    # The generated code only calls `to_dict`, so a mapping needs no model.
    if isinstance(given.get("body"), Mapping):
        given["body"] = _Body(given["body"])
    try:
        built = _module(entry, package)._get_kwargs(**given)
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidRequestError(f"{operation}: {str(error).removeprefix('_get_kwargs() ')}") from error
    # The client sends the content type itself, once.
    sent = {name: str(value) for name, value in built.get("headers", {}).items() if name != "Content-Type"}
    return Call(
        operation,
        _path_parameters(entry["path"], built["url"]),
        query=built.get("params", {}),
        body=built.get("json"),
        options=evolve(options, headers=merged_headers(options.headers, {**sent, **headers})),
    )


def model_of(operation: str, body: Any, package: str = _PACKAGE) -> Any:
    """Return the generated model of the body of a success, or None if the operation returns no JSON.

    Raises:
        AmbiguousResponseError: The generated code cannot read the body, although the schema allows it.
    """
    import httpx

    entry = _operations(package)[operation]
    if entry["response"] is None:
        return None
    # It sends nothing: the generated code reads the base URL of a client when it makes a response.
    client = import_module(package).Client(base_url="")
    response = httpx.Response(entry["success"], json=body)
    built = _module(entry, package)._build_response(client=client, response=response)
    if built.parse_error is not None:
        raise AmbiguousResponseError(
            f"{operation}: the generated model cannot read the response"
        ) from built.parse_error
    return built.parsed


@frozen
class _Body:
    """A mapping that the generated code accepts as a model."""

    members: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return dict(self.members)


def _operations(package: str) -> dict[str, dict[str, Any]]:
    """Return the table of operations of a generated package."""
    found: dict[str, dict[str, Any]] = import_module(f"{package}.protocol").OPERATIONS
    return found


def _module(entry: Mapping[str, Any], package: str) -> Any:
    return import_module(f"{package}.{entry['module']}")


def _path_parameters(template: str, url: str) -> dict[str, str]:
    """Return the path parameters that the generated code has inserted, to be checked and quoted like all ids."""
    # The generated code has quoted them already; they are unquoted to be checked like ids of other calls.
    names = re.findall(r"{([^}]+)}", template)
    pattern = "([^/]*)".join(re.escape(piece) for piece in re.split(r"{[^}]+}", template))
    match = re.fullmatch(pattern, url)
    return dict(zip(names, map(unquote, match.groups()), strict=True)) if match else {}
