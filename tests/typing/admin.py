"""`cycles.Admin`: its results, its lists, and the same as coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import assert_type

import cycles
from cycles.admin import (
    ApiKey,
    AuditEntry,
    Budget,
    BulkReport,
    Funding,
    NewApiKey,
    NewWebhook,
    Onboarded,
    QuotaCounter,
    Tenant as TenantResult,
)

admin = cycles.Admin("http://localhost", "key")
SCOPE = "tenant:acme"


def tenants_and_budgets() -> None:
    site = admin.onboard("acme", "Acme", budgets={SCOPE: cycles.usd(100)}, key_name="prod")
    assert_type(site, Onboarded)
    assert_type(site.key, NewApiKey)
    assert_type(site.budgets, tuple[Budget, ...])
    assert_type(admin.create_tenant("acme", "Acme"), TenantResult)
    assert_type(admin.tenant("acme").created, bool)
    assert_type(admin.update_tenant("acme", name="New"), TenantResult)
    assert_type(admin.close_tenant("acme", confirm="acme"), TenantResult)
    assert_type(admin.create_budget(SCOPE, cycles.usd(1)), Budget)
    assert_type(admin.budget(SCOPE, unit="TOKENS").remaining, cycles.SignedAmount)
    assert_type(admin.budgets(tenant="acme", over_limit=True), Iterator[Budget])
    assert_type(admin.credit(SCOPE, cycles.usd(1)), Funding)
    assert_type(admin.start_period(SCOPE, cycles.usd(1), period="2026-05"), Funding)
    assert_type(admin.start_periods("acme", cycles.usd(1), period="2026-05"), BulkReport)
    assert_type(admin.freeze(SCOPE, unit="TOKENS"), Budget)
    admin.close_tenant("acme")  # type: ignore[call-arg]
    admin.start_period(SCOPE, cycles.usd(1))  # type: ignore[call-arg]
    admin.create_budget(SCOPE, 5)  # type: ignore[arg-type]
    admin.budget(SCOPE)  # type: ignore[call-arg]


def keys_and_the_rest() -> None:
    key = admin.create_api_key("acme", "prod", permissions=cycles.RUNTIME_PERMISSIONS)
    assert_type(key, NewApiKey)
    assert_type(key.expires_at, datetime | None)
    assert_type(admin.rotate_api_key(key.key_id), NewApiKey)
    assert_type(admin.revoke_api_key(key.key_id), ApiKey)
    assert_type(admin.api_keys(tenant="acme"), Iterator[ApiKey])
    assert_type(admin.create_webhook("https://example.com", ["budget.exhausted"]), NewWebhook)
    for entry in admin.audit(operation=["fundBudget"]):
        assert_type(entry, AuditEntry)
    for counter in admin.quota_counters("acme"):
        assert_type(counter, QuotaCounter)
    assert_type(
        admin.reset_quota_counter("acme", scope=SCOPE, window="per_run").previous_used,
        int | None,
    )
    admin.create_webhook("https://example.com")  # type: ignore[call-arg]
    admin.quota_counters("acme", scope=5)  # type: ignore[arg-type]


async def from_an_event_loop() -> None:
    assert_type(await admin.aio.tenant("acme"), TenantResult)
    assert_type(await admin.aio.credit(SCOPE, cycles.usd(1)), Funding)
    assert_type(admin.aio.budgets(), AsyncIterator[Budget])
    async for counter in admin.aio.quota_counters("acme"):
        assert_type(counter.used, int)
    await admin.aio.close_tenant("acme")  # type: ignore[call-arg]
