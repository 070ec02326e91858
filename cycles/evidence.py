"""Verify signed evidence of a Cycles server offline: `verify_evidence`, and ``python -m cycles.evidence``.

Three questions are kept apart. Is the envelope what its own id says (integrity)? Did the key that it names sign it
(signature)? Is that key the one that the server used at that time (authority)? Only an envelope that passes all three
is authentic. See `docs/evidence.md`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from cycles._core.results import EvidenceEnvelope, EvidenceKeys
from cycles._errors import ConfigurationError, EvidenceRejectedError, InvalidRequestError
from cycles._evidence.bodies import as_received, attests as attests
from cycles._evidence.checks import (
    KEYS_UNAVAILABLE as KEYS_UNAVAILABLE,
    KeysUnavailable as KeysUnavailable,
    Verification,
)
from cycles._evidence.envelope import check_structure, read_envelope, rejected
from cycles._evidence.verdict import (
    EvidenceDisposition as EvidenceDisposition,
    EvidenceVerdict as EvidenceVerdict,
)
from cycles._version import public

Envelope: TypeAlias = bytes | str | Mapping[str, Any] | EvidenceEnvelope
Moment: TypeAlias = datetime | int | None

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


Keys: TypeAlias = bytes | str | Mapping[str, Any] | EvidenceKeys | KeysUnavailable | None


def verify_evidence(
    envelope: Envelope,
    *,
    keys: Keys = None,
    expected_signer: str | None = None,
    trusted_server_ids: Iterable[str] | None = None,
    evidence_id: str | None = None,
    issued_between: tuple[Moment, Moment] | None = None,
    strict: bool = True,
) -> EvidenceVerdict:
    """Verify one envelope. Pure: it reads no clock and opens no socket.

    Args:
        envelope: The envelope as received: bytes or a string, or a mapping. In a mapping, fractions can no longer be
            tested for digits that were lost.
        keys: The key set of the server, as received. None verifies integrity and signature only.
            `KEYS_UNAVAILABLE` says that it could not be read.
        expected_signer: The `signer_did` that the envelope must have, compared as a string.
        trusted_server_ids: The servers whose envelopes are accepted. Without it, any server can vouch for its own.
        evidence_id: The id that came with the response.
        issued_between: The first and the last time of issue, as aware datetimes or milliseconds; None is open.
        strict: False accepts unknown members and payloads that do not match this version's schemas; `reason` says so.

    Raises:
        EvidenceRejectedError: if the document is no evidence envelope, or another one than `evidence_id`.
        ConfigurationError: if a signature has to be verified and the extra ``evidence`` is not installed.
        InvalidRequestError: if an option has the wrong type.
    """
    _check_options(expected_signer, trusted_server_ids, evidence_id)
    window = _window(issued_between)
    members = read_envelope(as_received(envelope))
    skipped = check_structure(members, strict=strict)
    if evidence_id is not None and members["evidence_id"] != evidence_id:
        raise rejected("wrong_evidence_id", f"its id is not {evidence_id[:64]!r}")
    trusted = None if trusted_server_ids is None else set(trusted_server_ids)
    found = Verification(members, as_received(keys), expected_signer, trusted, window).run()
    reason = "; not checked: ".join([found.reason, *skipped])
    return EvidenceVerdict(
        disposition=found.disposition,
        reason=reason,
        kid=found.kid,
        signer_did=members["signer_did"],
        signer_pin_matched=None if expected_signer is None else expected_signer == members["signer_did"],
        server_id=members["server_id"],
        issued_at=_moment(members["issued_at_ms"]),
        envelope=EvidenceEnvelope.read(members, trace_id=members.get("trace_id")),
    )


public(verify_evidence)


def _check_options(expected_signer: object, trusted_server_ids: object, evidence_id: object) -> None:
    for name, value in (("expected_signer", expected_signer), ("evidence_id", evidence_id)):
        if value is not None and not isinstance(value, str):
            raise InvalidRequestError(f"{name} must be a string, got {value!r:.80}")
    if trusted_server_ids is not None and (
        isinstance(trusted_server_ids, str | bytes) or not isinstance(trusted_server_ids, Iterable)
    ):
        raise InvalidRequestError(f"trusted_server_ids must be a list of strings, got {trusted_server_ids!r:.80}")


def _window(issued_between: Any) -> tuple[int | None, int | None]:
    if issued_between is None:
        return None, None
    if not isinstance(issued_between, tuple | list) or len(issued_between) != 2:
        raise InvalidRequestError(f"issued_between must be a pair of times, got {issued_between!r:.80}")
    first, last = (_milliseconds(moment) for moment in issued_between)
    return first, last


def _milliseconds(moment: Any) -> int | None:
    if moment is None or type(moment) is int:
        return moment
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    raise InvalidRequestError(f"issued_between must have aware datetimes or milliseconds, got {moment!r:.80}")


def _moment(issued_at_ms: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(milliseconds=issued_at_ms)
    except OverflowError:
        return None


def report(envelope: Envelope, **options: Any) -> tuple[int, dict[str, Any]]:
    """Verify an envelope for a command line: return the exit status and the result as a JSON object.

    The status is 0 for ``authentic``, 1 for any other disposition, 2 if the document is rejected. The options are
    those of `verify_evidence`.
    """
    try:
        return as_report(verify_evidence(envelope, **options))
    except EvidenceRejectedError as error:
        return as_rejection(error)


def as_report(verdict: EvidenceVerdict) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the JSON object of a verdict."""
    read = verdict.envelope
    return int(not verdict.is_authentic), {
        "disposition": verdict.disposition.value,
        "reason": verdict.reason,
        "kid": verdict.kid,
        "signer_did": verdict.signer_did,
        "signer_pin_matched": verdict.signer_pin_matched,
        "server_id": verdict.server_id,
        "issued_at_ms": read.issued_at_ms,
        "artifact_type": read.artifact_type,
        "evidence_id": read.evidence_id,
    }


