"""One function per body and parameter, which recognizes valid values.

A function returns True for a value that is surely valid by `SCHEMAS` of `protocol.py`, and False for one that needs a
closer look. `REQUESTS` and `PARAMETERS` read a schema exactly, so that a server does not reject it. `RESPONSES` lets
newer members and values pass, and null for an optional member. This file is generated; change the document instead.
"""

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from .protocol import SCHEMAS

__all__ = ["PARAMETERS", "REQUESTS", "RESPONSES", "SCHEMAS"]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_date_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


@cache
def _search(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).search


def tenant_create_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("tenant_id")
    if (
        type(v1) is not str
        or len(v1) < 3
        or len(v1) > 64
        or not _search("^[a-z0-9-]+\\Z")(v1)
        or not (v1.isascii() or _is_text(v1))
    ):
        return False
    v2 = value.get("name")
    if type(v2) is not str or len(v2) < 1 or len(v2) > 256 or not (v2.isascii() or _is_text(v2)):
        return False
    v3 = 2
    if "parent_tenant_id" in value:
        v3 += 1
        v4 = value["parent_tenant_id"]
        if type(v4) is not str or not (v4.isascii() or _is_text(v4)):
            return False
    if "default_commit_overage_policy" in value:
        v3 += 1
        v5 = value["default_commit_overage_policy"]
        if type(v5) is not str or v5 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "default_reservation_ttl_ms" in value:
        v3 += 1
        v6 = value["default_reservation_ttl_ms"]
        if type(v6) is not int or not 1000 <= v6 <= 86400000:
            return False
    if "max_reservation_ttl_ms" in value:
        v3 += 1
        v7 = value["max_reservation_ttl_ms"]
        if type(v7) is not int or not 1000 <= v7 <= 86400000:
            return False
    if "max_reservation_extensions" in value:
        v3 += 1
        v8 = value["max_reservation_extensions"]
        if type(v8) is not int or not 0 <= v8 <= 9223372036854775807:
            return False
    if "reservation_expiry_policy" in value:
        v3 += 1
        v9 = value["reservation_expiry_policy"]
        if type(v9) is not str or v9 not in {"AUTO_RELEASE", "MANUAL_CLEANUP", "GRACE_ONLY"}:
            return False
    if "metadata" in value:
        v3 += 1
        v10 = value["metadata"]
        if type(v10) is not dict:
            return False
        for v13 in v10.values():
            if v13 is not None:
                if type(v13) is not str or not (v13.isascii() or _is_text(v13)):
                    return False
    if len(value) != v3:
        return False
    return True


def tenant_update_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "name" in value:
        v1 += 1
        v2 = value["name"]
        if (
            type(v2) is not str
            or len(v2) < 1
            or len(v2) > 256
            or not (v2.isascii() or _is_text(v2))
        ):
            return False
    if "status" in value:
        v1 += 1
        v3 = value["status"]
        if type(v3) is not str or v3 not in {"ACTIVE", "SUSPENDED", "CLOSED"}:
            return False
    if "default_commit_overage_policy" in value:
        v1 += 1
        v4 = value["default_commit_overage_policy"]
        if type(v4) is not str or v4 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "default_reservation_ttl_ms" in value:
        v1 += 1
        v5 = value["default_reservation_ttl_ms"]
        if type(v5) is not int or not 1000 <= v5 <= 86400000:
            return False
    if "max_reservation_ttl_ms" in value:
        v1 += 1
        v6 = value["max_reservation_ttl_ms"]
        if type(v6) is not int or not 1000 <= v6 <= 86400000:
            return False
    if "max_reservation_extensions" in value:
        v1 += 1
        v7 = value["max_reservation_extensions"]
        if type(v7) is not int or not 0 <= v7 <= 9223372036854775807:
            return False
    if "reservation_expiry_policy" in value:
        v1 += 1
        v8 = value["reservation_expiry_policy"]
        if type(v8) is not str or v8 not in {"AUTO_RELEASE", "MANUAL_CLEANUP", "GRACE_ONLY"}:
            return False
    if "metadata" in value:
        v1 += 1
        v9 = value["metadata"]
        if type(v9) is not dict:
            return False
        for v12 in v9.values():
            if v12 is not None:
                if type(v12) is not str or not (v12.isascii() or _is_text(v12)):
                    return False
    if len(value) != v1:
        return False
    return True


def tenant_bulk_action_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("filter")
    if not tenant_filter_request(v1):
        return False
    v2 = value.get("action")
    if type(v2) is not str or v2 not in {"SUSPEND", "REACTIVATE", "CLOSE"}:
        return False
    v3 = value.get("idempotency_key")
    if type(v3) is not str or len(v3) < 1 or len(v3) > 128 or not (v3.isascii() or _is_text(v3)):
        return False
    v4 = 3
    if "expected_count" in value:
        v4 += 1
        v5 = value["expected_count"]
        if type(v5) is not int or not 0 <= v5 <= 9223372036854775807:
            return False
    if len(value) != v4:
        return False
    return True


def tenant_filter_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "status" in value:
        v1 += 1
        v2 = value["status"]
        if type(v2) is not str or v2 not in {"ACTIVE", "SUSPENDED", "CLOSED"}:
            return False
    if "parent_tenant_id" in value:
        v1 += 1
        v3 = value["parent_tenant_id"]
        if type(v3) is not str or not (v3.isascii() or _is_text(v3)):
            return False
    if "search" in value:
        v1 += 1
        v4 = value["search"]
        if type(v4) is not str or len(v4) > 128 or not (v4.isascii() or _is_text(v4)):
            return False
    if len(value) != v1:
        return False
    return True


def budget_create_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("scope")
    if type(v1) is not str or len(v1) < 1 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("unit")
    if type(v2) is not str or v2 not in {"USD_MICROCENTS", "TOKENS", "CREDITS", "RISK_POINTS"}:
        return False
    v3 = value.get("allocated")
    if not amount_request(v3):
        return False
    v4 = 3
    if "tenant_id" in value:
        v4 += 1
        v5 = value["tenant_id"]
        if type(v5) is not str or not (v5.isascii() or _is_text(v5)):
            return False
    if "overdraft_limit" in value:
        v4 += 1
        v6 = value["overdraft_limit"]
        if not amount_request(v6):
            return False
    if "commit_overage_policy" in value:
        v4 += 1
        v7 = value["commit_overage_policy"]
        if type(v7) is not str or v7 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "rollover_policy" in value:
        v4 += 1
        v8 = value["rollover_policy"]
        if type(v8) is not str or v8 not in {"NONE", "CARRY_FORWARD", "CAP_AT_ALLOCATED"}:
            return False
    if "period_start" in value:
        v4 += 1
        v9 = value["period_start"]
        if type(v9) is not str or not _is_date_time(v9) or not (v9.isascii() or _is_text(v9)):
            return False
    if "period_end" in value:
        v4 += 1
        v10 = value["period_end"]
        if type(v10) is not str or not _is_date_time(v10) or not (v10.isascii() or _is_text(v10)):
            return False
    if "metadata" in value:
        v4 += 1
        v11 = value["metadata"]
        if type(v11) is not dict:
            return False
        for v14 in v11.values():
            if v14 is not None:
                if type(v14) is not str or not (v14.isascii() or _is_text(v14)):
                    return False
    if len(value) != v4:
        return False
    return True


def amount_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("unit")
    if type(v1) is not str or v1 not in {"USD_MICROCENTS", "TOKENS", "CREDITS", "RISK_POINTS"}:
        return False
    v2 = value.get("amount")
    if type(v2) is not int or not 0 <= v2 <= 9223372036854775807:
        return False
    if len(value) != 2:
        return False
    return True


