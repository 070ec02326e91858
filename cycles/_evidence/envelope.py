"""Read an evidence envelope and check its structure, before any hash, key or signature is looked at.

Every rule that a document can break has a name, the `rule` of `EvidenceRejectedError`. The order of the checks is
fixed, so that a document with several faults always fails with the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from cycles._errors import EvidenceRejectedError
from cycles._evidence.canonical_json import LossyNumberError, canonical, copy_exact, read_exact
from cycles._evidence.payload import ARTIFACTS, payload_problem
from cycles._evidence.strict_json import StrictJsonError

SCHEMA_VERSION: Final = "cycles-evidence/v0.1"
_INT64: Final = 2**63
_HEX32, _HEX64, _HEX128 = (re.compile(f"[0-9a-f]{{{length}}}") for length in (32, 64, 128))


def read_envelope(document: Any) -> dict[str, Any]:
    """Return the members of an envelope, given as bytes, string or mapping.

    Raises:
        EvidenceRejectedError: with the rule ``json`` or ``number``.
    """
    try:
        if isinstance(document, bytes | bytearray | memoryview | str):
            value = read_exact(document if isinstance(document, str) else bytes(document))
        elif isinstance(document, Mapping):
            value = copy_exact(document)
        else:
            raise StrictJsonError(f"it must be bytes, a string or a mapping, got {type(document).__name__}")
    except LossyNumberError as error:
        raise rejected("number", str(error)) from None
    except StrictJsonError as error:
        raise rejected("json", str(error)) from None
    if not isinstance(value, dict):
        raise rejected("json", "the document is no JSON object")
    return value


def check_structure(envelope: Mapping[str, Any], *, strict: bool = True) -> list[str]:
    """Check the form of every member.

    Args:
        envelope: The members, as `read_envelope` returned them.
        strict: False accepts unknown members and payloads that do not match the schemas of this version.

    Returns:
        What `strict=False` let pass.

    Raises:
        EvidenceRejectedError: with the rule of the first member that is wrong.
    """
    for name, check, wanted in _FORMS:
        if name == "trace_id" and name not in envelope:
            continue
        if not check(envelope.get(name)):
            raise rejected(name, f"{name} {wanted}")
    skipped: list[str] = []
    unknown = sorted(set(envelope) - {name for name, *_ in _FORMS} - {"payload"})
    if unknown:
        _fail("unknown_member", f"{unknown[0][:60]} is no member of an envelope", skipped, strict)
    artifact, payload = envelope["artifact_type"], envelope.get("payload")
    if not isinstance(payload, dict) or list(payload) != [artifact]:
        raise rejected("payload", f"payload must have exactly one member, named {artifact}")
    problem = payload_problem(artifact, payload[artifact])
    if problem is not None:
        _fail("payload_schema", f"payload.{problem}", skipped, strict)
    return skipped


def content_id(envelope: Mapping[str, Any]) -> str:
    """Return the id that the content of an envelope has: a SHA-256 with both sealing members empty."""
    return sha256(_canonical({**envelope, "evidence_id": "", "signature": ""})).hexdigest()


def signed_bytes(envelope: Mapping[str, Any]) -> bytes:
    """Return the bytes that the signature of an envelope covers."""
    return _canonical({**envelope, "signature": ""})


def rejected(rule: str, detail: str) -> EvidenceRejectedError:
    """Return the error for a document that is no evidence envelope."""
    return EvidenceRejectedError(f"the document is not an evidence envelope: {detail} (rule {rule})", rule=rule)


def _canonical(envelope: Mapping[str, Any]) -> bytes:
    try:
        return canonical(envelope)
    except StrictJsonError as error:
        raise rejected("json", str(error)) from None


def _fail(rule: str, detail: str, skipped: list[str], strict: bool) -> None:
    if strict:
        raise rejected(rule, detail)
    skipped.append(f"{rule}: {detail}")


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value < _INT64


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_FORMS: Final[tuple[tuple[str, Callable[[object], bool], str], ...]] = (
    ("schema_version", lambda value: value == SCHEMA_VERSION, f"must be {SCHEMA_VERSION}"),
    ("artifact_type", lambda value: value in ARTIFACTS, f"must be one of {', '.join(ARTIFACTS)}"),
    ("server_id", _is_text, "must be a string"),
    ("signer_did", _is_text, "must be a string"),
    ("issued_at_ms", _is_time, "must be an integer of at most 64 bits, 0 or more"),
    ("trace_id", _matches(_HEX32), "must be 32 lower-case hex digits, or left out"),
    ("evidence_id", _matches(_HEX64), "must be 64 lower-case hex digits"),
    ("signature", _matches(_HEX128), "must be 128 lower-case hex digits"),
)
