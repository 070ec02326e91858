"""The result of verifying evidence: five dispositions that are never merged."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn

from attrs import field, frozen

from cycles._core.results import EvidenceEnvelope
from cycles._errors import EvidenceError
from cycles._evidence.bodies import attests
from cycles._version import public


class EvidenceDisposition(StrEnum):
    """What a verification found. Exactly one holds."""

    AUTHENTIC = "authentic"
    """The signature is valid, and by the one key of the server's set that was valid at that time."""
    BINDING_ONLY = "binding_only"
    """The signature is valid for the key that the envelope names. Whose key that is was not checked."""
    SIGNER_AUTHORITY_FAILED = "signer_authority_failed"
    """The key is not authorised for the server, or not expected by the caller."""
    SIGNER_RESOLUTION_FAILED = "signer_resolution_failed"
    """The key set was not available. This says nothing about the envelope."""
    SIGNATURE_INVALID = "signature_invalid"
    """The bytes do not fit their id or their signature."""


@frozen(kw_only=True)
class EvidenceVerdict:
    """The result of a verification.

    Attributes:
        disposition: One of the five dispositions.
        reason: Why, in one sentence.
        kid: The key of the set that was selected, or None.
        signer_did: The signer that the envelope names.
        signer_pin_matched: Whether `expected_signer` is equal to `signer_did`; None if none was passed.
        server_id: The server that the envelope names. ``authentic`` means: authentic for this server.
        issued_at: When the server issued it, by its own clock; None if the time is beyond the year 9999.
        envelope: The envelope. Trust it only if `is_authentic`.
    """

    disposition: EvidenceDisposition
    reason: str
    signer_did: str
    server_id: str
    issued_at: datetime | None
    envelope: EvidenceEnvelope = field(repr=False)
    kid: str | None = None
    signer_pin_matched: bool | None = None

    @property
    def is_authentic(self) -> bool:
        """True if the disposition is ``authentic``."""
        return self.disposition is EvidenceDisposition.AUTHENTIC

    def raise_for_disposition(self) -> None:
        """Raise if the envelope is not authentic.

        Raises:
            EvidenceError: with this verdict.
        """
        if not self.is_authentic:
            raise EvidenceError(
                f"the evidence is not authentic ({self.disposition.value}): {self.reason}", verdict=self
            )

    def attests(self, response: Any) -> bool:
        """Return whether the envelope attests this response; see `attests`. It does not say that it is authentic."""
        return attests(self.envelope, response)

    def __bool__(self) -> NoReturn:
        raise TypeError("an EvidenceVerdict has no truth value; use its is_authentic")


public(EvidenceDisposition, EvidenceVerdict)
