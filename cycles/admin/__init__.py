"""Administration of a Cycles deployment: tenants, budgets, API keys, webhooks and the audit log.

This package is separate from the runtime client, so that code that only spends never has the admin key. The operations
are written once as coroutines over a `Channel`; `Admin` runs them in threads, `admin.aio` in event loops. A `Channel`
has deadlines, redaction and response classification of the SDK, but no journal, heartbeat or scheduler.
"""

from __future__ import annotations

from cycles.admin._client import Admin, AsyncAdmin
from cycles.admin._keys import RUNTIME_PERMISSIONS
from cycles.admin.results import (
    ApiKey,
    AuditEntry,
    Budget,
    BulkReport,
    BulkRow,
    Funding,
    NewApiKey,
    NewWebhook,
    Onboarded,
    Overview,
    Policy,
    QuotaCounter,
    Tenant,
    WebhookSecurity,
)

__all__ = [
    "RUNTIME_PERMISSIONS",
    "Admin",
    "ApiKey",
    "AsyncAdmin",
    "AuditEntry",
    "Budget",
    "BulkReport",
    "BulkRow",
    "Funding",
    "NewApiKey",
    "NewWebhook",
    "Onboarded",
    "Overview",
    "Policy",
    "QuotaCounter",
    "Tenant",
    "WebhookSecurity",
]