def budget_update_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "overdraft_limit" in value:
        v1 += 1
        v2 = value["overdraft_limit"]
        if not amount_request(v2):
            return False
    if "commit_overage_policy" in value:
        v1 += 1
        v3 = value["commit_overage_policy"]
        if type(v3) is not str or v3 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "metadata" in value:
        v1 += 1
        v4 = value["metadata"]
        if type(v4) is not dict:
            return False
        for v7 in v4.values():
            if v7 is not None:
                if type(v7) is not str or not (v7.isascii() or _is_text(v7)):
                    return False
    if len(value) != v1:
        return False
    return True


def budget_funding_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("operation")
    if type(v1) is not str or v1 not in {"CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT"}:
        return False
    v2 = value.get("amount")
    if not amount_request(v2):
        return False
    v3 = 2
    if "spent" in value:
        v3 += 1
        v4 = value["spent"]
        if not amount_request(v4):
            return False
    if "reason" in value:
        v3 += 1
        v5 = value["reason"]
        if type(v5) is not str or len(v5) > 512 or not (v5.isascii() or _is_text(v5)):
            return False
    if "idempotency_key" in value:
        v3 += 1
        v6 = value["idempotency_key"]
        if (
            type(v6) is not str
            or len(v6) < 1
            or len(v6) > 256
            or not (v6.isascii() or _is_text(v6))
        ):
            return False
    if "metadata" in value:
        v3 += 1
        v7 = value["metadata"]
        if type(v7) is not dict:
            return False
        for v10 in v7.values():
            if v10 is not None:
                if type(v10) is not str or not (v10.isascii() or _is_text(v10)):
                    return False
    if len(value) != v3:
        return False
    return True


def budget_freeze_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "reason" in value:
        v1 += 1
        v2 = value["reason"]
        if type(v2) is not str or len(v2) > 512 or not (v2.isascii() or _is_text(v2)):
            return False
    if len(value) != v1:
        return False
    return True


def budget_bulk_action_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("filter")
    if not budget_filter_request(v1):
        return False
    v2 = value.get("action")
    if type(v2) is not str or v2 not in {"CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT"}:
        return False
    v3 = value.get("idempotency_key")
    if type(v3) is not str or len(v3) < 1 or len(v3) > 128 or not (v3.isascii() or _is_text(v3)):
        return False
    v4 = 3
    if "amount" in value:
        v4 += 1
        v5 = value["amount"]
        if not amount_request(v5):
            return False
    if "spent" in value:
        v4 += 1
        v6 = value["spent"]
        if not amount_request(v6):
            return False
    if "reason" in value:
        v4 += 1
        v7 = value["reason"]
        if type(v7) is not str or len(v7) > 512 or not (v7.isascii() or _is_text(v7)):
            return False
    if "expected_count" in value:
        v4 += 1
        v8 = value["expected_count"]
        if type(v8) is not int or not 0 <= v8 <= 9223372036854775807:
            return False
    if len(value) != v4:
        return False
    return True


def budget_filter_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("tenant_id")
    if type(v1) is not str or len(v1) < 1 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = 1
    if "scope_prefix" in value:
        v2 += 1
        v3 = value["scope_prefix"]
        if type(v3) is not str or not (v3.isascii() or _is_text(v3)):
            return False
    if "unit" in value:
        v2 += 1
        v4 = value["unit"]
        if type(v4) is not str or v4 not in {"USD_MICROCENTS", "TOKENS", "CREDITS", "RISK_POINTS"}:
            return False
    if "status" in value:
        v2 += 1
        v5 = value["status"]
        if type(v5) is not str or v5 not in {"ACTIVE", "FROZEN", "CLOSED"}:
            return False
    if "over_limit" in value:
        v2 += 1
        v6 = value["over_limit"]
        if type(v6) is not bool:
            return False
    if "has_debt" in value:
        v2 += 1
        v7 = value["has_debt"]
        if type(v7) is not bool:
            return False
    if "utilization_min" in value:
        v2 += 1
        v8 = value["utilization_min"]
        if type(v8) is not float and type(v8) is not int:
            return False
    if "utilization_max" in value:
        v2 += 1
        v9 = value["utilization_max"]
        if type(v9) is not float and type(v9) is not int:
            return False
    if "search" in value:
        v2 += 1
        v10 = value["search"]
        if type(v10) is not str or len(v10) > 128 or not (v10.isascii() or _is_text(v10)):
            return False
    if len(value) != v2:
        return False
    return True


def policy_create_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("name")
    if type(v1) is not str or len(v1) < 1 or len(v1) > 256 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("scope_pattern")
    if type(v2) is not str or len(v2) < 1 or not (v2.isascii() or _is_text(v2)):
        return False
    if "tenant_id" in value:
        v4 = value["tenant_id"]
        if type(v4) is not str or not (v4.isascii() or _is_text(v4)):
            return False
    if "description" in value:
        v5 = value["description"]
        if type(v5) is not str or not (v5.isascii() or _is_text(v5)):
            return False
    if "priority" in value:
        v6 = value["priority"]
        if type(v6) is not int or not -9223372036854775808 <= v6 <= 9223372036854775807:
            return False
    if "caps" in value:
        v7 = value["caps"]
        if type(v7) is not dict:
            return False
    if "commit_overage_policy" in value:
        v9 = value["commit_overage_policy"]
        if type(v9) is not str or v9 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "reservation_ttl_override" in value:
        v10 = value["reservation_ttl_override"]
        if type(v10) is not dict:
            return False
    if "rate_limits" in value:
        v12 = value["rate_limits"]
        if type(v12) is not dict:
            return False
    if "effective_from" in value:
        v14 = value["effective_from"]
        if type(v14) is not str or not _is_date_time(v14) or not (v14.isascii() or _is_text(v14)):
            return False
    if "effective_until" in value:
        v15 = value["effective_until"]
        if type(v15) is not str or not _is_date_time(v15) or not (v15.isascii() or _is_text(v15)):
            return False
    return True


def policy_update_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    if "name" in value:
        v2 = value["name"]
        if (
            type(v2) is not str
            or len(v2) < 1
            or len(v2) > 256
            or not (v2.isascii() or _is_text(v2))
        ):
            return False
    if "description" in value:
        v3 = value["description"]
        if type(v3) is not str or not (v3.isascii() or _is_text(v3)):
            return False
    if "priority" in value:
        v4 = value["priority"]
        if type(v4) is not int or not -9223372036854775808 <= v4 <= 9223372036854775807:
            return False
    if "caps" in value:
        v5 = value["caps"]
        if type(v5) is not dict:
            return False
    if "commit_overage_policy" in value:
        v7 = value["commit_overage_policy"]
        if type(v7) is not str or v7 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "reservation_ttl_override" in value:
        v8 = value["reservation_ttl_override"]
        if type(v8) is not dict:
            return False
    if "rate_limits" in value:
        v10 = value["rate_limits"]
        if type(v10) is not dict:
            return False
    if "effective_from" in value:
        v12 = value["effective_from"]
        if type(v12) is not str or not _is_date_time(v12) or not (v12.isascii() or _is_text(v12)):
            return False
    if "effective_until" in value:
        v13 = value["effective_until"]
        if type(v13) is not str or not _is_date_time(v13) or not (v13.isascii() or _is_text(v13)):
            return False
    if "status" in value:
        v14 = value["status"]
        if type(v14) is not str or v14 not in {"ACTIVE", "DISABLED"}:
            return False
    return True


