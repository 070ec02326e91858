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
    assert run(capsys, envelope, *options, "--signer", did())[0] == 1
    status, text = run(capsys, envelope, *options, "--evidence-id", "0" * 64)
    assert (status, json.loads(text)["rejected"]) == (2, "wrong_evidence_id")


def test_a_file_that_cannot_be_read_is_wrong_usage(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["no-such-file"], [files[0], "--keys", "no-such-file"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "no-such-file" in capsys.readouterr().err


def test_the_module_runs_as_a_program(files: tuple[str, str]) -> None:
    command = [sys.executable, "-W", "error", "-m", "cycles.evidence", "-", "--keys", files[1]]
    ran = subprocess.run(command, input=Path(files[0]).read_bytes(), capture_output=True)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, b"authentic"), ran.stderr


def test_a_report_is_what_a_command_line_needs() -> None:
    assert report(sealed(), keys=key_set())[0] == 0
    assert report(sealed(), keys=cycles.KEYS_UNAVAILABLE)[1]["disposition"] == "signer_resolution_failed"
    assert report(b"")[1]["rejected"] == "json"


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


def test_what_is_no_envelope_attests_nothing_and_is_rejected() -> None:
    for document in ({}, {**sealed(**reserve()), "trace_id": None}):
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
