"""The key set of a server and who may sign for it: which one key an envelope must be verified with.

A key that breaks a rule is no candidate, and the others stay. A key's `status` is never read: the window decides.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, TypeAlias

from attrs import frozen

from cycles._evidence.strict_json import StrictJsonError, read_strict

_RAW: Final = re.compile(r"[0-9a-f]{64}")
# 32 bytes in base64url without padding. The last character has two bits of padding, which must be zero: one key has one
# text.
_X: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_DID: Final = "did:cycles:"

# Ed25519: the field's prime, the order of the base point, and the y of all points of small order. One signature fits
# every message under such a key, and OpenSSL accepts it.
_PRIME: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_ORDER_8: Final = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)
_SMALL_ORDER: Final = {0, 1, _PRIME - 1} | {int.from_bytes(bytes.fromhex(y), "little") for y in _ORDER_8}


@frozen
class KeySetProblem:
    """Why no single key can be selected."""

    detail: str


@frozen
class Signer:
    """Who signed: the public key itself (`raw`), or the name of a key in the server's set (`kid`)."""

    raw: bytes | None = None
    kid: str | None = None


@frozen
class SelectedKey:
    """The one key of the set that fits, with its kid."""

    public_key: bytes
    kid: str


KeySet: TypeAlias = list[Any]


def read_signer(signer_did: str, server_id: str) -> Signer | str | None:
    """Return who signed; a string if the signer is not authorised for `server_id`; None if the form is unknown."""
    if _RAW.fullmatch(signer_did):
        return Signer(raw=bytes.fromhex(signer_did))
    if not signer_did.startswith(_DID):
        return None
    digest, _, kid = signer_did.removeprefix(_DID).partition("#")
    if not _RAW.fullmatch(digest) or not kid:
        return "signer_did has not the form did:cycles:<64 lower-case hex digits>#<kid>"
    if digest != sha256(server_id.encode()).hexdigest():
        return "signer_did is bound to another server_id"
    return Signer(kid=kid)


def read_keys(keys: Any) -> KeySet | KeySetProblem:
    """Return the entries of a key set, given as bytes, string or mapping. Nothing is dropped yet."""
    if isinstance(keys, bytes | bytearray | memoryview | str):
        try:
            keys = read_strict(keys if isinstance(keys, str) else bytes(keys))
        except StrictJsonError as error:
            return KeySetProblem(f"the key set cannot be read: {error}")
    if not isinstance(keys, Mapping):
        return KeySetProblem(f"the key set must be a JSON object, got {type(keys).__name__}")
    entries = keys.get("keys")
    if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
        return KeySetProblem("the key set has no array 'keys'")
    return list(entries)


def select_key(entries: KeySet, signer: Signer, issued_at_ms: int) -> SelectedKey | KeySetProblem:
    """Return the one key that fits the signer and was valid at `issued_at_ms`."""
    kids = Counter(entry["kid"] for entry in entries if isinstance(entry, Mapping) and _is_kid(entry.get("kid")))
    doubled = sorted(kid for kid, count in kids.items() if count > 1)
    if doubled:
        return KeySetProblem(f"the key set has the kid {doubled[0][:60]!r} twice")
    usable = [entry for entry in entries if isinstance(entry, Mapping) and _is_usable(entry)]
    fitting = [
        SelectedKey(public_key, entry["kid"])
        for entry, public_key in ((entry, _decode(entry["x"])) for entry in usable)
        if (entry["kid"] == signer.kid if signer.raw is None else public_key == signer.raw)
        and _covers(entry, issued_at_ms)
    ]
    if len(fitting) == 1:
        return fitting[0]
    found = f"{len(fitting)} keys fit" if fitting else "no key fits"
    return KeySetProblem(f"{found} the signer at issued_at_ms {issued_at_ms}")


def is_sound_key(public_key: bytes) -> bool:
    """Return whether 32 bytes are a canonical encoding of a point that is not of small order."""
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    return len(public_key) == 32 and y < _PRIME and y not in _SMALL_ORDER


def is_sound_signature(signature: bytes) -> bool:
    """Return whether the second half of 64 bytes is below the order of the group."""
    return len(signature) == 64 and int.from_bytes(signature[32:], "little") < _ORDER


def _is_kid(kid: object) -> bool:
    return isinstance(kid, str)


def _is_usable(entry: Mapping[str, Any]) -> bool:
    return (
        entry.get("kty") == "OKP"
        and entry.get("crv") == "Ed25519"
        and ("alg" not in entry or entry["alg"] == "EdDSA")
        and isinstance(entry.get("x"), str)
        and _X.fullmatch(entry["x"]) is not None
        and _is_kid(entry.get("kid"))
        and type(entry.get("cycles_nbf_ms")) is int
        and (entry.get("cycles_exp_ms") is None or type(entry["cycles_exp_ms"]) is int)
    )


def _decode(x: str) -> bytes:
    return base64.urlsafe_b64decode(x + "=")


def _covers(entry: Mapping[str, Any], issued_at_ms: int) -> bool:
    end = entry.get("cycles_exp_ms")
    return bool(entry["cycles_nbf_ms"] <= issued_at_ms and (end is None or issued_at_ms < end))