def api_key_create_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("tenant_id")
    if type(v1) is not str or len(v1) < 1 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("name")
    if type(v2) is not str or len(v2) < 1 or len(v2) > 256 or not (v2.isascii() or _is_text(v2)):
        return False
    v3 = 2
    if "description" in value:
        v3 += 1
        v4 = value["description"]
        if type(v4) is not str or not (v4.isascii() or _is_text(v4)):
            return False
    if "permissions" in value:
        v3 += 1
        v5 = value["permissions"]
        if type(v5) is not list:
            return False
        for v6 in v5:
            if type(v6) is not str or not (v6.isascii() or _is_text(v6)):
                return False
    if "scope_filter" in value:
        v3 += 1
        v7 = value["scope_filter"]
        if type(v7) is not list:
            return False
        for v8 in v7:
            if type(v8) is not str or not (v8.isascii() or _is_text(v8)):
                return False
    if "expires_at" in value:
        v3 += 1
        v9 = value["expires_at"]
        if type(v9) is not str or not _is_date_time(v9) or not (v9.isascii() or _is_text(v9)):
            return False
    if "metadata" in value:
        v3 += 1
        v10 = value["metadata"]
        if type(v10) is not dict:
            return False
        for v13 in v10.values():
            if v13 is not None:
                if type(v13) is not str or not (v13.isascii() or _is_text(v13)):
                    return False
    if len(value) != v3:
        return False
    return True


def api_key_update_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "name" in value:
        v1 += 1
        v2 = value["name"]
        if (
            type(v2) is not str
            or len(v2) < 1
            or len(v2) > 256
            or not (v2.isascii() or _is_text(v2))
        ):
            return False
    if "description" in value:
        v1 += 1
        v3 = value["description"]
        if type(v3) is not str or not (v3.isascii() or _is_text(v3)):
            return False
    if "permissions" in value:
        v1 += 1
        v4 = value["permissions"]
        if type(v4) is not list:
            return False
        for v5 in v4:
            if type(v5) is not str or not (v5.isascii() or _is_text(v5)):
                return False
    if "scope_filter" in value:
        v1 += 1
        v6 = value["scope_filter"]
        if type(v6) is not list:
            return False
        for v7 in v6:
            if type(v7) is not str or not (v7.isascii() or _is_text(v7)):
                return False
    if "metadata" in value:
        v1 += 1
        v8 = value["metadata"]
        if type(v8) is not dict:
            return False
        for v11 in v8.values():
            if v11 is not None:
                if type(v11) is not str or not (v11.isascii() or _is_text(v11)):
                    return False
    if len(value) != v1:
        return False
    return True


def api_key_validation_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("key_secret")
    if type(v1) is not str or len(v1) < 1 or not (v1.isascii() or _is_text(v1)):
        return False
    if len(value) != 1:
        return False
    return True


def webhook_create_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("url")
    if type(v1) is not str or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("event_types")
    if type(v2) is not list or len(v2) < 1:
        return False
    for v3 in v2:
        if type(v3) is not str or not (v3.isascii() or _is_text(v3)):
            return False
    v4 = 2
    if "name" in value:
        v4 += 1
        v5 = value["name"]
        if type(v5) is not str or not (v5.isascii() or _is_text(v5)):
            return False
    if "description" in value:
        v4 += 1
        v6 = value["description"]
        if type(v6) is not str or not (v6.isascii() or _is_text(v6)):
            return False
    if "event_categories" in value:
        v4 += 1
        v7 = value["event_categories"]
        if type(v7) is not list:
            return False
        for v8 in v7:
            if type(v8) is not str or not (v8.isascii() or _is_text(v8)):
                return False
    if "scope_filter" in value:
        v4 += 1
        v9 = value["scope_filter"]
        if type(v9) is not str or not (v9.isascii() or _is_text(v9)):
            return False
    if "thresholds" in value:
        v4 += 1
        v10 = value["thresholds"]
        if type(v10) is not dict:
            return False
    if "headers" in value:
        v4 += 1
        v12 = value["headers"]
        if type(v12) is not dict:
            return False
        for v15 in v12.values():
            if v15 is not None:
                if type(v15) is not str or not (v15.isascii() or _is_text(v15)):
                    return False
    if "retry_policy" in value:
        v4 += 1
        v16 = value["retry_policy"]
        if not retry_policy_request(v16):
            return False
    if "disable_after_failures" in value:
        v4 += 1
        v17 = value["disable_after_failures"]
        if type(v17) is not int or not 1 <= v17 <= 9223372036854775807:
            return False
    if "metadata" in value:
        v4 += 1
        v18 = value["metadata"]
        if type(v18) is not dict:
            return False
        for v21 in v18.values():
            if v21 is not None:
                if type(v21) is not str or not (v21.isascii() or _is_text(v21)):
                    return False
    if "signing_secret" in value:
        v4 += 1
        v22 = value["signing_secret"]
        if type(v22) is not str or not (v22.isascii() or _is_text(v22)):
            return False
    if len(value) != v4:
        return False
    return True


def retry_policy_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    if "max_retries" in value:
        v2 = value["max_retries"]
        if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
            return False
    if "initial_delay_ms" in value:
        v3 = value["initial_delay_ms"]
        if type(v3) is not int or not -9223372036854775808 <= v3 <= 9223372036854775807:
            return False
    if "backoff_multiplier" in value:
        v4 = value["backoff_multiplier"]
        if type(v4) is not float and type(v4) is not int:
            return False
    if "max_delay_ms" in value:
        v5 = value["max_delay_ms"]
        if type(v5) is not int or not -9223372036854775808 <= v5 <= 9223372036854775807:
            return False
    return True


def webhook_update_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "name" in value:
        v1 += 1
        v2 = value["name"]
        if type(v2) is not str or not (v2.isascii() or _is_text(v2)):
            return False
    if "description" in value:
        v1 += 1
        v3 = value["description"]
        if type(v3) is not str or not (v3.isascii() or _is_text(v3)):
            return False
    if "url" in value:
        v1 += 1
        v4 = value["url"]
        if type(v4) is not str or not (v4.isascii() or _is_text(v4)):
            return False
    if "event_types" in value:
        v1 += 1
        v5 = value["event_types"]
        if type(v5) is not list:
            return False
        for v6 in v5:
            if type(v6) is not str or not (v6.isascii() or _is_text(v6)):
                return False
    if "event_categories" in value:
        v1 += 1
        v7 = value["event_categories"]
        if type(v7) is not list:
            return False
        for v8 in v7:
            if type(v8) is not str or not (v8.isascii() or _is_text(v8)):
                return False
    if "scope_filter" in value:
        v1 += 1
        v9 = value["scope_filter"]
        if type(v9) is not str or not (v9.isascii() or _is_text(v9)):
            return False
    if "thresholds" in value:
        v1 += 1
        v10 = value["thresholds"]
        if type(v10) is not dict:
            return False
    if "headers" in value:
        v1 += 1
        v12 = value["headers"]
        if type(v12) is not dict:
            return False
        for v15 in v12.values():
            if v15 is not None:
                if type(v15) is not str or not (v15.isascii() or _is_text(v15)):
                    return False
    if "retry_policy" in value:
        v1 += 1
        v16 = value["retry_policy"]
        if not retry_policy_request(v16):
            return False
    if "disable_after_failures" in value:
        v1 += 1
        v17 = value["disable_after_failures"]
        if type(v17) is not int or not 1 <= v17 <= 9223372036854775807:
            return False
    if "metadata" in value:
        v1 += 1
        v18 = value["metadata"]
        if type(v18) is not dict:
            return False
        for v21 in v18.values():
            if v21 is not None:
                if type(v21) is not str or not (v21.isascii() or _is_text(v21)):
                    return False
    if "signing_secret" in value:
        v1 += 1
        v22 = value["signing_secret"]
        if type(v22) is not str or not (v22.isascii() or _is_text(v22)):
            return False
    if "status" in value:
        v1 += 1
        v23 = value["status"]
        if type(v23) is not str or v23 not in {"ACTIVE", "PAUSED", "DISABLED"}:
            return False
    if len(value) != v1:
        return False
    return True


