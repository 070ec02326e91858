"""An envelope that is altered at any position is never authentic, and numbers and strings have one canonical form."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

import cycles
from cycles._evidence.canonical_json import canonical, copy_exact, number_text, read_exact
from cycles._evidence.strict_json import StrictJsonError
from tests.evidence.kit import REQUEST, did, key_set, reserve, sealed
from tests.support.short import fewer, some

ENVELOPES = [
    sealed(),
    sealed(signer_did=did()),
    sealed(**reserve({"metadata": {"share": 0.5, "note": "Grüße ✓", "many": [1, True, None]}}, expires_at_ms=5)),
]
DOCUMENTS = [canonical(envelope) for envelope in ENVELOPES]

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=10,
)


def result(document: bytes) -> str:
    """The disposition, or the rule that rejects the document."""
    try:
        return cycles.verify_evidence(document, keys=key_set()).disposition.value
    except cycles.EvidenceRejectedError as error:
        return error.rule


@pytest.mark.parametrize("document", DOCUMENTS, ids=["raw", "did", "reserve"])
def test_a_changed_byte_at_any_position_is_noticed(document: bytes) -> None:
    assert result(document) == "authentic"
    seen = set()
    for place in some(range(len(document))):
        for bit in (0, 5, 7):
            changed = bytearray(document)
            changed[place] ^= 1 << bit
            seen.add(result(bytes(changed)))
        seen.add(result(document[:place] + document[place + 1 :]))
    assert "authentic" not in seen
    assert "binding_only" not in seen
    assert {"signature_invalid", "json", "payload", "signature", "evidence_id"} <= seen


@given(st.sampled_from(DOCUMENTS), st.data())
def test_any_edit_of_the_bytes_is_noticed(document: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(document)))
    end = data.draw(st.integers(start, min(start + 4, len(document))))
    changed = document[:start] + data.draw(st.binary(max_size=4)) + document[end:]
    try:
        same = canonical(read_exact(changed)) == document
    except StrictJsonError:
        same = False
    is_accepted = result(changed) in ("authentic", "binding_only")
    assert not (is_accepted and not same)  # a blank between two members changes nothing


@given(JSON)
def test_what_is_signed_verifies_in_any_notation(metadata: Any) -> None:
    try:
        envelope = sealed(
            payload={
                "decide": {
                    "request": {**REQUEST, "metadata": {"free": copy_exact(metadata)}},
                    "response": {"decision": "ALLOW"},
                }
            }
        )
    except StrictJsonError:
        return  # half of a surrogate pair
    for document in (json.dumps(envelope), json.dumps(envelope, indent=1, ensure_ascii=False, sort_keys=True)):
        assert cycles.verify_evidence(document, keys=key_set()).is_authentic


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e21)
@example(1e-7)
@example(-0.0)
@example(5e-324)
def test_a_number_is_the_same_double_in_its_canonical_form(number: float) -> None:
    text = number_text(number)
    assert float(text) == number
    assert text == number_text(float(text))
    assert len(text.replace("-", "").lstrip("0.")) <= 25
    assert float(json.loads(text)) == number


# By "Number::toString" of ECMA-262, to which RFC 8785 refers: no exponent from 1e-6 until below 1e21.
TEXTS = [
    (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-1.5, "-1.5"), (100.0, "100"), (12.5, "12.5"), (0.1, "0.1"), (0.05, "0.05"),
    (1e-6, "0.000001"), (1.25e-6, "0.00000125"), (1e-7, "1e-7"), (1.5e-7, "1.5e-7"), (-2e-9, "-2e-9"),
    (123456789.125, "123456789.125"), (1e20, "100000000000000000000"), (1.25e20, "125000000000000000000"),
    (-9.5e20, "-950000000000000000000"), (1e21, "1e+21"), (1.25e21, "1.25e+21"), (-1e23, "-1e+23"),
    (5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308"),
    (2**53, "9007199254740992"), (2**53 - 1, "9007199254740991"), (2**63, "9223372036854776000"), (-7, "-7"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "text"), TEXTS)
def test_a_number_is_written_as_ecmascript_writes_it(number: float, text: str) -> None:
    assert number_text(number) == text


@given(st.integers(-(10**25), 10**25))
def test_an_integer_is_accepted_exactly_if_its_canonical_form_is_the_same_number(number: int) -> None:
    same = Decimal(number_text(number)) == number
    if same:
        assert read_exact(str(number)) == copy_exact(number) == number
        return
    with pytest.raises(StrictJsonError):
        read_exact(str(number))
    with pytest.raises(StrictJsonError):
        copy_exact(number)


@given(st.dictionaries(st.text(), st.integers(0, 9)))
def test_members_are_sorted_by_utf_16_units(members: dict[str, int]) -> None:
    try:
        text = canonical(copy_exact(members)).decode()
    except StrictJsonError:
        return
    names = [name.encode("utf-16-be") for name in json.loads(text)]
    assert names == sorted(names)
    assert json.loads(text) == members


@settings(max_examples=fewer(300))
@given(st.binary(max_size=40) | st.text(max_size=40))
def test_arbitrary_documents_are_rejected_and_never_crash(document: bytes | str) -> None:
    with pytest.raises(cycles.EvidenceRejectedError):
        cycles.verify_evidence(document)


@given(JSON)
def test_an_arbitrary_key_set_never_crashes(keys: Any) -> None:
    verdict = cycles.verify_evidence(ENVELOPES[0], keys={"keys": keys} if not isinstance(keys, dict) else keys)
    assert verdict.disposition.value in ("signer_resolution_failed", "signer_authority_failed")


def test_numbers_that_are_no_doubles_are_lossy_or_no_json() -> None:
    for literal, rule in (
        ("1e400", "number"),
        ("1e-400", "number"),
        ("1e99999999999999999999", "number"),
        ("9" * 5000, "number"),
        ("0.1000000000000000055511151231257827", "number"),
        ("NaN", "json"),
        ("-Infinity", "json"),
        ("01", "json"),
        ("1.", "json"),
        ("0x1", "json"),
    ):
        with pytest.raises(cycles.EvidenceRejectedError) as caught:
            cycles.verify_evidence(f'{{"a": {literal}}}')
        assert caught.value.rule == rule, literal
    for value in (math.nan, math.inf):
        with pytest.raises(cycles.EvidenceRejectedError) as caught:
            cycles.verify_evidence({"a": value})
        assert caught.value.rule == "json"
