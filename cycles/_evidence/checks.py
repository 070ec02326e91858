"""The checks of evidence after its structure: content, trust, signer, key, signature, expectations, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from cycles._errors import ConfigurationError
from cycles._evidence.envelope import content_id, signed_bytes
from cycles._evidence.keys import (
    KeySetProblem,
    SelectedKey,
    Signer,
    is_sound_key,
    is_sound_signature,
    read_keys,
    read_signer,
    select_key,
)
from cycles._evidence.verdict import EvidenceDisposition
from cycles._version import install_extra


class KeysUnavailable:
    """The type of `KEYS_UNAVAILABLE`.

    Args:
        detail: Why the key set is not available; part of the verdict's `reason`.
    """

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail

    def __repr__(self) -> str:
        return "cycles.KEYS_UNAVAILABLE"


KEYS_UNAVAILABLE: Final = KeysUnavailable()
"""Pass it as `keys` if the key set was looked up and could not be read."""


@frozen
class Finding:
    """A disposition with its reason and the key that was selected."""

    disposition: EvidenceDisposition
    reason: str
    kid: str | None = None


@frozen
class Verification:
    """The checks after the structure, in their order. No step falls back to a weaker one."""

    members: Mapping[str, Any]
    keys: Any
    expected_signer: str | None
    trusted: set[str] | None
    window: tuple[int | None, int | None]

    def run(self) -> Finding:
        """Return what was found.

        Raises:
            ConfigurationError: if the package cryptography is missing.
        """
        members = self.members
        if content_id(members) != members["evidence_id"]:
            return Finding(EvidenceDisposition.SIGNATURE_INVALID, "the content has another evidence_id")
        if self.trusted is not None and members["server_id"] not in self.trusted:
            return _unauthorised("server_id is not one of the trusted servers")
        signer = read_signer(members["signer_did"], members["server_id"])
        if isinstance(signer, str):
            return _unauthorised(signer)
        if signer is None:
            return _unresolved("signer_did has no known form")
        return self._without_keys(signer) if self.keys is None else self._with_keys(signer)

    def _without_keys(self, signer: Signer) -> Finding:
        if signer.raw is None:
            return _unresolved("signer_did names a key of a key set, and no key set was passed")
        if not self._is_signed_by(signer.raw):
            return Finding(EvidenceDisposition.SIGNATURE_INVALID, "the signature is not by the key in signer_did")
        return self._not_expected(None) or Finding(
            EvidenceDisposition.BINDING_ONLY, "the signature is valid; whose key it is was not checked"
        )

    def _with_keys(self, signer: Signer) -> Finding:
        if isinstance(self.keys, KeysUnavailable):
            why = f": {self.keys.detail}" if self.keys.detail else ""
            return _unresolved(f"the key set of the server was not available{why}")
        entries = read_keys(self.keys)
        if isinstance(entries, KeySetProblem):
            return _unresolved(entries.detail)
        key = select_key(entries, signer, self.members["issued_at_ms"])
        if isinstance(key, KeySetProblem):
            return _unauthorised(key.detail)
        if not self._is_signed_by(key.public_key):
            detail = f"the signature is not by the key {key.kid!r}"
            return Finding(EvidenceDisposition.SIGNATURE_INVALID, detail, key.kid)
        return self._not_expected(key) or Finding(
            EvidenceDisposition.AUTHENTIC, f"signed by the key {key.kid!r}, which was valid at that time", key.kid
        )

    def _is_signed_by(self, public_key: bytes) -> bool:
        return is_signed(public_key, bytes.fromhex(self.members["signature"]), signed_bytes(self.members))

    def _not_expected(self, key: SelectedKey | None) -> Finding | None:
        kid = key.kid if key is not None else None
        if self.expected_signer is not None and self.expected_signer != self.members["signer_did"]:
            return _unauthorised("signer_did is not the expected signer", kid)
        first, last = self.window
        issued_at_ms = self.members["issued_at_ms"]
        if (first is not None and issued_at_ms < first) or (last is not None and issued_at_ms > last):
            return _unauthorised("issued_at_ms is outside of issued_between", kid)
        return None


def _unauthorised(reason: str, kid: str | None = None) -> Finding:
    return Finding(EvidenceDisposition.SIGNER_AUTHORITY_FAILED, reason, kid)


def _unresolved(reason: str) -> Finding:
    return Finding(EvidenceDisposition.SIGNER_RESOLUTION_FAILED, reason)


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether an Ed25519 signature is valid.

    Raises:
        ConfigurationError: if the package cryptography is missing.
    """
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise ConfigurationError(
            f"verifying a signature needs the package cryptography: {install_extra('evidence')}"
        ) from error
    if not is_sound_key(public_key) or not is_sound_signature(signature):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    except UnsupportedAlgorithm as error:
        raise ConfigurationError("the installed package cryptography has no Ed25519; install another build") from error
    return True