def replay_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("from")
    if type(v1) is not str or not _is_date_time(v1) or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("to")
    if type(v2) is not str or not _is_date_time(v2) or not (v2.isascii() or _is_text(v2)):
        return False
    v3 = 2
    if "event_types" in value:
        v3 += 1
        v4 = value["event_types"]
        if type(v4) is not list:
            return False
        for v5 in v4:
            if type(v5) is not str or not (v5.isascii() or _is_text(v5)):
                return False
    if "max_events" in value:
        v3 += 1
        v6 = value["max_events"]
        if type(v6) is not int or not 1 <= v6 <= 9223372036854775807:
            return False
    if len(value) != v3:
        return False
    return True


def webhook_bulk_action_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("filter")
    if not webhook_filter_request(v1):
        return False
    v2 = value.get("action")
    if type(v2) is not str or v2 not in {"PAUSE", "RESUME", "DELETE"}:
        return False
    v3 = value.get("idempotency_key")
    if type(v3) is not str or len(v3) < 1 or len(v3) > 128 or not (v3.isascii() or _is_text(v3)):
        return False
    v4 = 3
    if "expected_count" in value:
        v4 += 1
        v5 = value["expected_count"]
        if type(v5) is not int or not 0 <= v5 <= 9223372036854775807:
            return False
    if len(value) != v4:
        return False
    return True


def webhook_filter_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "tenant_id" in value:
        v1 += 1
        v2 = value["tenant_id"]
        if type(v2) is not str or not (v2.isascii() or _is_text(v2)):
            return False
    if "status" in value:
        v1 += 1
        v3 = value["status"]
        if type(v3) is not str or v3 not in {"ACTIVE", "PAUSED", "DISABLED"}:
            return False
    if "event_type" in value:
        v1 += 1
        v4 = value["event_type"]
        if type(v4) is not str or not (v4.isascii() or _is_text(v4)):
            return False
    if "search" in value:
        v1 += 1
        v5 = value["search"]
        if type(v5) is not str or len(v5) > 128 or not (v5.isascii() or _is_text(v5)):
            return False
    if len(value) != v1:
        return False
    return True


def webhook_security_config_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    if "blocked_cidr_ranges" in value:
        v2 = value["blocked_cidr_ranges"]
        if type(v2) is not list:
            return False
        for v3 in v2:
            if type(v3) is not str or not (v3.isascii() or _is_text(v3)):
                return False
    if "allowed_url_patterns" in value:
        v4 = value["allowed_url_patterns"]
        if type(v4) is not list:
            return False
        for v5 in v4:
            if type(v5) is not str or not (v5.isascii() or _is_text(v5)):
                return False
    if "allow_http" in value:
        v6 = value["allow_http"]
        if type(v6) is not bool:
            return False
    return True


def action_quota_reset_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("scope")
    if type(v1) is not str or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("window")
    if type(v2) is not str or not (v2.isascii() or _is_text(v2)):
        return False
    v3 = 2
    if "tenant_id" in value:
        v3 += 1
        v4 = value["tenant_id"]
        if type(v4) is not str or not (v4.isascii() or _is_text(v4)):
            return False
    if "action_kind" in value:
        v3 += 1
        v5 = value["action_kind"]
        if type(v5) is not str or not (v5.isascii() or _is_text(v5)):
            return False
    if "risk_class" in value:
        v3 += 1
        v6 = value["risk_class"]
        if type(v6) is not str or not (v6.isascii() or _is_text(v6)):
            return False
    if "window_key" in value:
        v3 += 1
        v7 = value["window_key"]
        if type(v7) is not str or not (v7.isascii() or _is_text(v7)):
            return False
    if "run_id" in value:
        v3 += 1
        v8 = value["run_id"]
        if type(v8) is not str or not (v8.isascii() or _is_text(v8)):
            return False
    if "reason" in value:
        v3 += 1
        v9 = value["reason"]
        if type(v9) is not str or len(v9) > 512 or not (v9.isascii() or _is_text(v9)):
            return False
    if len(value) != v3:
        return False
    return True


def tenant_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("tenant_id")
    if type(v1) is not str:
        return False
    v2 = value.get("name")
    if type(v2) is not str:
        return False
    v3 = value.get("status")
    if type(v3) is not str:
        return False
    v4 = value.get("parent_tenant_id")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("default_commit_overage_policy")
    if v5 is not None:
        if type(v5) is not str:
            return False
    v6 = value.get("default_reservation_ttl_ms")
    if v6 is not None:
        if type(v6) is not int or not -9223372036854775808 <= v6 <= 9223372036854775807:
            return False
    v7 = value.get("max_reservation_ttl_ms")
    if v7 is not None:
        if type(v7) is not int or not -9223372036854775808 <= v7 <= 9223372036854775807:
            return False
    v8 = value.get("max_reservation_extensions")
    if v8 is not None:
        if type(v8) is not int or not -9223372036854775808 <= v8 <= 9223372036854775807:
            return False
    v9 = value.get("reservation_expiry_policy")
    if v9 is not None:
        if type(v9) is not str:
            return False
    v10 = value.get("metadata")
    if v10 is not None:
        if type(v10) is not dict:
            return False
        for v12 in v10.values():
            if v12 is not None:
                if type(v12) is not str:
                    return False
    v13 = value.get("created_at")
    if v13 is not None:
        if type(v13) is not str or not _is_date_time(v13):
            return False
    v14 = value.get("updated_at")
    if v14 is not None:
        if type(v14) is not str or not _is_date_time(v14):
            return False
    v15 = value.get("suspended_at")
    if v15 is not None:
        if type(v15) is not str or not _is_date_time(v15):
            return False
    v16 = value.get("closed_at")
    if v16 is not None:
        if type(v16) is not str or not _is_date_time(v16):
            return False
    return True


def error_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("error")
    if type(v1) is not str:
        return False
    v2 = value.get("message")
    if type(v2) is not str:
        return False
    v3 = value.get("request_id")
    if type(v3) is not str:
        return False
    v4 = value.get("trace_id")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("details")
    if v5 is not None:
        if type(v5) is not dict:
            return False
    return True


def tenant_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("tenants")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not tenant_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def bulk_action_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("action")
    if type(v1) is not str:
        return False
    v2 = value.get("total_matched")
    if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
        return False
    v3 = value.get("succeeded")
    if type(v3) is not list:
        return False
    for v4 in v3:
        if not bulk_row_response(v4):
            return False
    v5 = value.get("failed")
    if type(v5) is not list:
        return False
    for v6 in v5:
        if not bulk_row_response(v6):
            return False
    v7 = value.get("skipped")
    if type(v7) is not list:
        return False
    for v8 in v7:
        if not bulk_row_response(v8):
            return False
    v9 = value.get("idempotency_key")
    if v9 is not None:
        if type(v9) is not str:
            return False
    return True


def bulk_row_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("id")
    if type(v1) is not str:
        return False
    v2 = value.get("error_code")
    if v2 is not None:
        if type(v2) is not str:
            return False
    v3 = value.get("message")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("reason")
    if v4 is not None:
        if type(v4) is not str:
            return False
    return True


