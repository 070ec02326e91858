"""Behaviour of `cycles_client` when used directly: each test covers a defect of stock generated code that is fixed."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import attrs
import httpx
import pytest

from cycles_client import AuthenticatedClient, Client
from cycles_client.api.balances import get_balances
from cycles_client.api.evidence import get_evidence
from cycles_client.api.reservations import create_reservation, extend_reservation, list_reservations
from cycles_client.models import (
    Action,
    Amount,
    CyclesEvidenceJwk,
    CyclesEvidenceJwks,
    DecisionEnum,
    ErrorResponse,
    ReservationCreateRequest,
    ReservationCreateResponse,
    Subject,
    UnitEnum,
)
from cycles_client.types import UNSET, Response, Unset

RESERVED = {
    "decision": "ALLOW",
    "reservation_id": "r1",
    "reserved": {"unit": "TOKENS", "amount": 5},
    "affected_scopes": ["tenant:acme"],
}


def request_body(**members: Any) -> ReservationCreateRequest:
    return ReservationCreateRequest(
        idempotency_key="k",
        subject=Subject(tenant="acme", dimensions={"run": "7"}),
        action=Action(kind="llm.completion", name="gpt"),
        estimate=Amount(unit=UnitEnum.TOKENS, amount=5),
        **members,
    )


def read_response(status: int, **content: Any) -> Response[Any]:
    """Read a response with the generated functions."""
    client = AuthenticatedClient(base_url="http://localhost", token="t")
    return create_reservation._build_response(client=client, response=httpx.Response(status, **content))


def test_a_subject_is_a_model_with_its_levels() -> None:
    subject = Subject.from_dict({"tenant": "acme", "dimensions": {"run": "7"}})
    assert (subject.tenant, subject.app, subject.dimensions) == ("acme", UNSET, {"run": "7"})


def test_requests_contain_no_server_defaults() -> None:
    assert set(request_body().to_dict()) == {"idempotency_key", "subject", "action", "estimate"}
    assert list_reservations._get_kwargs()["params"] == {}
    assert get_balances._get_kwargs()["params"] == {}


def test_a_string_is_accepted_for_an_enum() -> None:
    amount = Amount(unit="TOKENS", amount=5)  # type: ignore[arg-type]
    assert amount.to_dict() == {"unit": "TOKENS", "amount": 5}
    assert list_reservations._get_kwargs(status="ACTIVE")["params"] == {"status": "ACTIVE"}  # type: ignore[arg-type]


def test_a_changed_copy_of_a_client_does_not_change_the_original() -> None:
    client = Client(base_url="http://localhost", headers={"A": "1"})
    with client.get_httpx_client() as original:
        copies = (
            client.with_headers({"B": "2"}),
            client.with_timeout(httpx.Timeout(9)),
            client.with_cookies({"c": "3"}),
        )
        assert "B" not in original.headers
        assert (original.timeout, dict(original.cookies)) == (httpx.Timeout(5.0), {})
        with copies[0].get_httpx_client() as changed:
            assert (changed.headers["A"], changed.headers["B"]) == ("1", "2")


def test_a_free_form_member_is_a_dict() -> None:
    metadata = {"run": {"id": 7, "tags": ["a"]}}
    assert request_body(metadata=metadata).to_dict()["metadata"] == metadata


@pytest.mark.parametrize("text", ["ALLOW_FOR_NOW", "created_at", "", "DENY "])
def test_a_value_newer_than_the_client_is_kept(text: str) -> None:
    decision = DecisionEnum(text)
    assert (decision, decision.value, str(decision), decision.is_known) == (text, text, text, False)
    assert json.dumps(decision) == json.dumps(text)
    assert hash(decision) == hash(text)
    assert pickle.loads(pickle.dumps(decision)) == copy.deepcopy(decision) == text
    parsed = ReservationCreateResponse.from_dict({**RESERVED, "decision": text})
    assert parsed.to_dict() == {**RESERVED, "decision": text}


def test_a_known_value_is_known_and_another_type_is_rejected() -> None:
    assert DecisionEnum("DENY") is DecisionEnum.DENY
    assert DecisionEnum.DENY.is_known
    wrong: Any
    for wrong in (7, None, True, ["DENY"]):
        with pytest.raises(ValueError, match="is not a valid DecisionEnum"):
            DecisionEnum(wrong)


def test_members_newer_than_the_client_survive_a_round_trip_at_any_depth() -> None:
    newer = {**RESERVED, "queue": {"place": 3}, "reserved": {"unit": "TOKENS", "amount": 5, "soft": True}}
    parsed = ReservationCreateResponse.from_dict(newer)
    assert parsed.additional_properties == {"queue": {"place": 3}}
    assert parsed.to_dict() == newer


def test_requests_stay_closed() -> None:
    assert "additional_properties" not in [field.name for field in attrs.fields(ReservationCreateRequest)]


def test_an_optional_member_that_is_null_counts_as_absent() -> None:
    nulls = ("caps", "balances", "reserved", "cycles_evidence", "reservation_id", "expires_at_ms", "reason_code")
    parsed = ReservationCreateResponse.from_dict({"decision": "DENY", "affected_scopes": [], **dict.fromkeys(nulls)})
    assert [getattr(parsed, name) for name in nulls] == [UNSET] * len(nulls)
    error = ErrorResponse.from_dict({"error": "X", "message": "m", "request_id": "r", "details": None})
    assert isinstance(error.details, Unset)


def test_null_is_kept_if_the_protocol_gives_it_a_meaning() -> None:
    key = {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "k", "cycles_nbf_ms": 1, "cycles_exp_ms": None}
    assert CyclesEvidenceJwk.from_dict(key).cycles_exp_ms is None


def test_a_key_of_an_unknown_type_does_not_make_its_key_set_unreadable() -> None:
    foreign = {"kty": "EC", "crv": "P-256", "alg": "ES256", "x": "AA", "kid": "k", "cycles_nbf_ms": 1}
    assert CyclesEvidenceJwks.from_dict({"keys": [foreign]}).to_dict() == {"keys": [foreign]}


def test_unset_members_are_unset_in_copies_too() -> None:
    body = request_body()
    for twin in (copy.copy(body), copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
        assert twin == body
        assert json.dumps(twin.to_dict()) == json.dumps(body.to_dict())


def test_a_list_parameter_is_sent_as_one_string() -> None:
    params = list_reservations._get_kwargs(include="evidence,metadata", sort_dir=UNSET)["params"]
    assert params == {"include": "evidence,metadata"}


def test_a_parameter_named_like_a_python_keyword_keeps_its_name_on_the_wire() -> None:
    import datetime

    day = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    params = list_reservations._get_kwargs(from_=day, to=day)["params"]
    assert params == {"from": "2026-01-02T00:00:00+00:00", "to": "2026-01-02T00:00:00+00:00"}


@pytest.mark.parametrize("status", [299, 499, 520, 529, 599])
def test_an_unregistered_status_is_a_number(status: int) -> None:
    assert (read_response(status, json={}).status_code, read_response(status, json={}).parsed) == (status, None)


@pytest.mark.parametrize("content", [b"<html>", b"", b"[]", b"null", b'"x"', b"{}", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("status", [200, 401, 409, 500])
def test_a_body_that_cannot_be_read_is_reported_beside_the_status(status: int, content: bytes) -> None:
    built = read_response(status, content=content)
    assert (built.status_code, built.parsed) == (status, None)
    assert isinstance(built.parse_error, Exception)


def test_a_valid_response_has_no_parse_error() -> None:
    built = read_response(200, json=RESERVED)
    assert built.parse_error is None
    assert built.parsed is not None
    assert built.parsed.to_dict() == RESERVED


def test_the_key_is_in_the_header_of_the_protocol_and_in_no_repr() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=RESERVED)

    headers = {"X-Trace": "s3cret-trace"}
    client = AuthenticatedClient(
        base_url="http://localhost",
        token="s3cret-key",
        headers=headers,
        httpx_args={"transport": httpx.MockTransport(handle)},
    )
    assert isinstance(create_reservation.sync(client=client, body=request_body()), ReservationCreateResponse)
    client.get_httpx_client().close()
    assert seen[0].headers["X-Cycles-API-Key"] == "s3cret-key"
    assert "authorization" not in seen[0].headers
    assert "s3cret" not in repr(client)
    assert headers == {"X-Trace": "s3cret-trace"}


def test_the_default_timeout_is_finite() -> None:
    assert Client(base_url="http://localhost").get_httpx_client().timeout == httpx.Timeout(5.0)


def test_the_async_functions_read_the_same_response() -> None:
    async def read() -> Any:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"status": "ACTIVE"}))
        async with AuthenticatedClient("http://localhost", token="t", httpx_args={"transport": transport}) as client:
            return await extend_reservation.asyncio_detailed("a/b", client=client, body=extension)

    from cycles_client.models import ReservationExtendRequest

    extension = ReservationExtendRequest(idempotency_key="k", extend_by_ms=1000)
    built = asyncio.run(read())
    assert (built.status_code, built.parsed, type(built.parse_error)) == (200, None, KeyError)


def test_an_id_is_one_segment_of_the_path() -> None:
    from cycles_client.models import ReservationExtendRequest

    body = ReservationExtendRequest(idempotency_key="k", extend_by_ms=1000)
    kwargs = extend_reservation._get_kwargs("a/b?c#d%2e", body=body)
    assert kwargs["url"] == "/v1/reservations/a%2Fb%3Fc%23d%252e/extend"


def test_only_public_reads_take_an_unauthenticated_client() -> None:
    """The security of the document applies to every operation without its own."""
    assert "Client | " not in str(create_reservation.sync.__annotations__["client"])
    assert "Client | " in str(get_evidence.sync.__annotations__["client"])


def test_docstrings_are_short() -> None:
    documentation = create_reservation.sync.__doc__ or ""
    assert len(documentation.splitlines()) < 30
    assert "Expected cost of the action" not in documentation
    assert "estimate (Amount): Amount to reserve." in (ReservationCreateRequest.__doc__ or "")
    assert "without reserving. Server default: false." in (ReservationCreateRequest.__doc__ or "")


def test_importing_a_table_or_a_model_loads_nothing_else() -> None:
    program = """
import sys
import cycles_client.protocol
print([name for name in sys.modules if name.startswith("cycles_client") or name in ("httpx", "attrs", "attr")])
from cycles_client.models import Subject
print([name for name in sys.modules if name.startswith("cycles_client")], "httpx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    tables, model = done.stdout.splitlines()
    assert tables == "['cycles_client', 'cycles_client.protocol']"
    assert "cycles_client.models.amount" not in model
    assert model.endswith("False")


def test_an_unknown_name_is_an_attribute_error() -> None:
    import cycles_client
    import cycles_client.models

    for module in (cycles_client, cycles_client.models):
        with pytest.raises(AttributeError, match="no attribute 'Nope'"):
            module.Nope  # noqa: B018
