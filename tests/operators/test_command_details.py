"""What options of `cycles budget` change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cycles
from tests.operators.conftest import Cycles

ADMIN_KEY = "cyc_admin_s3cret"


@pytest.fixture
def managed(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server whose administration is that of the commands."""
    budgets = {"tenant:acme": cycles.usd(10)}
    with cycles.EmbeddedServer(budgets, admin_api_key=ADMIN_KEY) as server, server.listen() as url:
        monkeypatch.setenv("CYCLES_ADMIN_BASE_URL", url)
        monkeypatch.setenv("CYCLES_ADMIN_API_KEY", ADMIN_KEY)
        yield url


def test_the_reason_of_each_change_is_in_the_audit_log(run_here: Cycles, managed: str) -> None:
    changes: dict[str, list[str]] = {"set": ["20USD"], "freeze": [], "unfreeze": []}
    for verb, more in changes.items():
        ran = run_here("budget", verb, "tenant:acme", *more, "--yes", "--reason", f"why {verb}")
        assert ran.status == 0, ran
    assert run_here("fund", "tenant:acme", "1USD", "--yes", "--reason", "why fund").status == 0
    with cycles.Admin(managed, ADMIN_KEY) as admin:
        reasons = [(entry.metadata or {}).get("reason") for entry in admin.audit()]
    assert sorted(filter(None, reasons)) == ["why freeze", "why fund", "why set", "why unfreeze"]