def budget_ledger_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("ledger_id")
    if type(v1) is not str:
        return False
    v2 = value.get("scope")
    if type(v2) is not str:
        return False
    v3 = value.get("unit")
    if type(v3) is not str:
        return False
    v4 = value.get("allocated")
    if not signed_amount_response(v4):
        return False
    v5 = value.get("remaining")
    if not signed_amount_response(v5):
        return False
    v6 = value.get("status")
    if type(v6) is not str:
        return False
    v7 = value.get("tenant_id")
    if v7 is not None:
        if type(v7) is not str:
            return False
    v8 = value.get("reserved")
    if v8 is not None:
        if not signed_amount_response(v8):
            return False
    v9 = value.get("spent")
    if v9 is not None:
        if not signed_amount_response(v9):
            return False
    v10 = value.get("debt")
    if v10 is not None:
        if not signed_amount_response(v10):
            return False
    v11 = value.get("overdraft_limit")
    if v11 is not None:
        if not signed_amount_response(v11):
            return False
    v12 = value.get("is_over_limit")
    if v12 is not None:
        if type(v12) is not bool:
            return False
    v13 = value.get("commit_overage_policy")
    if v13 is not None:
        if type(v13) is not str:
            return False
    v14 = value.get("rollover_policy")
    if v14 is not None:
        if type(v14) is not str:
            return False
    v15 = value.get("period_start")
    if v15 is not None:
        if type(v15) is not str or not _is_date_time(v15):
            return False
    v16 = value.get("period_end")
    if v16 is not None:
        if type(v16) is not str or not _is_date_time(v16):
            return False
    v17 = value.get("created_at")
    if v17 is not None:
        if type(v17) is not str or not _is_date_time(v17):
            return False
    v18 = value.get("updated_at")
    if v18 is not None:
        if type(v18) is not str or not _is_date_time(v18):
            return False
    v19 = value.get("metadata")
    if v19 is not None:
        if type(v19) is not dict:
            return False
        for v21 in v19.values():
            if v21 is not None:
                if type(v21) is not str:
                    return False
    return True


def signed_amount_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("unit")
    if type(v1) is not str:
        return False
    v2 = value.get("amount")
    if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
        return False
    return True


def budget_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("ledgers")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not budget_ledger_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def budget_funding_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("operation")
    if type(v1) is not str:
        return False
    v2 = value.get("previous_allocated")
    if not signed_amount_response(v2):
        return False
    v3 = value.get("new_allocated")
    if not signed_amount_response(v3):
        return False
    v4 = value.get("previous_remaining")
    if not signed_amount_response(v4):
        return False
    v5 = value.get("new_remaining")
    if not signed_amount_response(v5):
        return False
    v6 = value.get("previous_debt")
    if v6 is not None:
        if not signed_amount_response(v6):
            return False
    v7 = value.get("new_debt")
    if v7 is not None:
        if not signed_amount_response(v7):
            return False
    v8 = value.get("previous_spent")
    if v8 is not None:
        if not signed_amount_response(v8):
            return False
    v9 = value.get("new_spent")
    if v9 is not None:
        if not signed_amount_response(v9):
            return False
    v10 = value.get("timestamp")
    if v10 is not None:
        if type(v10) is not str or not _is_date_time(v10):
            return False
    return True


def policy_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("policy_id")
    if type(v1) is not str:
        return False
    v2 = value.get("scope_pattern")
    if type(v2) is not str:
        return False
    v3 = value.get("status")
    if type(v3) is not str:
        return False
    v4 = value.get("tenant_id")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("name")
    if v5 is not None:
        if type(v5) is not str:
            return False
    v6 = value.get("description")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("priority")
    if v7 is not None:
        if type(v7) is not int or not -9223372036854775808 <= v7 <= 9223372036854775807:
            return False
    v8 = value.get("caps")
    if v8 is not None:
        if type(v8) is not dict:
            return False
    v9 = value.get("commit_overage_policy")
    if v9 is not None:
        if type(v9) is not str:
            return False
    v10 = value.get("reservation_ttl_override")
    if v10 is not None:
        if type(v10) is not dict:
            return False
    v11 = value.get("rate_limits")
    if v11 is not None:
        if type(v11) is not dict:
            return False
    v12 = value.get("effective_from")
    if v12 is not None:
        if type(v12) is not str or not _is_date_time(v12):
            return False
    v13 = value.get("effective_until")
    if v13 is not None:
        if type(v13) is not str or not _is_date_time(v13):
            return False
    v14 = value.get("created_at")
    if v14 is not None:
        if type(v14) is not str or not _is_date_time(v14):
            return False
    v15 = value.get("updated_at")
    if v15 is not None:
        if type(v15) is not str or not _is_date_time(v15):
            return False
    return True


def policy_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("policies")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not policy_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def api_key_create_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("key_id")
    if type(v1) is not str:
        return False
    v2 = value.get("key_secret")
    if type(v2) is not str:
        return False
    v3 = value.get("key_prefix")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("tenant_id")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("permissions")
    if v5 is not None:
        if type(v5) is not list:
            return False
        for v6 in v5:
            if type(v6) is not str:
                return False
    v7 = value.get("created_at")
    if v7 is not None:
        if type(v7) is not str or not _is_date_time(v7):
            return False
    v8 = value.get("expires_at")
    if v8 is not None:
        if type(v8) is not str or not _is_date_time(v8):
            return False
    return True


def api_key_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("keys")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not api_key_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def api_key_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("key_id")
    if type(v1) is not str:
        return False
    v2 = value.get("tenant_id")
    if type(v2) is not str:
        return False
    v3 = value.get("status")
    if type(v3) is not str:
        return False
    v4 = value.get("key_prefix")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("name")
    if v5 is not None:
        if type(v5) is not str:
            return False
    v6 = value.get("description")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("permissions")
    if v7 is not None:
        if type(v7) is not list:
            return False
        for v8 in v7:
            if type(v8) is not str:
                return False
    v9 = value.get("scope_filter")
    if v9 is not None:
        if type(v9) is not list:
            return False
        for v10 in v9:
            if type(v10) is not str:
                return False
    v11 = value.get("created_at")
    if v11 is not None:
        if type(v11) is not str or not _is_date_time(v11):
            return False
    v12 = value.get("expires_at")
    if v12 is not None:
        if type(v12) is not str or not _is_date_time(v12):
            return False
    v13 = value.get("last_used_at")
    if v13 is not None:
        if type(v13) is not str or not _is_date_time(v13):
            return False
    v14 = value.get("revoked_at")
    if v14 is not None:
        if type(v14) is not str or not _is_date_time(v14):
            return False
    v15 = value.get("revoked_reason")
    if v15 is not None:
        if type(v15) is not str:
            return False
    v16 = value.get("metadata")
    if v16 is not None:
        if type(v16) is not dict:
            return False
        for v18 in v16.values():
            if v18 is not None:
                if type(v18) is not str:
                    return False
    return True


def api_key_validation_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("valid")
    if type(v1) is not bool:
        return False
    v2 = value.get("tenant_id")
    if v2 is not None:
        if type(v2) is not str:
            return False
    v3 = value.get("key_id")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("permissions")
    if v4 is not None:
        if type(v4) is not list:
            return False
        for v5 in v4:
            if type(v5) is not str:
                return False
    v6 = value.get("scope_filter")
    if v6 is not None:
        if type(v6) is not list:
            return False
        for v7 in v6:
            if type(v7) is not str:
                return False
    v8 = value.get("expires_at")
    if v8 is not None:
        if type(v8) is not str or not _is_date_time(v8):
            return False
    v9 = value.get("reason")
    if v9 is not None:
        if type(v9) is not str:
            return False
    return True


