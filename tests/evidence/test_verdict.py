"""Signatures, keys, trust and expectations: the dispositions and the order in which they are found."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import cycles
from cycles._evidence.keys import is_sound_key, is_sound_signature
from cycles.evidence import KeysUnavailable
from tests.evidence.kit import ISSUED, OTHER_SEED, SERVER, did, jwk, key_set, public_key, sealed

AUTHENTIC = "authentic"
BINDING_ONLY = "binding_only"
AUTHORITY = "signer_authority_failed"
RESOLUTION = "signer_resolution_failed"
INVALID = "signature_invalid"


def disposition(envelope: dict[str, Any], **options: Any) -> str:
    return cycles.verify_evidence(envelope, **options).disposition.value


def test_a_verdict_reports_what_it_found() -> None:
    verdict = cycles.verify_evidence(sealed(), keys=key_set(), expected_signer=public_key().hex())
    assert (verdict.disposition, verdict.kid, verdict.signer_did) == (AUTHENTIC, "k1", public_key().hex())
    assert (verdict.server_id, verdict.signer_pin_matched, verdict.is_authentic) == (SERVER, True, True)
    assert verdict.issued_at == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ISSUED)
    assert verdict.envelope.payload["decide"]["response"]["decision"] == "ALLOW"
    assert verdict.envelope.trace_id == "0af7651916cd43dd8448eb211c80319c"
    verdict.raise_for_disposition()
    assert "decision" not in repr(verdict)
    assert cycles.verify_evidence(sealed(issued_at_ms=2**53)).issued_at is None
    assert pickle.loads(pickle.dumps(verdict)) == copy.deepcopy(verdict) == verdict


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, bytes.decode, json.loads], ids=lambda kind: kind.__name__
)
def test_an_envelope_is_bytes_a_string_or_a_mapping(kind: Any) -> None:
    verdict = cycles.verify_evidence(kind(json.dumps(sealed()).encode()), keys=key_set())
    assert verdict.is_authentic


def test_a_verdict_has_no_truth_value() -> None:
    verdict = cycles.verify_evidence(sealed(), keys=key_set())
    with pytest.raises(TypeError, match="is_authentic"):
        bool(verdict)


def test_a_verdict_that_is_not_authentic_raises_with_itself() -> None:
    verdict = cycles.verify_evidence(sealed())
    with pytest.raises(cycles.EvidenceError, match="binding_only") as caught:
        verdict.raise_for_disposition()
    assert caught.value.verdict == verdict
    assert pickle.loads(pickle.dumps(caught.value)).verdict == verdict


def test_every_step_comes_before_the_next() -> None:
    """An envelope with every fault has the first finding; each fault that is repaired shows the next one."""
    other_did = did(server_id="https://other.example.com/v1")
    broken = {**sealed(signer_did=other_did), "evidence_id": "0" * 64}
    options: dict[str, Any] = {"trusted_server_ids": [], "keys": cycles.KEYS_UNAVAILABLE, "expected_signer": "x"}
    reasons = []

    def step(envelope: dict[str, Any]) -> str:
        verdict = cycles.verify_evidence(envelope, **options)
        reasons.append(verdict.reason)
        return verdict.disposition.value

    assert step(broken) == INVALID
    assert step(sealed(signer_did=other_did)) == AUTHORITY
    options["trusted_server_ids"] = [SERVER]
    assert step(sealed(signer_did=other_did)) == AUTHORITY
    assert step(sealed(signer_did="did:web:example.com")) == RESOLUTION
    wrong = {**sealed(signer_did=did()), "signature": sealed()["signature"]}
    assert step(wrong) == RESOLUTION
    options["keys"] = key_set(jwk(kid="other"))
    assert step(wrong) == AUTHORITY
    options["keys"] = key_set()
    assert step(wrong) == INVALID
    assert step(sealed(signer_did=did())) == AUTHORITY
    options["expected_signer"] = did()
    options["issued_between"] = (ISSUED + 1, None)
    assert step(sealed(signer_did=did())) == AUTHORITY
    options["issued_between"] = (ISSUED, ISSUED)
    assert step(sealed(signer_did=did())) == AUTHENTIC
    assert len(set(reasons)) == len(reasons)  # each step says something else


AT = f"the signer at issued_at_ms {ISSUED}"
UNSIGNED = {**sealed(signer_did=did()), "signature": "0" * 128}
NO_DID = "signer_did has not the form did:cycles:<64 lower-case hex digits>#<kid>"
NO_SET = "the key set of the server was not available"
NOT_EXPECTED = {"expected_signer": "x"}
REASONS: list[tuple[dict[str, Any], dict[str, Any], str, str, str | None]] = [
    ({**sealed(), "issued_at_ms": 5}, {}, INVALID, "the content has another evidence_id", None),
    (sealed(), {"trusted_server_ids": ["x"]}, AUTHORITY, "server_id is not one of the trusted servers", None),
    (sealed(signer_did="did:cycles:" + "a" * 63 + "#k"), {}, AUTHORITY, NO_DID, None),
    (sealed(signer_did="did:cycles:" + "a" * 64), {}, AUTHORITY, NO_DID, None),
    (sealed(signer_did=did(kid="")), {}, AUTHORITY, NO_DID, None),
    (sealed(signer_did=did(server_id="x")), {}, AUTHORITY, "signer_did is bound to another server_id", None),
    (sealed(signer_did="did:web:x"), {}, RESOLUTION, "signer_did has no known form", None),
    (
        sealed(signer_did=did()),
        {},
        RESOLUTION,
        "signer_did names a key of a key set, and no key set was passed",
        None,
    ),
    ({**sealed(), "signature": "0" * 128}, {}, INVALID, "the signature is not by the key in signer_did", None),
    (sealed(), {}, BINDING_ONLY, "the signature is valid; whose key it is was not checked", None),
    (sealed(), NOT_EXPECTED, AUTHORITY, "signer_did is not the expected signer", None),
    (sealed(), {"keys": key_set(), **NOT_EXPECTED}, AUTHORITY, "signer_did is not the expected signer", "k1"),
    (sealed(), {"issued_between": (None, 5)}, AUTHORITY, "issued_at_ms is outside of issued_between", None),
    (
        sealed(),
        {"keys": key_set(), "issued_between": (None, 5)},
        AUTHORITY,
        "issued_at_ms is outside of issued_between",
        "k1",
    ),
    (sealed(), {"keys": cycles.KEYS_UNAVAILABLE}, RESOLUTION, NO_SET, None),
    (sealed(), {"keys": KeysUnavailable("a proxy is down")}, RESOLUTION, f"{NO_SET}: a proxy is down", None),
    (sealed(), {"keys": b"\xff"}, RESOLUTION, "the key set cannot be read: the document is not UTF-8", None),
    (sealed(), {"keys": bytearray(b"[]")}, RESOLUTION, "the key set must be a JSON object, got list", None),
    (sealed(), {"keys": memoryview(b"5")}, RESOLUTION, "the key set must be a JSON object, got int", None),
    (sealed(), {"keys": {"keys": b"k"}}, RESOLUTION, "the key set has no array 'keys'", None),
    (sealed(), {"keys": {"keys": "k"}}, RESOLUTION, "the key set has no array 'keys'", None),
    (sealed(), {"keys": {"keys": []}}, AUTHORITY, f"no key fits {AT}", None),
    (sealed(), {"keys": key_set(jwk(cycles_exp_ms=0))}, AUTHORITY, f"no key fits {AT}", None),
    (sealed(), {"keys": key_set(jwk(kid="a"), jwk(kid="b"))}, AUTHORITY, f"2 keys fit {AT}", None),
    (
        sealed(),
        {"keys": key_set(*[{"kid": kid} for kid in "baba"], jwk())},
        AUTHORITY,
        "the key set has the kid 'a' twice",
        None,
    ),
    (
        sealed(),
        {"keys": key_set({"kid": "x" * 61}, {"kid": "x" * 61})},
        AUTHORITY,
        f"the key set has the kid {'x' * 60!r} twice",
        None,
    ),
    (UNSIGNED, {"keys": key_set()}, INVALID, "the signature is not by the key 'k1'", "k1"),
    (sealed(), {"keys": key_set()}, AUTHENTIC, "signed by the key 'k1', which was valid at that time", "k1"),
]


@pytest.mark.parametrize(
    ("envelope", "options", "found", "reason", "kid"),
    REASONS,
    ids=[f"{number} {each[3][:60]}" for number, each in enumerate(REASONS)],
)
def test_a_verdict_has_one_reason_and_the_key_that_was_selected(
    envelope: dict[str, Any], options: dict[str, Any], found: str, reason: str, kid: str | None
) -> None:
    verdict = cycles.verify_evidence(envelope, **options)
    assert (verdict.disposition.value, verdict.reason, verdict.kid) == (found, reason, kid)
    if found != AUTHENTIC:
        with pytest.raises(cycles.EvidenceError) as caught:
            verdict.raise_for_disposition()
        assert str(caught.value) == f"the evidence is not authentic ({found}): {reason}"


def test_the_mark_for_a_key_set_that_is_unavailable_shows_its_name() -> None:
    assert repr(cycles.KEYS_UNAVAILABLE) == "cycles.KEYS_UNAVAILABLE"


def test_content_and_signature_are_both_needed() -> None:
    envelope = sealed()
    changed = {**envelope, "issued_at_ms": ISSUED + 1}
    assert disposition(changed, keys=key_set()) == INVALID
    assert disposition({**changed, "evidence_id": sealed(issued_at_ms=ISSUED + 1)["evidence_id"]}) == INVALID
    assert disposition({**envelope, "signature": sealed(OTHER_SEED)["signature"]}) == INVALID


@pytest.mark.parametrize(
    ("signer", "expected"),
    [
        (did(server_id=SERVER + "/"), AUTHORITY),
        (did().removesuffix("#k1"), AUTHORITY),
        (did().removesuffix("k1"), AUTHORITY),
        (did().upper().replace("DID:CYCLES:", "did:cycles:"), AUTHORITY),
        ("did:cycles:", AUTHORITY),
        (did() + "\n", AUTHORITY),
        ("did:key:z6Mk", RESOLUTION),
        ("DID:CYCLES:x#k", RESOLUTION),
        ("A" * 64, RESOLUTION),
        ("a" * 63, RESOLUTION),
        ("a" * 64 + "\n", RESOLUTION),
        ("", RESOLUTION),
    ],
    ids=repr,
)
def test_a_signer_of_another_form_is_never_looked_up(signer: str, expected: str) -> None:
    assert disposition(sealed(signer_did=signer), keys=key_set()) == expected


@pytest.mark.parametrize(
    "keys",
    [
        cycles.KEYS_UNAVAILABLE,
        b"",
        b"not json",
        "[]",
        "{}",
        {},
        {"keys": {}},
        {"keys": None},
        {"keys": "k"},
        5,
        [jwk()],
        '{"keys":[],"keys":[]}',
    ],
    ids=repr,
)
def test_a_key_set_that_cannot_be_read_says_nothing_about_the_envelope(keys: Any) -> None:
    for signer in (did(), public_key().hex()):
        assert disposition(sealed(signer_did=signer), keys=keys) == RESOLUTION


WINDOWS = [
    ({"cycles_nbf_ms": ISSUED}, AUTHENTIC),
    ({"cycles_nbf_ms": ISSUED + 1}, AUTHORITY),
    ({"cycles_exp_ms": ISSUED}, AUTHORITY),
    ({"cycles_exp_ms": ISSUED + 1}, AUTHENTIC),
    ({"cycles_exp_ms": None}, AUTHENTIC),
    ({"status": "retired"}, AUTHENTIC),
    ({"status": 5, "unknown": {}}, AUTHENTIC),
    ({"alg": ...}, AUTHENTIC),
    ({"alg": None}, AUTHORITY),
    ({"alg": "ES256"}, AUTHORITY),
    ({"kty": "EC"}, AUTHORITY),
    ({"crv": "Ed448"}, AUTHORITY),
    ({"kid": ...}, AUTHORITY),
    ({"kid": 1}, AUTHORITY),
    ({"cycles_nbf_ms": ...}, AUTHORITY),
    ({"cycles_nbf_ms": False}, AUTHORITY),
    ({"cycles_nbf_ms": "0"}, AUTHORITY),
    ({"cycles_nbf_ms": 0.0}, AUTHORITY),
    ({"cycles_exp_ms": True}, AUTHORITY),
    ({"cycles_exp_ms": "9"}, AUTHORITY),
    ({"x": ...}, AUTHORITY),
    ({"x": jwk()["x"] + "="}, AUTHORITY),
    ({"x": jwk()["x"][:-1]}, AUTHORITY),
    ({"x": jwk()["x"] + "\n"}, AUTHORITY),
    ({"x": jwk()["x"][:-1] + chr(ord(jwk()["x"][-1]) + 1)}, AUTHORITY),  # the same 32 bytes in another text
]


@pytest.mark.parametrize(("members", "expected"), WINDOWS, ids=repr)
def test_a_key_counts_only_by_its_rules_and_its_window(members: dict[str, Any], expected: str) -> None:
    keys = key_set(jwk(**members), jwk(OTHER_SEED, kid="other"))
    assert disposition(sealed(), keys=keys) == expected
    assert disposition(sealed(signer_did=did()), keys=keys) == expected


def test_a_doubled_kid_fails_also_if_the_other_key_is_unreadable() -> None:
    for other in (jwk(OTHER_SEED), {"kid": "k1"}, {"kid": "k1", "kty": "RSA"}):
        for signer in (did(), public_key().hex()):
            assert disposition(sealed(signer_did=signer), keys=key_set(jwk(), other)) == AUTHORITY
    two_others = key_set(jwk(), {"kid": "x"}, {"kid": "x"})
    assert disposition(sealed(), keys=two_others) == AUTHORITY
    assert disposition(sealed(), keys=key_set(jwk(), {"kid": 1}, {"kid": 1}, None, 5, [])) == AUTHENTIC  # type: ignore[arg-type]


def test_keys_that_the_client_dropped_still_count() -> None:
    """`EvidenceKeys.keys` lacks what the client cannot read; the verifier reads the set as received."""
    keys = cycles.EvidenceKeys(
        keys=[cycles.EvidenceKey.read(jwk())], raw={"keys": [jwk(), {"kid": "k1", "kty": "new"}]}
    )
    assert disposition(sealed(), keys=keys) == AUTHORITY
    built = cycles.EvidenceKeys(keys=[cycles.EvidenceKey(**jwk())])
    assert disposition(sealed(), keys=built) == AUTHENTIC


def test_more_than_one_fitting_key_is_ambiguous() -> None:
    twice = key_set(jwk(kid="a"), jwk(kid="b"))
    assert disposition(sealed(), keys=twice) == AUTHORITY
    rotated = key_set(jwk(kid="a", cycles_exp_ms=ISSUED), jwk(kid="b", cycles_nbf_ms=ISSUED))
    assert cycles.verify_evidence(sealed(), keys=rotated).kid == "b"


SMALL = (
    [y + sign for y in ("00" * 31, "01" + "00" * 30) for sign in ("00", "80")]
    + ["ec" + "ff" * 30 + sign for sign in ("7f", "ff")]
    + [
        y[:-2] + sign
        for y in ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",)
        for sign in ("05", "85")
    ]
    + [
        y[:-2] + sign
        for y in ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",)
        for sign in ("7a", "fa")
    ]
)
NOT_CANONICAL = [f"{low:02x}" + "ff" * 30 + sign for low in (0xED, 0xEE, 0xFF) for sign in ("7f", "ff")]


@pytest.mark.parametrize("key", SMALL + NOT_CANONICAL)
def test_a_weak_key_signs_nothing(key: str) -> None:
    envelope = {**sealed(signer_did=key), "signature": "01" + "00" * 63}
    assert not is_sound_key(bytes.fromhex(key))
    assert disposition(envelope) == INVALID
    x = base64.urlsafe_b64encode(bytes.fromhex(key)).decode().rstrip("=")
    assert disposition(envelope, keys=key_set(jwk(x=x))) == INVALID


@pytest.mark.parametrize("y", [2, 2**255 - 21])
def test_a_key_beside_a_weak_one_is_no_weak_one(y: int) -> None:
    assert is_sound_key(y.to_bytes(32, "little"))
    assert not is_sound_key(y.to_bytes(33, "little"))


def test_a_signature_with_a_scalar_beyond_the_order_is_invalid() -> None:
    envelope = sealed()
    signature = bytes.fromhex(envelope["signature"])
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    malleable = signature[:32] + scalar.to_bytes(32, "little")
    assert is_sound_signature(signature)
    assert not is_sound_signature(malleable)
    last, first = ((order - less).to_bytes(32, "little") for less in (1, 0))
    assert [is_sound_signature(signature[:32] + each) for each in (last, first)] == [True, False]
    assert not is_sound_signature(signature[:63])
    assert disposition(envelope) == BINDING_ONLY
    assert disposition({**envelope, "signature": malleable.hex()}) == INVALID


def test_trust_and_pins_are_compared_as_strings() -> None:
    for trusted in ([], ["https://cycles.example.com/v1/"], ["https://CYCLES.example.com/v1"]):
        assert disposition(sealed(), keys=key_set(), trusted_server_ids=trusted) == AUTHORITY
    assert disposition(sealed(), keys=key_set(), trusted_server_ids=iter([SERVER])) == AUTHENTIC
    for pin in ("", public_key().hex().upper(), did()):
        verdict = cycles.verify_evidence(sealed(), keys=key_set(), expected_signer=pin)
        assert (verdict.disposition, verdict.signer_pin_matched) == (AUTHORITY, False)


@pytest.mark.parametrize("after", [1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 333, 513, 777, 999])
def test_a_datetime_is_the_millisecond_that_it_is_in(after: int) -> None:
    at = ISSUED + after
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
    late = moment + timedelta(microseconds=999)
    envelope = sealed(issued_at_ms=at)
    for window in ((moment, moment), (late, late), (moment.astimezone(timezone(timedelta(hours=5))), late)):
        assert disposition(envelope, keys=key_set(), issued_between=window) == AUTHENTIC
    assert disposition(envelope, issued_between=(late + timedelta(microseconds=1), None)) == AUTHORITY


def test_a_mapping_may_have_a_whole_number_as_a_float() -> None:
    assert disposition({**sealed(), "issued_at_ms": float(ISSUED)}, keys=key_set()) == AUTHENTIC


@pytest.mark.parametrize("kid", ["a#b", "#", "a#", "\u00e9", " ", "k" * 300])
def test_a_name_of_a_key_may_be_any_text(kid: str) -> None:
    envelope = sealed(signer_did=did(kid))
    assert disposition(envelope, keys=key_set(jwk(kid=kid), jwk(OTHER_SEED, kid="a"))) == AUTHENTIC
    assert disposition(envelope, keys=key_set(jwk(kid="another"))) == AUTHORITY


def test_issued_between_takes_datetimes_and_milliseconds_and_includes_both_ends() -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ISSUED)
    inside: list[Any] = [(ISSUED, ISSUED), (moment, moment), (None, moment), (moment, None), [None, None]]
    outside: list[Any] = [(ISSUED + 1, None), (None, ISSUED - 1), (moment + timedelta(milliseconds=1), None)]
    for window in inside:
        assert disposition(sealed(), keys=key_set(), issued_between=window) == AUTHENTIC
        assert disposition(sealed(), issued_between=window) == BINDING_ONLY
    for window in outside:
        assert disposition(sealed(), keys=key_set(), issued_between=window) == AUTHORITY
        assert disposition(sealed(), issued_between=window) == AUTHORITY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expected_signer", 5),
        ("expected_signer", b"x"),
        ("evidence_id", 5),
        ("trusted_server_ids", SERVER),
        ("trusted_server_ids", 5),
        ("issued_between", 5),
        ("issued_between", (1,)),
        ("issued_between", ("2026", None)),
        ("issued_between", (datetime(2026, 1, 1), None)),  # noqa: DTZ001 - that is the point
        ("issued_between", (True, None)),
    ],
    ids=repr,
)
def test_an_option_of_the_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=name):
        cycles.verify_evidence(sealed(), **{name: value})


def test_cryptography_without_ed25519_is_a_wrong_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = pytest.importorskip("cryptography.exceptions")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")

    class WithoutEd25519:
        @staticmethod
        def from_public_bytes(content: bytes) -> None:
            raise exceptions.UnsupportedAlgorithm(f"no key of {len(content)} bytes")

    monkeypatch.setattr(ed25519, "Ed25519PublicKey", WithoutEd25519)
    with pytest.raises(cycles.ConfigurationError, match="has no Ed25519; install another build"):
        cycles.verify_evidence(sealed(), keys=key_set())


class Unimportable:
    """A module whose import fails because another one is missing."""

    def __init__(self, missing: str | None) -> None:
        self.missing = missing

    def __getattr__(self, name: str) -> Any:
        raise ModuleNotFoundError(f"no module for {name}", name=self.missing)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("cryptography", cycles.ConfigurationError),
        ("cryptography.exceptions", cycles.ConfigurationError),
        ("_cffi_backend", ModuleNotFoundError),
        (None, ModuleNotFoundError),
    ],
)
def test_only_a_missing_package_cryptography_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str | None, expected: type[Exception]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", Unimportable(missing))
    with pytest.raises(expected):
        cycles.verify_evidence(sealed())


def test_without_cryptography_only_a_signature_cannot_be_verified() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import cycles, json\n"
        "envelope = json.load(sys.stdin)\n"
        "assert cycles.verify_evidence({**envelope, 'issued_at_ms': 1}).disposition == 'signature_invalid'\n"
        "try:\n    cycles.verify_evidence(envelope)\n"
        "except cycles.ConfigurationError as error:\n    print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(sealed()), capture_output=True, text=True, check=True
    ).stdout
    assert "pip install 'cycles-sdk[evidence]'" in told
