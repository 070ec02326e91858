"""``python -m cycles.evidence``: exit status and output, and whether an envelope attests a response."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.evidence import attests, main, report
from tests.evidence.kit import SERVER, did, jwk, key_set, public_key, reserve, sealed


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "envelope.json").write_text(json.dumps(sealed()))
    (tmp_path / "keys.json").write_text(json.dumps(key_set()))
    return str(tmp_path / "envelope.json"), str(tmp_path / "keys.json")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(list(arguments))
    return status, capsys.readouterr().out


def test_the_exit_status_is_the_result(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    envelope, keys = files
    assert run(capsys, envelope, "--keys", keys)[0] == 0
    status, text = run(capsys, envelope)
    assert (status, text.splitlines()[0]) == (1, "binding_only")
    assert SERVER in text
    (tmp_path / "none.json").write_text("{}")
    status, text = run(capsys, str(tmp_path / "none.json"))
    assert (status, text.splitlines()[0]) == (2, "rejected: schema_version")


def test_every_option_is_used(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    envelope, keys = files
    options = ["--keys", keys, "--json"]
    status, text = run(
        capsys, envelope, *options, "--server-id", "x", "--server-id", SERVER, "--signer", public_key().hex()
    )
    assert status == 0
    assert json.loads(text) == {
        "disposition": "authentic",
        "reason": "signed by the key 'k1', which was valid at that time",
        "kid": "k1",
        "signer_did": public_key().hex(),
        "signer_pin_matched": True,
        "server_id": SERVER,
        "issued_at_ms": sealed()["issued_at_ms"],
        "artifact_type": "decide",
        "evidence_id": sealed()["evidence_id"],
    }
    assert run(capsys, envelope, *options, "--server-id", "x")[0] == 1
    assert run(capsys, envelope, *options, "--server-id", SERVER, "--server-id", "x")[0] == 0
    assert run(capsys, envelope, *options, "--signer", did())[0] == 1
    status, text = run(capsys, envelope, *options, "--evidence-id", "0" * 64)
    assert (status, json.loads(text)["rejected"]) == (2, "wrong_evidence_id")


def test_a_file_that_cannot_be_read_is_wrong_usage(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["no-such-file"], [files[0], "--keys", "no-such-file"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "no-such-file" in capsys.readouterr().err


@pytest.mark.parametrize("with_keys", [True, False], ids=["keys", "none"])
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--signer", did()], "signer_authority_failed"),
        (["--signer", ""], "signer_authority_failed"),
        (["--server-id", "x"], "signer_authority_failed"),
        (["--evidence-id", "0" * 64], "rejected: wrong_evidence_id"),
        (["--evidence-id", ""], "rejected: wrong_evidence_id"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_is_expected_holds_with_and_without_keys(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], options: list[str], found: str, with_keys: bool
) -> None:
    envelope, keys = files
    status, text = run(capsys, envelope, *options, *(["--keys", keys] if with_keys else []))
    assert (status != 0, text.splitlines()[0]) == (True, found)


def test_a_value_that_is_zero_or_false_is_printed_too(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[0]).write_text(json.dumps(sealed(issued_at_ms=0)))
    lines = run(capsys, files[0], "--signer", did())[1].splitlines()
    assert "  issued_at_ms: 0" in lines
    assert "  signer_pin_matched: False" in lines
    assert not [line for line in lines if line.startswith("  kid")]


def test_without_cryptography_the_command_names_the_extra(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(SystemExit) as caught:
        main(list(files[:1]))
    assert caught.value.code == 2
    assert "needs the package cryptography" in capsys.readouterr().err


def test_the_module_runs_as_a_program(files: tuple[str, str]) -> None:
    command = [sys.executable, "-W", "error", "-m", "cycles.evidence", "-", "--keys", files[1]]
    ran = subprocess.run(command, input=Path(files[0]).read_bytes(), capture_output=True)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, b"authentic"), ran.stderr


def test_a_report_is_what_a_command_line_needs() -> None:
    assert report(sealed(), keys=key_set())[0] == 0
    assert report(sealed(), keys=cycles.KEYS_UNAVAILABLE)[1]["disposition"] == "signer_resolution_failed"
    assert report(b"")[1]["rejected"] == "json"


decided: dict[str, Any] = {"payload": {"decide": {"request": {}, "response": {"decision": "ALLOW"}}}}
RECEIVED: dict[str, Any] = {
    "decision": "ALLOW",
    "affected_scopes": ["tenant:acme"],
    "reservation_id": "r1",
    "remaining_ttl_ms": 59_000,
    "caps": None,
    "cycles_evidence": {"evidence_id": "0" * 64, "cycles_evidence_url": "https://cycles.example.com/v1/evidence/0"},
}


def test_an_envelope_attests_the_response_that_was_received() -> None:
    envelope = sealed(**reserve())
    verdict = cycles.verify_evidence(envelope, keys=key_set(jwk()))
    for response in (
        RECEIVED,
        json.dumps(RECEIVED),
        json.dumps(RECEIVED).encode(),
        cycles.ReservationCreateResponse.read(RECEIVED),
    ):
        assert verdict.attests(response)
        assert attests(envelope, response)
        assert cycles.EvidenceEnvelope.read(envelope).attests(response)
    changes: list[dict[str, Any]] = [
        {"decision": "DENY"},
        {"reservation_id": "r2"},
        {"extra": 1},
        {"affected_scopes": []},
    ]
    for change in changes:
        assert not verdict.attests({**RECEIVED, **change}), change
    for other in ({}, b"", b"[]", None, object(), {"decision": object()}):
        assert not verdict.attests(other)


def test_an_envelope_that_is_not_authentic_attests_its_response_too() -> None:
    verdict = cycles.verify_evidence({**sealed(**reserve()), "signature": "0" * 128}, keys=key_set())
    assert (verdict.is_authentic, verdict.attests(RECEIVED)) == (False, True)
    assert cycles.verify_evidence(sealed(**reserve())).attests(RECEIVED), "without keys"


@pytest.mark.parametrize("nulls", [{"a": None}, {"a": [{"b": None}]}, {"a": {"b": None}, "c": [None]}, {}], ids=str)
def test_nulls_at_any_depth_make_no_difference(nulls: dict[str, Any]) -> None:
    def envelope(details: dict[str, Any]) -> dict[str, Any]:
        error = {"error": "NOT_FOUND", "message": "m", "request_id": "r", "details": details}
        content = {"endpoint": "POST /v1/decide", "http_status": 404, "response": error}
        return sealed(artifact_type="error", payload={"error": content})

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(each) for name, each in value.items() if each is not None}
        return [without(each) for each in value] if isinstance(value, list) else value

    body = {"error": "NOT_FOUND", "message": "m", "request_id": "r"}
    for attested in (nulls, without(nulls)):
        for received in (nulls, without(nulls)):
            assert attests(envelope(attested), {**body, "details": received, "trace_id": None})
        assert not attests(envelope(attested), {**body, "details": {**nulls, "other": 1}})


def test_what_is_no_envelope_attests_nothing_and_is_rejected() -> None:
    for document in ({}, {**sealed(**reserve()), "trace_id": None}, sealed(**reserve(), extra=1), sealed(**decided)):
        with pytest.raises(cycles.EvidenceRejectedError):
            attests(document, RECEIVED)


def test_an_envelope_attests_settlements_and_errors() -> None:
    charged: dict[str, Any] = {"unit": "TOKENS", "amount": 5}
    body = {"status": "COMMITTED", "charged": charged}
    content: dict[str, Any] = {
        "reservation_id": "r",
        "request": {"idempotency_key": "k", "actual": charged},
        "response": body,
    }
    envelope = sealed(artifact_type="commit", payload={"commit": content})
    response = cycles.CommitResponse.read(body)
    settlement = cycles.Settlement(status="committed", actual=cycles.tokens(5), response=response)
    assert attests(envelope, settlement)
    assert not attests(envelope, cycles.Settlement(status="pending", actual=cycles.tokens(5)))
    error = {"error": "BUDGET_EXCEEDED", "message": "m", "request_id": "r", "details": {"scope": "tenant:acme"}}
    content = {"endpoint": "POST /v1/decide", "http_status": 409, "response": error}
    envelope = sealed(artifact_type="error", payload={"error": content})
    raised = cycles.BudgetExceededError("m", code="BUDGET_EXCEEDED", request_id="r", details={"scope": "tenant:acme"})
    assert attests(envelope, raised)
    assert not attests(envelope, cycles.BudgetExceededError("m", code="BUDGET_FROZEN", request_id="r"))