def auth_introspect_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("authenticated")
    if type(v1) is not bool:
        return False
    v2 = value.get("auth_type")
    if v2 is not None:
        if type(v2) is not str:
            return False
    v3 = value.get("permissions")
    if v3 is not None:
        if type(v3) is not list:
            return False
        for v4 in v3:
            if type(v4) is not str:
                return False
    v5 = value.get("capabilities")
    if v5 is not None:
        if type(v5) is not dict:
            return False
        for v7 in v5.values():
            if v7 is not None:
                if type(v7) is not bool:
                    return False
    v8 = value.get("tenant_id")
    if v8 is not None:
        if type(v8) is not str:
            return False
    v9 = value.get("scope_filter")
    if v9 is not None:
        if type(v9) is not list:
            return False
        for v10 in v9:
            if type(v10) is not str:
                return False
    return True


def webhook_create_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("subscription")
    if not webhook_subscription_response(v1):
        return False
    v2 = value.get("signing_secret")
    if v2 is not None:
        if type(v2) is not str:
            return False
    return True


def webhook_subscription_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("subscription_id")
    if type(v1) is not str:
        return False
    v2 = value.get("url")
    if type(v2) is not str:
        return False
    v3 = value.get("event_types")
    if type(v3) is not list:
        return False
    for v4 in v3:
        if type(v4) is not str:
            return False
    v5 = value.get("status")
    if type(v5) is not str:
        return False
    v6 = value.get("tenant_id")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("name")
    if v7 is not None:
        if type(v7) is not str:
            return False
    v8 = value.get("description")
    if v8 is not None:
        if type(v8) is not str:
            return False
    v9 = value.get("event_categories")
    if v9 is not None:
        if type(v9) is not list:
            return False
        for v10 in v9:
            if type(v10) is not str:
                return False
    v11 = value.get("scope_filter")
    if v11 is not None:
        if type(v11) is not str:
            return False
    v12 = value.get("thresholds")
    if v12 is not None:
        if type(v12) is not dict:
            return False
    v13 = value.get("headers")
    if v13 is not None:
        if type(v13) is not dict:
            return False
        for v15 in v13.values():
            if v15 is not None:
                if type(v15) is not str:
                    return False
    v16 = value.get("retry_policy")
    if v16 is not None:
        if not retry_policy_response(v16):
            return False
    v17 = value.get("disable_after_failures")
    if v17 is not None:
        if type(v17) is not int or not -9223372036854775808 <= v17 <= 9223372036854775807:
            return False
    v18 = value.get("metadata")
    if v18 is not None:
        if type(v18) is not dict:
            return False
        for v20 in v18.values():
            if v20 is not None:
                if type(v20) is not str:
                    return False
    v21 = value.get("consecutive_failures")
    if v21 is not None:
        if type(v21) is not int or not -9223372036854775808 <= v21 <= 9223372036854775807:
            return False
    v22 = value.get("created_at")
    if v22 is not None:
        if type(v22) is not str or not _is_date_time(v22):
            return False
    v23 = value.get("updated_at")
    if v23 is not None:
        if type(v23) is not str or not _is_date_time(v23):
            return False
    v24 = value.get("last_triggered_at")
    if v24 is not None:
        if type(v24) is not str or not _is_date_time(v24):
            return False
    v25 = value.get("last_success_at")
    if v25 is not None:
        if type(v25) is not str or not _is_date_time(v25):
            return False
    v26 = value.get("last_failure_at")
    if v26 is not None:
        if type(v26) is not str or not _is_date_time(v26):
            return False
    return True


def retry_policy_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("max_retries")
    if v1 is not None:
        if type(v1) is not int or not -9223372036854775808 <= v1 <= 9223372036854775807:
            return False
    v2 = value.get("initial_delay_ms")
    if v2 is not None:
        if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
            return False
    v3 = value.get("backoff_multiplier")
    if v3 is not None:
        if type(v3) is not float and type(v3) is not int:
            return False
    v4 = value.get("max_delay_ms")
    if v4 is not None:
        if type(v4) is not int or not -9223372036854775808 <= v4 <= 9223372036854775807:
            return False
    return True


def webhook_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("subscriptions")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not webhook_subscription_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def webhook_test_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("success")
    if type(v1) is not bool:
        return False
    v2 = value.get("response_status")
    if v2 is not None:
        if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
            return False
    v3 = value.get("response_time_ms")
    if v3 is not None:
        if type(v3) is not int or not -9223372036854775808 <= v3 <= 9223372036854775807:
            return False
    v4 = value.get("error_message")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("event_id")
    if v5 is not None:
        if type(v5) is not str:
            return False
    return True


def webhook_delivery_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("deliveries")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not webhook_delivery_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def webhook_delivery_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("delivery_id")
    if type(v1) is not str:
        return False
    v2 = value.get("subscription_id")
    if v2 is not None:
        if type(v2) is not str:
            return False
    v3 = value.get("event_id")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("event_type")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("status")
    if v5 is not None:
        if type(v5) is not str:
            return False
    v6 = value.get("attempts")
    if v6 is not None:
        if type(v6) is not int or not -9223372036854775808 <= v6 <= 9223372036854775807:
            return False
    v7 = value.get("response_status")
    if v7 is not None:
        if type(v7) is not int or not -9223372036854775808 <= v7 <= 9223372036854775807:
            return False
    v8 = value.get("error_message")
    if v8 is not None:
        if type(v8) is not str:
            return False
    v9 = value.get("attempted_at")
    if v9 is not None:
        if type(v9) is not str or not _is_date_time(v9):
            return False
    v10 = value.get("completed_at")
    if v10 is not None:
        if type(v10) is not str or not _is_date_time(v10):
            return False
    v11 = value.get("next_retry_at")
    if v11 is not None:
        if type(v11) is not str or not _is_date_time(v11):
            return False
    return True


def replay_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("replay_id")
    if type(v1) is not str:
        return False
    v2 = value.get("events_queued")
    if v2 is not None:
        if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
            return False
    v3 = value.get("estimated_completion_seconds")
    if v3 is not None:
        if type(v3) is not int or not -9223372036854775808 <= v3 <= 9223372036854775807:
            return False
    return True


def webhook_security_config_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("blocked_cidr_ranges")
    if v1 is not None:
        if type(v1) is not list:
            return False
        for v2 in v1:
            if type(v2) is not str:
                return False
    v3 = value.get("allowed_url_patterns")
    if v3 is not None:
        if type(v3) is not list:
            return False
        for v4 in v3:
            if type(v4) is not str:
                return False
    v5 = value.get("allow_http")
    if v5 is not None:
        if type(v5) is not bool:
            return False
    return True


def event_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("events")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not event_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def event_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("event_id")
    if type(v1) is not str:
        return False
    v2 = value.get("event_type")
    if type(v2) is not str:
        return False
    v3 = value.get("timestamp")
    if type(v3) is not str or not _is_date_time(v3):
        return False
    v4 = value.get("category")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("tenant_id")
    if v5 is not None:
        if type(v5) is not str:
            return False
    v6 = value.get("scope")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("actor")
    if v7 is not None:
        if type(v7) is not dict:
            return False
    v8 = value.get("source")
    if v8 is not None:
        if type(v8) is not str:
            return False
    v9 = value.get("data")
    if v9 is not None:
        if type(v9) is not dict:
            return False
    v10 = value.get("correlation_id")
    if v10 is not None:
        if type(v10) is not str:
            return False
    v11 = value.get("request_id")
    if v11 is not None:
        if type(v11) is not str:
            return False
    v12 = value.get("trace_id")
    if v12 is not None:
        if type(v12) is not str:
            return False
    v13 = value.get("metadata")
    if v13 is not None:
        if type(v13) is not dict:
            return False
    return True


