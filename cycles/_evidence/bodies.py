"""The bodies behind results, and whether an envelope attests one of them."""

from __future__ import annotations

from typing import Any, Final

from attrs import fields

from cycles._errors import ProtocolError
from cycles._evidence.canonical_json import canonical, copy_exact, read_exact
from cycles._evidence.envelope import check_structure, read_envelope
from cycles._evidence.strict_json import StrictJsonError

_NEVER_ATTESTED: Final = ("cycles_evidence", "remaining_ttl_ms")
_NOT_IN_BODIES: Final = ("raw", "request_id")


def as_received(value: Any) -> Any:
    """Return the body of a result, unchanged. A value that is no result is returned unchanged too.

    A result whose attributes a caller set has no body; it gets one from those that are not None.
    """
    if not hasattr(value, "raw"):
        return value
    if value.raw:
        return value.raw
    members = {name: getattr(value, name) for name in (each.name for each in fields(type(value)))}
    return {
        name: [as_received(item) for item in member] if isinstance(member, list) else member
        for name, member in members.items()
        if member is not None and name not in _NOT_IN_BODIES
    }


def attests(envelope: Any, response: Any) -> bool:
    """Return whether an envelope attests this response, as the client received it. It verifies no signature.

    The server attests a response without `cycles_evidence` and `remaining_ttl_ms` and without members that are null.

    Args:
        envelope: The envelope. Verify it as well.
        response: A result of the client, a settlement, a `ProtocolError`, or the body as bytes, string or mapping.

    Raises:
        EvidenceRejectedError: if the envelope is none.
    """
    members = read_envelope(as_received(envelope))
    check_structure(members)
    attested = members["payload"][members["artifact_type"]]["response"]
    try:
        received = _received(response)
    except StrictJsonError:
        return False
    if not isinstance(received, dict):
        return False
    received = {name: value for name, value in received.items() if name not in _NEVER_ATTESTED}
    return canonical(_without_nulls(received)) == canonical(_without_nulls(attested))


def _received(response: Any) -> Any:
    if isinstance(response, ProtocolError):
        named = {"error": response.code, "details": response.details or None}
        return copy_exact(
            {**named, **{name: getattr(response, name) for name in ("message", "request_id", "trace_id")}}
        )
    body = as_received(getattr(response, "response", response))  # a settlement holds the response of its commit
    if isinstance(body, bytes | bytearray | str):
        return read_exact(body if isinstance(body, str) else bytes(body))
    return copy_exact(body)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
