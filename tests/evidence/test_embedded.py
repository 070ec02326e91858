"""The embedded server signs its decisions if it has a key, and the verifier accepts what it signed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings, strategies as st

import cycles
from cycles.embedded.__main__ import main as embedded_main
from tests.embedded.process import KEY, embedded_process
from tests.evidence.kit import SEED, public_key
from tests.support.short import fewer

ACTION = ("llm.completion", "gpt-4o")
BUDGETS: dict[str, Any] = {
    "tenant:acme": [cycles.tokens(1000), cycles.usd(10)],
    "tenant:acme/agent:capped": cycles.tokens(100),
}


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer(budgets=BUDGETS, evidence_key=SEED) as server:
        server.ledger.set_budget("tenant:acme/agent:capped", cycles.tokens(100), caps={"max_tokens": 5})
        yield server


@pytest.fixture
def client(server: cycles.EmbeddedServer) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme") as client:
        yield client


def test_every_kind_of_decision_is_signed_and_verifies(client: cycles.Cycles) -> None:
    results: list[tuple[str, Any, Any]] = []
    decision = client.decide(cycles.tokens(1), action=ACTION)
    results.append(("decide", decision.cycles_evidence, decision))
    denied = client.decide(cycles.tokens(5000), action=ACTION)
    results.append(("decide", denied.cycles_evidence, denied))
    for estimate in (1, 5000):
        preview = client.preview(cycles.tokens(estimate), action=ACTION)
        results.append(("reserve", preview.cycles_evidence, preview))
    capped = client.preview(cycles.tokens(1), action=ACTION, subject={"agent": "capped"})
    assert capped.decision == "ALLOW_WITH_CAPS"
    results.append(("reserve", capped.cycles_evidence, capped))
    with client.reserve(cycles.tokens(10), action=ACTION, metadata={"é": [1.5, None, "x"]}) as guard:
        settlement = guard.commit(cycles.tokens(7), metrics=cycles.Metrics(tokens_input=3))
    results.append(("commit", settlement.evidence, settlement))
    with pytest.raises(cycles.BudgetExceededError) as caught, client.reserve(cycles.tokens(5000), action=ACTION):
        pass
    results.append(("error", caught.value.evidence, caught.value))
    for artifact, reference, response in results:
        assert reference is not None, artifact
        verdict = client.evidence_verdict(reference)
        assert verdict.is_authentic, verdict.reason
        assert verdict.envelope.artifact_type == artifact
        assert verdict.attests(response)
        assert verdict.kid == public_key().hex()[:16]


def test_an_error_with_the_lowest_status_is_signed_as_an_error(server: cycles.EmbeddedServer) -> None:
    http = httpx.Client(transport=server.transport(), base_url="http://x", headers={"X-Cycles-API-Key": server.api_key})
    body = {"subject": {"tenant": "acme"}, "action": {"kind": "a", "name": "b"}, "idempotency_key": "k"}
    made = http.post("/v1/reservations", json={**body, "estimate": {"unit": "TOKENS", "amount": 1}}).json()
    path, other = f"/v1/reservations/{made['reservation_id']}", {"unit": "USD_MICROCENTS", "amount": 1}
    failed = http.post(f"{path}/commit", json={"idempotency_key": "c", "actual": other})
    assert (failed.status_code, failed.json()["error"]) == (400, "UNIT_MISMATCH")
    signed = http.get(f"/v1/evidence/{failed.json()['cycles_evidence']['evidence_id']}").json()
    assert signed["artifact_type"] == "error"
    error = signed["payload"]["error"]
    assert error["endpoint"] == "POST /v1/reservations/{reservation_id}/commit"
    assert (error["http_status"], error["reservation_id"]) == (400, made["reservation_id"])
    assert set(http.get(path).json()["evidence"]) == {"reserve"}


def test_a_reservation_lists_its_evidence(client: cycles.Cycles) -> None:
    with client.reserve(cycles.tokens(10), action=ACTION) as guard:
        guard.commit(cycles.tokens(5))
    evidence = client.reservation(guard.reservation_id or "").evidence
    assert evidence is not None
    assert evidence.reserve is not None
    assert evidence.commit is not None
    assert evidence.release is None
    for reference, artifact in ((evidence.reserve, "reserve"), (evidence.commit, "commit")):
        verdict = client.evidence_verdict(reference)
        assert verdict.is_authentic
        assert verdict.envelope.artifact_type == artifact
    [row] = client.reservations(include=("evidence",))
    assert row.evidence == evidence
    [row] = client.reservations()
    assert row.evidence is None
    with client.reserve(cycles.tokens(10), action=ACTION) as guard:
        guard.release("not needed")
    evidence = client.reservation(guard.reservation_id or "").evidence
    assert evidence is not None
    assert client.evidence_verdict(evidence.release).is_authentic  # type: ignore[arg-type]


def test_a_replay_has_the_evidence_of_the_first_response(client: cycles.Cycles) -> None:
    first = client.decide(cycles.tokens(1), action=ACTION, idempotency_key="k")
    again = client.decide(cycles.tokens(1), action=ACTION, idempotency_key="k")
    assert first.cycles_evidence == again.cycles_evidence
    assert client.decide(cycles.tokens(1), action=ACTION).cycles_evidence != first.cycles_evidence


def test_only_decisions_are_signed(server: cycles.EmbeddedServer) -> None:
    http = httpx.Client(transport=server.transport(), base_url="http://x", headers={"X-Cycles-API-Key": server.api_key})
    body = {
        "idempotency_key": "k",
        "subject": {"tenant": "acme"},
        "action": {"kind": "a", "name": "b"},
        "estimate": {"unit": "TOKENS", "amount": 1},
    }
    assert "cycles_evidence" in http.post("/v1/decide", json=body).json()
    for path, changed, status in (
        ("/v1/decide", {**body, "estimate": None}, 400),
        ("/v1/decide", {**body, "subject": {"tenant": "other"}}, 403),
        ("/v1/decide", {**body, "estimate": {"unit": "TOKENS", "amount": 2}}, 409),
        ("/v1/reservations/nope/commit", {"idempotency_key": "k", "actual": body["estimate"]}, 404),
        ("/v1/events", {**{k: v for k, v in body.items() if k != "estimate"}, "actual": body["estimate"]}, 201),
        ("/v1/decide", {**body, "idempotency_key": "k2", "metadata": {"n": 2**53 + 1}}, 200),
    ):
        response = http.post(path, json=changed)
        assert (response.status_code, "cycles_evidence" in response.json()) == (status, False), path
    unkeyed = httpx.Client(transport=server.transport(), base_url="http://x")
    assert "cycles_evidence" not in unkeyed.post("/v1/decide", json=body).json()
    assert unkeyed.get("/v1/.well-known/cycles-jwks.json").status_code == 200
    assert unkeyed.get(f"/v1/evidence/{'0' * 64}").status_code == 404
    assert unkeyed.get("/v1/evidence/x").status_code == 400


def test_a_server_over_http_names_its_own_address() -> None:
    with (
        cycles.EmbeddedServer(budgets=BUDGETS, evidence_key=SEED.hex()) as server,
        server.listen() as url,
        cycles.Cycles(base_url=url, api_key=server.api_key, tenant="acme", journal=False) as client,
    ):
        reference = client.decide(cycles.tokens(1), action=ACTION).cycles_evidence
        assert reference is not None
        assert reference.cycles_evidence_url == f"{url}/v1/evidence/{reference.evidence_id}"
        assert client.evidence_verdict(reference).server_id == f"{url}/v1"
        envelope = httpx.get(reference.cycles_evidence_url).content
        keys = httpx.get(f"{url}/v1/.well-known/cycles-jwks.json").content
    assert cycles.verify_evidence(envelope, keys=keys, trusted_server_ids=[f"{url}/v1"]).is_authentic
    assert list(json.loads(envelope)) != sorted(json.loads(envelope))  # served in another order than it is hashed


def test_the_issuer_can_be_set() -> None:
    with cycles.EmbeddedServer(budgets=BUDGETS, evidence_key=SEED, server_id="https://cycles.example.com/v1") as server:
        client = server.client(tenant="acme")
        reference = client.decide(cycles.tokens(1), action=ACTION).cycles_evidence
        assert client.evidence_verdict(reference).disposition == "signer_authority_failed"  # type: ignore[arg-type]
        verdict = client.evidence_verdict(reference, server_id="https://cycles.example.com/v1")  # type: ignore[arg-type]
        assert verdict.is_authentic


@pytest.mark.parametrize("key", ["", "zz", "11" * 31, b"", b"1" * 31, 98765, "é" * 64])
def test_a_key_of_another_form_is_a_configuration_error_that_does_not_show_it(key: Any) -> None:
    with pytest.raises(cycles.ConfigurationError, match="evidence_key") as caught:
        cycles.EmbeddedServer(evidence_key=key)
    assert repr(key) not in str(caught.value)


def test_without_a_key_nothing_is_signed() -> None:
    with cycles.EmbeddedServer(budgets=BUDGETS) as server:
        client = server.client(tenant="acme")
        assert client.decide(cycles.tokens(1), action=ACTION).cycles_evidence is None
        with pytest.raises(cycles.NotFoundError):
            client.evidence_keys()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(), st.lists
)


@settings(max_examples=fewer(40), deadline=None)
@given(metadata=st.dictionaries(st.text(min_size=1), VALUES, max_size=4), estimate=st.integers(0, 3000))
def test_what_the_server_signs_always_verifies(metadata: dict[str, Any], estimate: int) -> None:
    with cycles.EmbeddedServer(budgets=BUDGETS, evidence_key=SEED) as server:
        client = server.client(tenant="acme")
        try:
            result = client.preview(cycles.tokens(estimate), action=ACTION, metadata=metadata)
        except cycles.InvalidRequestError:
            return  # half of a surrogate pair
        assert result.cycles_evidence is not None
        assert client.evidence_verdict(result.cycles_evidence).is_authentic


def test_the_server_process_takes_a_key(capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--budget", "tenant:acme=1000TOKENS", "--api-key", f"{KEY}=acme")
    with (
        embedded_process(*options, "--evidence-key", SEED.hex()) as (_, url),
        cycles.Cycles(base_url=url, api_key=KEY, tenant="acme", journal=False) as client,
    ):
        reference = client.decide(cycles.tokens(1), action=ACTION).cycles_evidence
        assert reference is not None
        assert client.evidence_verdict(reference).is_authentic
    assert embedded_main([*options, "--evidence-key", "nonsense"]) == 2
    assert "evidence_key" in capfd.readouterr().err