def audit_log_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("logs")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not audit_log_entry_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def audit_log_entry_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("log_id")
    if type(v1) is not str:
        return False
    v2 = value.get("timestamp")
    if type(v2) is not str or not _is_date_time(v2):
        return False
    v3 = value.get("tenant_id")
    if type(v3) is not str:
        return False
    v4 = value.get("operation")
    if type(v4) is not str:
        return False
    v5 = value.get("status")
    if type(v5) is not int or not -9223372036854775808 <= v5 <= 9223372036854775807:
        return False
    v6 = value.get("key_id")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("user_agent")
    if v7 is not None:
        if type(v7) is not str:
            return False
    v8 = value.get("source_ip")
    if v8 is not None:
        if type(v8) is not str:
            return False
    v9 = value.get("resource_type")
    if v9 is not None:
        if type(v9) is not str:
            return False
    v10 = value.get("resource_id")
    if v10 is not None:
        if type(v10) is not str:
            return False
    v11 = value.get("request_id")
    if v11 is not None:
        if type(v11) is not str:
            return False
    v12 = value.get("trace_id")
    if v12 is not None:
        if type(v12) is not str:
            return False
    v13 = value.get("error_code")
    if v13 is not None:
        if type(v13) is not str:
            return False
    v14 = value.get("metadata")
    if v14 is not None:
        if type(v14) is not dict:
            return False
    return True


def admin_overview_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("as_of")
    if v1 is not None:
        if type(v1) is not str or not _is_date_time(v1):
            return False
    v2 = value.get("event_window_seconds")
    if v2 is not None:
        if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
            return False
    v3 = value.get("tenant_counts")
    if v3 is not None:
        if type(v3) is not dict:
            return False
    v4 = value.get("budget_counts")
    if v4 is not None:
        if type(v4) is not dict:
            return False
    v5 = value.get("webhook_counts")
    if v5 is not None:
        if type(v5) is not dict:
            return False
    v6 = value.get("event_counts")
    if v6 is not None:
        if type(v6) is not dict:
            return False
    v7 = value.get("over_limit_scopes")
    if v7 is not None:
        if type(v7) is not list:
            return False
        for v8 in v7:
            if type(v8) is not dict:
                return False
    v9 = value.get("debt_scopes")
    if v9 is not None:
        if type(v9) is not list:
            return False
        for v10 in v9:
            if type(v10) is not dict:
                return False
    v11 = value.get("failing_webhooks")
    if v11 is not None:
        if type(v11) is not list:
            return False
        for v12 in v11:
            if type(v12) is not dict:
                return False
    v13 = value.get("recent_denials")
    if v13 is not None:
        if type(v13) is not list:
            return False
        for v14 in v13:
            if type(v14) is not dict:
                return False
    v15 = value.get("recent_expiries")
    if v15 is not None:
        if type(v15) is not list:
            return False
        for v16 in v15:
            if type(v16) is not dict:
                return False
    return True


def balance_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("balances")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not budget_ledger_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def action_quota_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("counters")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not action_quota_state_response(v2):
            return False
    v3 = value.get("has_more")
    if v3 is not None:
        if type(v3) is not bool:
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if v4 is not None:
            if type(v4) is not str:
                return False
    return True


def action_quota_state_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("action_kind")
    if type(v1) is not str:
        return False
    v2 = value.get("scope")
    if type(v2) is not str:
        return False
    v3 = value.get("window")
    if type(v3) is not str:
        return False
    v4 = value.get("used")
    if type(v4) is not int or not -9223372036854775808 <= v4 <= 9223372036854775807:
        return False
    v5 = value.get("limit")
    if type(v5) is not int or not -9223372036854775808 <= v5 <= 9223372036854775807:
        return False
    v6 = value.get("risk_class")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("scope_path")
    if v7 is not None:
        if type(v7) is not str:
            return False
    v8 = value.get("window_key")
    if v8 is not None:
        if type(v8) is not str:
            return False
    v9 = value.get("remaining")
    if v9 is not None:
        if type(v9) is not int or not -9223372036854775808 <= v9 <= 9223372036854775807:
            return False
    v10 = value.get("policy_id")
    if v10 is not None:
        if type(v10) is not str:
            return False
    v11 = value.get("expires_at")
    if v11 is not None:
        if type(v11) is not str or not _is_date_time(v11):
            return False
    v12 = value.get("last_incremented_at")
    if v12 is not None:
        if type(v12) is not str or not _is_date_time(v12):
            return False
    return True


def action_quota_reset_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("counter")
    if not action_quota_state_response(v1):
        return False
    v2 = value.get("previous_used")
    if v2 is not None:
        if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
            return False
    return True


def status_parameter(value: Any) -> bool:
    if type(value) is not str or value not in {"ACTIVE", "SUSPENDED", "CLOSED"}:
        return False
    return True


def parent_tenant_id_parameter(value: Any) -> bool:
    if type(value) is not str or not (value.isascii() or _is_text(value)):
        return False
    return True


def search_parameter(value: Any) -> bool:
    if type(value) is not str or len(value) > 128 or not (value.isascii() or _is_text(value)):
        return False
    return True


def sort_dir_parameter(value: Any) -> bool:
    if type(value) is not str or value not in {"asc", "desc"}:
        return False
    return True


def limit_parameter(value: Any) -> bool:
    if type(value) is not int or not 1 <= value <= 100:
        return False
    return True


def unit_parameter(value: Any) -> bool:
    if type(value) is not str or value not in {
        "USD_MICROCENTS",
        "TOKENS",
        "CREDITS",
        "RISK_POINTS",
    }:
        return False
    return True


def status_parameter_64(value: Any) -> bool:
    if type(value) is not str or value not in {"ACTIVE", "FROZEN", "CLOSED"}:
        return False
    return True


def over_limit_parameter(value: Any) -> bool:
    if type(value) is not bool:
        return False
    return True


def utilization_min_parameter(value: Any) -> bool:
    if type(value) is not float and type(value) is not int:
        return False
    return True


def status_parameter_67(value: Any) -> bool:
    if type(value) is not str or value not in {"ACTIVE", "REVOKED", "EXPIRED"}:
        return False
    return True


def reason_parameter(value: Any) -> bool:
    if type(value) is not str or len(value) > 512 or not (value.isascii() or _is_text(value)):
        return False
    return True


def status_parameter_69(value: Any) -> bool:
    if type(value) is not str or value not in {"ACTIVE", "PAUSED", "DISABLED"}:
        return False
    return True


def from__parameter(value: Any) -> bool:
    if (
        type(value) is not str
        or not _is_date_time(value)
        or not (value.isascii() or _is_text(value))
    ):
        return False
    return True


def operation_parameter(value: Any) -> bool:
    if type(value) is not list or len(value) > 25:
        return False
    for v1 in value:
        if type(v1) is not str or not (v1.isascii() or _is_text(v1)):
            return False
    return True


def status_parameter_72(value: Any) -> bool:
    if type(value) is not int or not -9223372036854775808 <= value <= 9223372036854775807:
        return False
    return True


def limit_parameter_73(value: Any) -> bool:
    if type(value) is not int or not 1 <= value <= 200:
        return False
    return True


REQUESTS: dict[str, Callable[[Any], bool]] = {
    "TenantCreateRequest": tenant_create_request,
    "TenantUpdateRequest": tenant_update_request,
    "TenantBulkActionRequest": tenant_bulk_action_request,
    "BudgetCreateRequest": budget_create_request,
    "BudgetUpdateRequest": budget_update_request,
    "BudgetFundingRequest": budget_funding_request,
    "BudgetFreezeRequest": budget_freeze_request,
    "BudgetBulkActionRequest": budget_bulk_action_request,
    "PolicyCreateRequest": policy_create_request,
    "PolicyUpdateRequest": policy_update_request,
    "ApiKeyCreateRequest": api_key_create_request,
    "ApiKeyUpdateRequest": api_key_update_request,
    "ApiKeyValidationRequest": api_key_validation_request,
    "WebhookCreateRequest": webhook_create_request,
    "WebhookUpdateRequest": webhook_update_request,
    "ReplayRequest": replay_request,
    "WebhookBulkActionRequest": webhook_bulk_action_request,
    "WebhookSecurityConfig": webhook_security_config_request,
    "ActionQuotaResetRequest": action_quota_reset_request,
}