def as_rejection(error: EvidenceRejectedError) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the JSON object of a document that is no envelope."""
    return 2, {"rejected": error.rule, "reason": str(error)}


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m cycles.evidence`` and return its exit status."""
    import argparse  # for the command only

    parser = argparse.ArgumentParser(
        prog="python -m cycles.evidence",
        description="Verify an evidence envelope offline. The exit status is 0 if it is authentic, 1 for any other "
        "disposition, 2 if the file is no evidence envelope.",
    )
    parser.add_argument("file", metavar="FILE", help="the envelope as received; - reads standard input")
    parser.add_argument("--keys", metavar="FILE", help="the key set of the server, as received")
    parser.add_argument("--server-id", metavar="ID", action="append", help="a server to trust; may be repeated")
    parser.add_argument("--signer", metavar="DID", help="the signer_did that the envelope must have")
    parser.add_argument("--evidence-id", metavar="ID", help="the id that came with the response")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    given = parser.parse_args(arguments)
    try:
        envelope, keys = _read(given.file), None if given.keys is None else _read(given.keys)
        status, result = report(
            envelope,
            keys=keys,
            expected_signer=given.signer,
            trusted_server_ids=given.server_id,
            evidence_id=given.evidence_id,
        )
    except (OSError, ConfigurationError) as error:
        parser.error(str(error))
    if given.json:
        print(json.dumps(result))
    else:
        print(result.get("disposition") or f"rejected: {result['rejected']}")
        for name, value in result.items():
            if value is not None and name not in ("disposition", "rejected"):
                print(f"  {name}: {value}")
    return status


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:  # noqa: PTH123 - this module is free of pathlib
        return file.read()


if __name__ == "__main__":
    from cycles.evidence import main as run  # the classes of the imported module, not a second copy of them

    raise SystemExit(run())
