"""Every envelope of `vectors.json` and `captures.json`, and every canonicalisation case, has its expected result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._evidence.canonical_json import LossyNumberError, canonical, read_exact
from cycles._evidence.keys import read_signer
from cycles._evidence.strict_json import StrictJsonError

HERE = Path(__file__).parent
FILES = {name: json.loads((HERE / f"{name}.json").read_text("utf-8")) for name in ("vectors", "captures")}
VECTORS = [(name, vector) for name, file in FILES.items() for vector in file["vectors"]]
NAMES = [f"{name}: {vector['name']}" for name, vector in VECTORS]


def test_no_vector_was_lost() -> None:
    assert [len(FILES[name]["vectors"]) for name in FILES] == [73, 6]
    assert len(FILES["vectors"]["canonicalization"]) == 22
    found = {vector["expect"].get("disposition") for _, vector in VECTORS} - {None}
    assert found == {disposition.value for disposition in cycles.EvidenceDisposition}


@pytest.mark.parametrize(("name", "vector"), VECTORS, ids=NAMES)
def test_vector(name: str, vector: dict[str, Any]) -> None:
    key_set = FILES[name]["key_sets"].get(vector["key_set"])
    keys = cycles.KEYS_UNAVAILABLE if vector["key_set"] == "UNAVAILABLE" else key_set
    options = vector.get("options", {})
    for document in documents(vector):
        for given in (keys, *([json.dumps(keys), json.dumps(keys).encode()] if isinstance(keys, dict) else [])):
            check(document, {"keys": given, **options}, vector["expect"])


def documents(vector: dict[str, Any]) -> list[Any]:
    """The ways in which the envelope of a vector can be passed."""
    if "envelope_json" in vector:
        return [vector["envelope_json"], vector["envelope_json"].encode()]
    envelope = vector["envelope"]
    spaced = json.dumps(envelope, indent=3, sort_keys=True)
    return [envelope, json.dumps(envelope), json.dumps(envelope, ensure_ascii=False).encode(), spaced]


def check(document: Any, options: dict[str, Any], expect: dict[str, Any]) -> None:
    if "rejected" in expect:
        with pytest.raises(cycles.EvidenceRejectedError) as caught:
            cycles.verify_evidence(document, **options)
        assert (caught.value.rule, caught.value.verdict) == (expect["rejected"], None)
        return
    verdict = cycles.verify_evidence(document, **options)
    found = {"disposition": verdict.disposition, "kid": verdict.kid, "signer_pin_matched": verdict.signer_pin_matched}
    assert {member: found[member] for member in expect} == expect, verdict.reason
    assert verdict.is_authentic == (expect["disposition"] == "authentic")
    assert verdict.reason


@pytest.mark.parametrize("case", FILES["vectors"]["canonicalization"], ids=lambda case: case["input_json"][:40])
def test_canonical_form(case: dict[str, Any]) -> None:
    if "canonical" in case:
        assert canonical(read_exact(case["input_json"])) == case["canonical"].encode()
        return
    with pytest.raises(StrictJsonError) as caught:
        read_exact(case["input_json"])
    assert isinstance(caught.value, LossyNumberError) == (case["rejected"] == "number")


@pytest.mark.parametrize("location", FILES["vectors"]["locations"], ids=lambda location: location["server_id"])
def test_a_signer_is_bound_to_the_exact_bytes_of_its_server(location: dict[str, str]) -> None:
    digest = location["server_id_sha256"]
    assert hashlib.sha256(location["server_id"].encode()).hexdigest() == digest
    assert getattr(read_signer(f"did:cycles:{digest}#k", location["server_id"]), "kid", None) == "k"
    assert isinstance(read_signer(f"did:cycles:{digest}#k", location["server_id"] + "x"), str)