RESPONSES: dict[str, Callable[[Any], bool]] = {
    "Tenant": tenant_response,
    "ErrorResponse": error_response,
    "TenantListResponse": tenant_list_response,
    "BulkActionResponse": bulk_action_response,
    "BudgetLedger": budget_ledger_response,
    "BudgetListResponse": budget_list_response,
    "BudgetFundingResponse": budget_funding_response,
    "Policy": policy_response,
    "PolicyListResponse": policy_list_response,
    "ApiKeyCreateResponse": api_key_create_response,
    "ApiKeyListResponse": api_key_list_response,
    "ApiKey": api_key_response,
    "ApiKeyValidationResponse": api_key_validation_response,
    "AuthIntrospectResponse": auth_introspect_response,
    "WebhookCreateResponse": webhook_create_response,
    "WebhookListResponse": webhook_list_response,
    "WebhookSubscription": webhook_subscription_response,
    "WebhookTestResponse": webhook_test_response,
    "WebhookDeliveryListResponse": webhook_delivery_list_response,
    "ReplayResponse": replay_response,
    "WebhookSecurityConfig": webhook_security_config_response,
    "EventListResponse": event_list_response,
    "Event": event_response,
    "AuditLogListResponse": audit_log_list_response,
    "AdminOverviewResponse": admin_overview_response,
    "BalanceResponse": balance_response,
    "ActionQuotaListResponse": action_quota_list_response,
    "ActionQuotaResetResponse": action_quota_reset_response,
}

PARAMETERS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "createTenant": {},
    "listTenants": {
        "status": status_parameter,
        "parent_tenant_id": parent_tenant_id_parameter,
        "observe_mode": parent_tenant_id_parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "getTenant": {"tenant_id": parent_tenant_id_parameter},
    "updateTenant": {"tenant_id": parent_tenant_id_parameter},
    "bulkActionTenants": {},
    "createBudget": {},
    "listBudgets": {
        "tenant_id": parent_tenant_id_parameter,
        "scope_prefix": parent_tenant_id_parameter,
        "unit": unit_parameter,
        "status": status_parameter_64,
        "over_limit": over_limit_parameter,
        "has_debt": over_limit_parameter,
        "utilization_min": utilization_min_parameter,
        "utilization_max": utilization_min_parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "updateBudget": {"scope": parent_tenant_id_parameter, "unit": unit_parameter},
    "lookupBudget": {"scope": parent_tenant_id_parameter, "unit": unit_parameter},
    "fundBudget": {
        "scope": parent_tenant_id_parameter,
        "unit": unit_parameter,
        "tenant_id": parent_tenant_id_parameter,
    },
    "freezeBudget": {"scope": parent_tenant_id_parameter, "unit": unit_parameter},
    "unfreezeBudget": {"scope": parent_tenant_id_parameter, "unit": unit_parameter},
    "bulkActionBudgets": {},
    "createPolicy": {},
    "listPolicies": {
        "tenant_id": parent_tenant_id_parameter,
        "scope_pattern": parent_tenant_id_parameter,
        "status": parent_tenant_id_parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "updatePolicy": {"policy_id": parent_tenant_id_parameter},
    "createApiKey": {},
    "listApiKeys": {
        "tenant_id": parent_tenant_id_parameter,
        "status": status_parameter_67,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "updateApiKey": {"key_id": parent_tenant_id_parameter},
    "revokeApiKey": {"key_id": parent_tenant_id_parameter, "reason": reason_parameter},
    "validateApiKey": {},
    "introspectAuth": {},
    "createWebhookSubscription": {"tenant_id": parent_tenant_id_parameter},
    "listWebhookSubscriptions": {
        "tenant_id": parent_tenant_id_parameter,
        "status": status_parameter_69,
        "event_type": parent_tenant_id_parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "getWebhookSubscription": {"subscription_id": parent_tenant_id_parameter},
    "updateWebhookSubscription": {"subscription_id": parent_tenant_id_parameter},
    "deleteWebhookSubscription": {"subscription_id": parent_tenant_id_parameter},
    "testWebhookSubscription": {"subscription_id": parent_tenant_id_parameter},
    "listWebhookDeliveries": {
        "subscription_id": parent_tenant_id_parameter,
        "status": parent_tenant_id_parameter,
        "from": from__parameter,
        "to": from__parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "replayEvents": {"subscription_id": parent_tenant_id_parameter},
    "bulkActionWebhooks": {},
    "getWebhookSecurityConfig": {},
    "updateWebhookSecurityConfig": {},
    "createTenantWebhook": {},
    "listTenantWebhooks": {
        "tenant": parent_tenant_id_parameter,
        "status": status_parameter_69,
        "event_type": parent_tenant_id_parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "getTenantWebhook": {"subscription_id": parent_tenant_id_parameter},
    "updateTenantWebhook": {"subscription_id": parent_tenant_id_parameter},
    "deleteTenantWebhook": {"subscription_id": parent_tenant_id_parameter},
    "testTenantWebhook": {"subscription_id": parent_tenant_id_parameter},
    "listTenantWebhookDeliveries": {
        "subscription_id": parent_tenant_id_parameter,
        "status": parent_tenant_id_parameter,
        "from": from__parameter,
        "to": from__parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "listEvents": {
        "tenant_id": parent_tenant_id_parameter,
        "event_type": parent_tenant_id_parameter,
        "category": parent_tenant_id_parameter,
        "scope": parent_tenant_id_parameter,
        "correlation_id": parent_tenant_id_parameter,
        "from": from__parameter,
        "to": from__parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "getEvent": {"event_id": parent_tenant_id_parameter},
    "listTenantEvents": {
        "event_type": parent_tenant_id_parameter,
        "category": parent_tenant_id_parameter,
        "scope": parent_tenant_id_parameter,
        "correlation_id": parent_tenant_id_parameter,
        "from": from__parameter,
        "to": from__parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "listAuditLogs": {
        "tenant_id": parent_tenant_id_parameter,
        "key_id": parent_tenant_id_parameter,
        "operation": operation_parameter,
        "resource_type": operation_parameter,
        "resource_id": parent_tenant_id_parameter,
        "error_code": operation_parameter,
        "error_code_exclude": operation_parameter,
        "status": status_parameter_72,
        "status_min": status_parameter_72,
        "status_max": status_parameter_72,
        "request_id": parent_tenant_id_parameter,
        "trace_id": parent_tenant_id_parameter,
        "from": from__parameter,
        "to": from__parameter,
        "search": search_parameter,
        "sort_by": parent_tenant_id_parameter,
        "sort_dir": sort_dir_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "getAdminOverview": {},
    "getBalances": {
        "tenant": parent_tenant_id_parameter,
        "scope_prefix": parent_tenant_id_parameter,
        "unit": unit_parameter,
        "limit": limit_parameter,
        "cursor": parent_tenant_id_parameter,
    },
    "listActionQuotaCounters": {
        "tenant_id": parent_tenant_id_parameter,
        "scope": parent_tenant_id_parameter,
        "action_kind": parent_tenant_id_parameter,
        "window": parent_tenant_id_parameter,
        "run_id": parent_tenant_id_parameter,
        "include_zero": over_limit_parameter,
        "limit": limit_parameter_73,
        "cursor": parent_tenant_id_parameter,
    },
    "resetActionQuotaCounter": {},
}
