"""FastAPI and ASGI: the status of each error, and the lifespan that closes the client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

import cycles

pytest.importorskip("fastapi")

from fastapi import FastAPI

from cycles.integrations._problems import close_code_of, problem_of
from cycles.integrations.fastapi import lifespan

pytestmark = pytest.mark.anyio


class Quota(cycles.ReservationDeniedError):
    left_s = 89.9

    @property
    def quota(self) -> Any:
        return SimpleNamespace(resets_at=datetime.now(UTC) + timedelta(seconds=self.left_s))


class EndedQuota(Quota):
    left_s = -5.0


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED"), 402, "BUDGET_EXCEEDED", None),
        (cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED", retry_after_ms=1500), 402, "BUDGET_EXCEEDED", 2),
        (cycles.DebtOutstandingError("no", code="DEBT_OUTSTANDING"), 402, "DEBT_OUTSTANDING", None),
        (cycles.BudgetFrozenError("no", code="BUDGET_FROZEN"), 403, "BUDGET_FROZEN", None),
        (cycles.ReservationDeniedError("no", code="NEW_REASON"), 403, "NEW_REASON", None),
        (cycles.ReservationDeniedError("no", code="tenant:acme"), 403, "DENIED", None),
        (cycles.ToolNotAllowedError("no"), 403, "TOOL_NOT_ALLOWED", None),
        (cycles.ReservationDeniedError("no", code="ACTION_QUOTA_EXCEEDED"), 403, "ACTION_QUOTA_EXCEEDED", None),
        (Quota("no", code="ACTION_QUOTA_EXCEEDED"), 429, "ACTION_QUOTA_EXCEEDED", 90),
        (EndedQuota("no", code="ACTION_QUOTA_EXCEEDED"), 429, "ACTION_QUOTA_EXCEEDED", 0),
        (Quota("no", code="BUDGET_EXCEEDED", retry_after_ms=1500), 402, "BUDGET_EXCEEDED", 2),
        (
            cycles.ReservationDeniedError("no", code="ACTION_QUOTA_EXCEEDED", retry_after_ms=0),
            429,
            "ACTION_QUOTA_EXCEEDED",
            0,
        ),
        (cycles.RateLimitedError("no", code="LIMIT_EXCEEDED", retry_after_ms=1), 429, "LIMIT_EXCEEDED", 1),
        (cycles.ReservationNotActiveError("no"), 409, "RESERVATION_NOT_ACTIVE", None),
        (cycles.ReservationKeyReusedError("no", code="X"), 409, "IDEMPOTENCY_MISMATCH", None),
        (cycles.TransportError("no"), 503, "UNAVAILABLE", 1),
        (cycles.ServerError("no", retry_after_ms=5000), 503, "UNAVAILABLE", 5),
        (cycles.ServerError("no", retry_after_ms=0), 503, "UNAVAILABLE", 0),
        (cycles.ServerError("no", retry_after_ms=1001), 503, "UNAVAILABLE", 2),
        (cycles.LeaseLostError("no"), 503, "LEASE_LOST", 1),
        (cycles.UnauthorizedError("no", code="UNAUTHORIZED", request_id="r"), 500, "INTERNAL_ERROR", None),
        (cycles.InvalidRequestError("no"), 500, "INTERNAL_ERROR", None),
        (cycles.NotFoundError("no", code="NOT_FOUND"), 500, "INTERNAL_ERROR", None),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, code: str, retry_after: int | None) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code, problem.retry_after_s) == (status, code, retry_after)
    assert "request_id" not in problem.members


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (cycles.RateLimitedError("no"), 1013),
        (Quota("no", code="ACTION_QUOTA_EXCEEDED"), 1013),
        (cycles.TransportError("no"), 1013),
        (cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED"), 1008),
        (cycles.ReservationNotActiveError("no"), 1008),
        (cycles.InvalidRequestError("no"), 1011),
    ],
)
def test_close_codes_of_websockets(error: Exception, code: int) -> None:
    assert close_code_of(error) == code


@pytest.mark.parametrize(
    ("error", "code", "retry_after"),
    [
        (Quota("no", code="ACTION_QUOTA_EXCEEDED"), "ACTION_QUOTA_EXCEEDED", 90),
        (cycles.ReservationDeniedError("no", code="ACTION_QUOTA_EXCEEDED"), "ACTION_QUOTA_EXCEEDED", None),
        (cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED"), "BUDGET_EXCEEDED", None),
        (cycles.ServerError("no"), "UNAVAILABLE", None),
        (cycles.InvalidRequestError("no"), "INTERNAL_ERROR", None),
    ],
)
def test_the_status_of_the_application_wins(error: Exception, code: str, retry_after: int | None) -> None:
    problem = problem_of(error, {code: 418, "OTHER": 400})
    assert (problem.status, problem.code, problem.retry_after_s) == (418, code, retry_after)


async def test_the_lifespan_has_the_client_and_closes_it_last(server: cycles.EmbeddedServer, tmp_path: Any) -> None:
    client = server.client(tenant="acme", journal_dir=tmp_path)
    seen: list[str] = []

    @asynccontextmanager
    async def inner(app: Any) -> AsyncIterator[dict[str, int]]:
        yield {"own": 1, "cycles": 2}
        client.decide(cycles.tokens(1), action=("a", "b"))
        seen.append("inner")

    async with lifespan(client, inner)(FastAPI()) as state:
        assert state == {"cycles": client, "own": 1}
    assert seen == ["inner"]
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.decide(cycles.tokens(1), action=("a", "b"))


@pytest.mark.parametrize("is_default", [False, True])
async def test_a_lifespan_without_inner_has_the_client_and_closes_it(
    server: cycles.EmbeddedServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, is_default: bool
) -> None:
    client = server.client(tenant="acme", journal_dir=tmp_path)
    monkeypatch.setattr("cycles.get_default_client", lambda: client)
    async with lifespan(None if is_default else client)(FastAPI()) as state:
        assert state == {"cycles": client}
        client.decide(cycles.tokens(1), action=("a", "b"))
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.decide(cycles.tokens(1), action=("a", "b"))


async def test_the_lifespan_closes_the_client_if_inner_fails(server: cycles.EmbeddedServer, tmp_path: Any) -> None:
    client = server.client(tenant="acme", journal_dir=tmp_path)

    @asynccontextmanager
    async def inner(app: Any) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        async with lifespan(client, inner)(FastAPI()):
            pass
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.decide(cycles.tokens(1), action=("a", "b"))
