"""Every operation of the protocol has a method, or a reason why not; what handwritten code lacks is named."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

import cycles
from cycles_admin_client.protocol import OPERATIONS as ADMIN_OPERATIONS
from cycles_client.protocol import OPERATIONS
from generator import coverage
from generator.diff.__main__ import tables
from generator.document import Json
from generator.fit import misfits

from .published import PUBLISHED


def test_every_operation_of_the_admin_methods_is_in_the_admin_document() -> None:
    assert list(coverage.admin_gaps(ADMIN_OPERATIONS)) == []


def test_every_operation_has_a_method_or_a_reason() -> None:
    assert list(coverage.gaps(OPERATIONS)) == []


@pytest.mark.parametrize("method", sorted({name for names in coverage.OFFERED.values() for name in names}))
def test_the_methods_exist_for_sync_and_async_code(method: str) -> None:
    owner, _, name = method.rpartition(".")
    if owner:
        assert callable(getattr(cycles.Guard, name))
        assert callable(getattr(cycles.AsyncGuard, name))
        return
    assert callable(getattr(cycles.Cycles, name))
    if name not in ("reserve", "guarded"):  # these two serve sync and async code alike
        client = cycles.Cycles(base_url="http://localhost", api_key="k", journal=False)
        assert callable(getattr(client.aio, name))
        client.close()


def test_the_page_shows_the_current_table() -> None:
    page = coverage.PAGE.read_text(encoding="utf-8")
    assert coverage.updated(page, OPERATIONS) == page, "run `python -m generator.coverage`"
    for name in OPERATIONS:
        assert f"| `{name}` |" in page


def changed(change: Callable[[Json], Any]) -> list[str]:
    spec = deepcopy(PUBLISHED)
    change(spec)
    return misfits(tables(spec))


def schema(name: str) -> Callable[[Json], Json]:
    return lambda spec: spec["components"]["schemas"][name]


def add_operation(spec: Json) -> None:
    spec["paths"]["/v1/quotas"] = {"get": {"operationId": "listQuotas", "responses": {"204": {"description": ""}}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add_operation, ["operation listQuotas (GET /v1/quotas) is new", "generator/coverage.py"]),
        (lambda spec: spec["paths"].pop("/v1/decide"), ["operation decide was removed", "`client.decide`"]),
        (lambda spec: schema("Balance")(spec)["required"].remove("remaining"), ["getBalances: Balance", "remaining"]),
        (
            lambda spec: schema("CommitResponse")(spec)["properties"].update(charged={"type": "string"}),
            ["commitReservation: CommitResponse", "results.py"],
        ),
        (
            lambda spec: schema("BalanceResponse")(spec)["properties"].pop("balances"),
            ["no longer has the list balances"],
        ),
    ],
    ids=["new operation", "operation removed", "member optional", "another type", "no list"],
)
def test_what_does_not_fit_is_reported_at_generation(change: Callable[[Json], Any], expected: list[str]) -> None:
    found = changed(change)
    assert len(found) == 1
    assert [part for part in expected if part not in found[0]] == []


def test_additions_fit() -> None:
    def grow(spec: Json) -> None:
        schema("Balance")(spec)["properties"]["tier"] = {"type": "string"}
        schema("Balance")(spec)["required"].append("debt")
        schema("DecisionEnum")(spec)["enum"].append("DEFER")

    assert changed(grow) == []
