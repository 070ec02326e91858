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


def decision_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("idempotency_key")
    if type(v1) is not str or len(v1) < 1 or len(v1) > 256 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("subject")
    if not subject_request(v2):
        return False
    v3 = value.get("action")
    if not action_request(v3):
        return False
    v4 = value.get("estimate")
    if not amount_request(v4):
        return False
    v5 = 4
    if "metadata" in value:
        v5 += 1
        v6 = value["metadata"]
        if type(v6) is not dict:
            return False
    if len(value) != v5:
        return False
    return True


def subject_request(value: Any) -> bool:
    if type(value) is not dict or len(value) < 1:
        return False
    v1 = 0
    if "tenant" in value:
        v1 += 1
        v2 = value["tenant"]
        if type(v2) is not str or len(v2) > 128 or not (v2.isascii() or _is_text(v2)):
            return False
    if "workspace" in value:
        v1 += 1
        v3 = value["workspace"]
        if type(v3) is not str or len(v3) > 128 or not (v3.isascii() or _is_text(v3)):
            return False
    if "app" in value:
        v1 += 1
        v4 = value["app"]
        if type(v4) is not str or len(v4) > 128 or not (v4.isascii() or _is_text(v4)):
            return False
    if "workflow" in value:
        v1 += 1
        v5 = value["workflow"]
        if type(v5) is not str or len(v5) > 128 or not (v5.isascii() or _is_text(v5)):
            return False
    if "agent" in value:
        v1 += 1
        v6 = value["agent"]
        if type(v6) is not str or len(v6) > 128 or not (v6.isascii() or _is_text(v6)):
            return False
    if "toolset" in value:
        v1 += 1
        v7 = value["toolset"]
        if type(v7) is not str or len(v7) > 128 or not (v7.isascii() or _is_text(v7)):
            return False
    if "dimensions" in value:
        v1 += 1
        v8 = value["dimensions"]
        if type(v8) is not dict or len(v8) > 16:
            return False
        for v11 in v8.values():
            if v11 is not None:
                if type(v11) is not str or len(v11) > 256 or not (v11.isascii() or _is_text(v11)):
                    return False
    if len(value) != v1:
        return False
    if not (
        "tenant" in value
        or "workspace" in value
        or "app" in value
        or "workflow" in value
        or "agent" in value
        or "toolset" in value
    ):
        return False
    return True


def action_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("kind")
    if type(v1) is not str or len(v1) > 64 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("name")
    if type(v2) is not str or len(v2) > 256 or not (v2.isascii() or _is_text(v2)):
        return False
    v3 = 2
    if "tags" in value:
        v3 += 1
        v4 = value["tags"]
        if type(v4) is not list or len(v4) > 10:
            return False
        for v5 in v4:
            if type(v5) is not str or len(v5) > 64 or not (v5.isascii() or _is_text(v5)):
                return False
    if "policy_keys" in value:
        v3 += 1
        v6 = value["policy_keys"]
        if not action_policy_keys_request(v6):
            return False
    if len(value) != v3:
        return False
    return True


def action_policy_keys_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "host" in value:
        v1 += 1
        v2 = value["host"]
        if type(v2) is not str or len(v2) > 253 or not (v2.isascii() or _is_text(v2)):
            return False
    if "recipient_domain" in value:
        v1 += 1
        v3 = value["recipient_domain"]
        if type(v3) is not str or len(v3) > 253 or not (v3.isascii() or _is_text(v3)):
            return False
    if "resource_type" in value:
        v1 += 1
        v4 = value["resource_type"]
        if type(v4) is not str or len(v4) > 128 or not (v4.isascii() or _is_text(v4)):
            return False
    if "path_prefix" in value:
        v1 += 1
        v5 = value["path_prefix"]
        if type(v5) is not str or len(v5) > 512 or not (v5.isascii() or _is_text(v5)):
            return False
    if "custom" in value:
        v1 += 1
        v6 = value["custom"]
        if type(v6) is not dict or len(v6) > 8:
            return False
        for v9 in v6.values():
            if v9 is not None:
                if type(v9) is not str or len(v9) > 256 or not (v9.isascii() or _is_text(v9)):
                    return False
    if len(value) != v1:
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


def reservation_create_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("idempotency_key")
    if type(v1) is not str or len(v1) < 1 or len(v1) > 256 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("subject")
    if not subject_request(v2):
        return False
    v3 = value.get("action")
    if not action_request(v3):
        return False
    v4 = value.get("estimate")
    if not amount_request(v4):
        return False
    v5 = 4
    if "ttl_ms" in value:
        v5 += 1
        v6 = value["ttl_ms"]
        if type(v6) is not int or not 1000 <= v6 <= 86400000:
            return False
    if "grace_period_ms" in value:
        v5 += 1
        v7 = value["grace_period_ms"]
        if type(v7) is not int or not 0 <= v7 <= 60000:
            return False
    if "overage_policy" in value:
        v5 += 1
        v8 = value["overage_policy"]
        if type(v8) is not str or v8 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "dry_run" in value:
        v5 += 1
        v9 = value["dry_run"]
        if type(v9) is not bool:
            return False
    if "metadata" in value:
        v5 += 1
        v10 = value["metadata"]
        if type(v10) is not dict:
            return False
    if "observe_mode" in value:
        v5 += 1
        v12 = value["observe_mode"]
        if type(v12) is not str or v12 not in {"DISABLED", "OBSERVE", "ENFORCE"}:
            return False
    if len(value) != v5:
        return False
    return True


def commit_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("idempotency_key")
    if type(v1) is not str or len(v1) < 1 or len(v1) > 256 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("actual")
    if not amount_request(v2):
        return False
    v3 = 2
    if "metrics" in value:
        v3 += 1
        v4 = value["metrics"]
        if not standard_metrics_request(v4):
            return False
    if "metadata" in value:
        v3 += 1
        v5 = value["metadata"]
        if type(v5) is not dict:
            return False
    if len(value) != v3:
        return False
    return True


def standard_metrics_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = 0
    if "tokens_input" in value:
        v1 += 1
        v2 = value["tokens_input"]
        if type(v2) is not int or not 0 <= v2 <= 9223372036854775807:
            return False
    if "tokens_output" in value:
        v1 += 1
        v3 = value["tokens_output"]
        if type(v3) is not int or not 0 <= v3 <= 9223372036854775807:
            return False
    if "latency_ms" in value:
        v1 += 1
        v4 = value["latency_ms"]
        if type(v4) is not int or not 0 <= v4 <= 9223372036854775807:
            return False
    if "model_version" in value:
        v1 += 1
        v5 = value["model_version"]
        if type(v5) is not str or len(v5) > 128 or not (v5.isascii() or _is_text(v5)):
            return False
    if "custom" in value:
        v1 += 1
        v6 = value["custom"]
        if type(v6) is not dict:
            return False
    if len(value) != v1:
        return False
    return True


def release_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("idempotency_key")
    if type(v1) is not str or len(v1) < 1 or len(v1) > 256 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = 1
    if "reason" in value:
        v2 += 1
        v3 = value["reason"]
        if type(v3) is not str or len(v3) > 256 or not (v3.isascii() or _is_text(v3)):
            return False
    if len(value) != v2:
        return False
    return True


def reservation_extend_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("idempotency_key")
    if type(v1) is not str or len(v1) < 1 or len(v1) > 256 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("extend_by_ms")
    if type(v2) is not int or not 1 <= v2 <= 86400000:
        return False
    v3 = 2
    if "metadata" in value:
        v3 += 1
        v4 = value["metadata"]
        if type(v4) is not dict:
            return False
    if len(value) != v3:
        return False
    return True


def event_create_request(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("idempotency_key")
    if type(v1) is not str or len(v1) < 1 or len(v1) > 256 or not (v1.isascii() or _is_text(v1)):
        return False
    v2 = value.get("subject")
    if not subject_request(v2):
        return False
    v3 = value.get("action")
    if not action_request(v3):
        return False
    v4 = value.get("actual")
    if not amount_request(v4):
        return False
    v5 = 4
    if "overage_policy" in value:
        v5 += 1
        v6 = value["overage_policy"]
        if type(v6) is not str or v6 not in {
            "REJECT",
            "ALLOW_IF_AVAILABLE",
            "ALLOW_WITH_OVERDRAFT",
        }:
            return False
    if "metrics" in value:
        v5 += 1
        v7 = value["metrics"]
        if not standard_metrics_request(v7):
            return False
    if "client_time_ms" in value:
        v5 += 1
        v8 = value["client_time_ms"]
        if type(v8) is not int or not 0 <= v8 <= 9223372036854775807:
            return False
    if "metadata" in value:
        v5 += 1
        v9 = value["metadata"]
        if type(v9) is not dict:
            return False
    if len(value) != v5:
        return False
    return True


def decision_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("decision")
    if type(v1) is not str:
        return False
    v2 = value.get("caps")
    if v2 is not None:
        if not caps_response(v2):
            return False
    v3 = value.get("reason_code")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("retry_after_ms")
    if v4 is not None:
        if type(v4) is not int or not -9223372036854775808 <= v4 <= 9223372036854775807:
            return False
    v5 = value.get("affected_scopes")
    if v5 is not None:
        if type(v5) is not list:
            return False
        for v6 in v5:
            if type(v6) is not str:
                return False
    v7 = value.get("cycles_evidence")
    if v7 is not None:
        if not cycles_evidence_ref_response(v7):
            return False
    return True


def caps_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("max_tokens")
    if v1 is not None:
        if type(v1) is not int or not -9223372036854775808 <= v1 <= 9223372036854775807:
            return False
    v2 = value.get("max_steps_remaining")
    if v2 is not None:
        if type(v2) is not int or not -9223372036854775808 <= v2 <= 9223372036854775807:
            return False
    v3 = value.get("tool_allowlist")
    if v3 is not None:
        if type(v3) is not list:
            return False
        for v4 in v3:
            if type(v4) is not str or len(v4) > 256:
                return False
    v5 = value.get("tool_denylist")
    if v5 is not None:
        if type(v5) is not list:
            return False
        for v6 in v5:
            if type(v6) is not str or len(v6) > 256:
                return False
    v7 = value.get("cooldown_ms")
    if v7 is not None:
        if type(v7) is not int or not -9223372036854775808 <= v7 <= 9223372036854775807:
            return False
    return True


def cycles_evidence_ref_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("evidence_id")
    if type(v1) is not str or not _search("^[0-9a-f]{64}\\Z")(v1):
        return False
    v2 = value.get("cycles_evidence_url")
    if type(v2) is not str:
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
    v6 = value.get("cycles_evidence")
    if v6 is not None:
        if not cycles_evidence_ref_response(v6):
            return False
    return True


def reservation_create_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("decision")
    if type(v1) is not str:
        return False
    v2 = value.get("affected_scopes")
    if type(v2) is not list:
        return False
    for v3 in v2:
        if type(v3) is not str:
            return False
    v4 = value.get("reservation_id")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("reserved")
    if v5 is not None:
        if not amount_response(v5):
            return False
    v6 = value.get("expires_at_ms")
    if v6 is not None:
        if type(v6) is not int or not -9223372036854775808 <= v6 <= 9223372036854775807:
            return False
    v7 = value.get("remaining_ttl_ms")
    if v7 is not None:
        if type(v7) is not int or not -9223372036854775808 <= v7 <= 9223372036854775807:
            return False
    v8 = value.get("scope_path")
    if v8 is not None:
        if type(v8) is not str:
            return False
    v9 = value.get("caps")
    if v9 is not None:
        if not caps_response(v9):
            return False
    v10 = value.get("balances")
    if v10 is not None:
        if type(v10) is not list:
            return False
        for v11 in v10:
            if not balance_response(v11):
                return False
    v12 = value.get("reason_code")
    if v12 is not None:
        if type(v12) is not str:
            return False
    v13 = value.get("retry_after_ms")
    if v13 is not None:
        if type(v13) is not int or not -9223372036854775808 <= v13 <= 9223372036854775807:
            return False
    v14 = value.get("cycles_evidence")
    if v14 is not None:
        if not cycles_evidence_ref_response(v14):
            return False
    return True


def amount_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("unit")
    if type(v1) is not str:
        return False
    v2 = value.get("amount")
    if type(v2) is not int or not 0 <= v2 <= 9223372036854775807:
        return False
    return True


def balance_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("scope")
    if type(v1) is not str:
        return False
    v2 = value.get("scope_path")
    if type(v2) is not str:
        return False
    v3 = value.get("remaining")
    if not signed_amount_response(v3):
        return False
    v4 = value.get("reserved")
    if v4 is not None:
        if not amount_response(v4):
            return False
    v5 = value.get("spent")
    if v5 is not None:
        if not amount_response(v5):
            return False
    v6 = value.get("debt")
    if v6 is not None:
        if not amount_response(v6):
            return False
    v7 = value.get("allocated")
    if v7 is not None:
        if not amount_response(v7):
            return False
    v8 = value.get("overdraft_limit")
    if v8 is not None:
        if not amount_response(v8):
            return False
    v9 = value.get("is_over_limit")
    if v9 is not None:
        if type(v9) is not bool:
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


def reservation_list_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("reservations")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not reservation_summary_response(v2):
            return False
    v3 = value.get("next_cursor")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("has_more")
    if v4 is not None:
        if type(v4) is not bool:
            return False
    return True


def reservation_summary_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("reservation_id")
    if type(v1) is not str:
        return False
    v2 = value.get("status")
    if type(v2) is not str:
        return False
    v3 = value.get("subject")
    if not subject_response(v3):
        return False
    v4 = value.get("action")
    if not action_response(v4):
        return False
    v5 = value.get("reserved")
    if not amount_response(v5):
        return False
    v6 = value.get("created_at_ms")
    if type(v6) is not int or not 0 <= v6 <= 9223372036854775807:
        return False
    v7 = value.get("expires_at_ms")
    if type(v7) is not int or not 0 <= v7 <= 9223372036854775807:
        return False
    v8 = value.get("scope_path")
    if type(v8) is not str:
        return False
    v9 = value.get("affected_scopes")
    if type(v9) is not list:
        return False
    for v10 in v9:
        if type(v10) is not str:
            return False
    v11 = value.get("idempotency_key")
    if v11 is not None:
        if type(v11) is not str:
            return False
    v12 = value.get("finalized_at_ms")
    if v12 is not None:
        if type(v12) is not int or not -9223372036854775808 <= v12 <= 9223372036854775807:
            return False
    v13 = value.get("committed")
    if v13 is not None:
        if not amount_response(v13):
            return False
    v14 = value.get("metadata")
    if v14 is not None:
        if type(v14) is not dict:
            return False
    v15 = value.get("committed_metadata")
    if v15 is not None:
        if type(v15) is not dict:
            return False
    v16 = value.get("evidence")
    if v16 is not None:
        if not reservation_evidence_response(v16):
            return False
    return True


def subject_response(value: Any) -> bool:
    if type(value) is not dict or len(value) < 1:
        return False
    v1 = value.get("tenant")
    if v1 is not None:
        if type(v1) is not str:
            return False
    v2 = value.get("workspace")
    if v2 is not None:
        if type(v2) is not str:
            return False
    v3 = value.get("app")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("workflow")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("agent")
    if v5 is not None:
        if type(v5) is not str:
            return False
    v6 = value.get("toolset")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("dimensions")
    if v7 is not None:
        if type(v7) is not dict:
            return False
        for v9 in v7.values():
            if v9 is not None:
                if type(v9) is not str or len(v9) > 256:
                    return False
    return True


def action_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("kind")
    if type(v1) is not str or len(v1) > 64:
        return False
    v2 = value.get("name")
    if type(v2) is not str or len(v2) > 256:
        return False
    v3 = value.get("tags")
    if v3 is not None:
        if type(v3) is not list:
            return False
        for v4 in v3:
            if type(v4) is not str or len(v4) > 64:
                return False
    v5 = value.get("policy_keys")
    if v5 is not None:
        if not action_policy_keys_response(v5):
            return False
    return True


def action_policy_keys_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("host")
    if v1 is not None:
        if type(v1) is not str:
            return False
    v2 = value.get("recipient_domain")
    if v2 is not None:
        if type(v2) is not str:
            return False
    v3 = value.get("resource_type")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("path_prefix")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("custom")
    if v5 is not None:
        if type(v5) is not dict:
            return False
        for v7 in v5.values():
            if v7 is not None:
                if type(v7) is not str or len(v7) > 256:
                    return False
    return True


def reservation_evidence_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("reserve")
    if v1 is not None:
        if not cycles_evidence_ref_response(v1):
            return False
    v2 = value.get("commit")
    if v2 is not None:
        if not cycles_evidence_ref_response(v2):
            return False
    v3 = value.get("release")
    if v3 is not None:
        if not cycles_evidence_ref_response(v3):
            return False
    return True


def reservation_detail_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("reservation_id")
    if type(v1) is not str:
        return False
    v2 = value.get("status")
    if type(v2) is not str:
        return False
    v3 = value.get("subject")
    if not subject_response(v3):
        return False
    v4 = value.get("action")
    if not action_response(v4):
        return False
    v5 = value.get("reserved")
    if not amount_response(v5):
        return False
    v6 = value.get("created_at_ms")
    if type(v6) is not int or not -9223372036854775808 <= v6 <= 9223372036854775807:
        return False
    v7 = value.get("expires_at_ms")
    if type(v7) is not int or not -9223372036854775808 <= v7 <= 9223372036854775807:
        return False
    v8 = value.get("scope_path")
    if type(v8) is not str:
        return False
    v9 = value.get("affected_scopes")
    if type(v9) is not list:
        return False
    for v10 in v9:
        if type(v10) is not str:
            return False
    v11 = value.get("idempotency_key")
    if v11 is not None:
        if type(v11) is not str:
            return False
    v12 = value.get("committed")
    if v12 is not None:
        if not amount_response(v12):
            return False
    v13 = value.get("finalized_at_ms")
    if v13 is not None:
        if type(v13) is not int or not -9223372036854775808 <= v13 <= 9223372036854775807:
            return False
    v14 = value.get("metadata")
    if v14 is not None:
        if type(v14) is not dict:
            return False
    v15 = value.get("committed_metadata")
    if v15 is not None:
        if type(v15) is not dict:
            return False
    v16 = value.get("evidence")
    if v16 is not None:
        if not reservation_evidence_response(v16):
            return False
    return True


def commit_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("status")
    if type(v1) is not str:
        return False
    v2 = value.get("charged")
    if not amount_response(v2):
        return False
    v3 = value.get("released")
    if v3 is not None:
        if not amount_response(v3):
            return False
    v4 = value.get("balances")
    if v4 is not None:
        if type(v4) is not list:
            return False
        for v5 in v4:
            if not balance_response(v5):
                return False
    v6 = value.get("cycles_evidence")
    if v6 is not None:
        if not cycles_evidence_ref_response(v6):
            return False
    return True


def release_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("status")
    if type(v1) is not str:
        return False
    v2 = value.get("released")
    if not amount_response(v2):
        return False
    v3 = value.get("balances")
    if v3 is not None:
        if type(v3) is not list:
            return False
        for v4 in v3:
            if not balance_response(v4):
                return False
    v5 = value.get("cycles_evidence")
    if v5 is not None:
        if not cycles_evidence_ref_response(v5):
            return False
    return True


def reservation_extend_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("status")
    if type(v1) is not str:
        return False
    v2 = value.get("expires_at_ms")
    if type(v2) is not int or not 0 <= v2 <= 9223372036854775807:
        return False
    v3 = value.get("remaining_ttl_ms")
    if v3 is not None:
        if type(v3) is not int or not -9223372036854775808 <= v3 <= 9223372036854775807:
            return False
    v4 = value.get("balances")
    if v4 is not None:
        if type(v4) is not list:
            return False
        for v5 in v4:
            if not balance_response(v5):
                return False
    return True


def cycles_evidence_envelope_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("schema_version")
    if type(v1) is not str:
        return False
    v2 = value.get("artifact_type")
    if type(v2) is not str:
        return False
    v3 = value.get("server_id")
    if type(v3) is not str:
        return False
    v4 = value.get("signer_did")
    if type(v4) is not str:
        return False
    v5 = value.get("issued_at_ms")
    if type(v5) is not int or not -9223372036854775808 <= v5 <= 9223372036854775807:
        return False
    v6 = value.get("payload")
    if type(v6) is not dict:
        return False
    v7 = value.get("evidence_id")
    if type(v7) is not str or not _search("^[0-9a-f]{64}\\Z")(v7):
        return False
    v8 = value.get("signature")
    if type(v8) is not str or not _search("^[0-9a-f]{128}\\Z")(v8):
        return False
    v9 = value.get("trace_id")
    if v9 is not None:
        if type(v9) is not str:
            return False
    return True


def cycles_evidence_jwks_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("keys")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not cycles_evidence_jwk_response(v2):
            return False
    return True


def cycles_evidence_jwk_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("kty")
    if type(v1) is not str:
        return False
    v2 = value.get("crv")
    if type(v2) is not str:
        return False
    v3 = value.get("x")
    if type(v3) is not str:
        return False
    v4 = value.get("kid")
    if type(v4) is not str:
        return False
    v5 = value.get("cycles_nbf_ms")
    if type(v5) is not int or not -9223372036854775808 <= v5 <= 9223372036854775807:
        return False
    v6 = value.get("alg")
    if v6 is not None:
        if type(v6) is not str:
            return False
    v7 = value.get("cycles_exp_ms")
    if v7 is not None:
        if v7 is not None:
            if type(v7) is not int or not -9223372036854775808 <= v7 <= 9223372036854775807:
                return False
    v8 = value.get("status")
    if v8 is not None:
        if type(v8) is not str:
            return False
    return True


def balance_response_32(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("balances")
    if type(v1) is not list:
        return False
    for v2 in v1:
        if not balance_response(v2):
            return False
    v3 = value.get("next_cursor")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("has_more")
    if v4 is not None:
        if type(v4) is not bool:
            return False
    return True


def event_create_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("status")
    if type(v1) is not str:
        return False
    v2 = value.get("event_id")
    if type(v2) is not str:
        return False
    v3 = value.get("charged")
    if v3 is not None:
        if not amount_response(v3):
            return False
    v4 = value.get("balances")
    if v4 is not None:
        if type(v4) is not list:
            return False
        for v5 in v4:
            if not balance_response(v5):
                return False
    return True


def action_kind_registry_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("version")
    if type(v1) is not str:
        return False
    v2 = value.get("kinds")
    if type(v2) is not list:
        return False
    for v3 in v2:
        if not action_kind_response(v3):
            return False
    v4 = value.get("next_cursor")
    if v4 is not None:
        if type(v4) is not str:
            return False
    v5 = value.get("has_more")
    if v5 is not None:
        if type(v5) is not bool:
            return False
    return True


def action_kind_response(value: Any) -> bool:
    if type(value) is not dict:
        return False
    v1 = value.get("kind")
    if type(v1) is not str:
        return False
    v2 = value.get("risk_class")
    if type(v2) is not str:
        return False
    v3 = value.get("description")
    if v3 is not None:
        if type(v3) is not str:
            return False
    v4 = value.get("mcp_tool_prefixes")
    if v4 is not None:
        if type(v4) is not list:
            return False
        for v5 in v4:
            if type(v5) is not str:
                return False
    v6 = value.get("deprecated")
    if v6 is not None:
        if type(v6) is not bool:
            return False
    v7 = value.get("replacement_kind")
    if v7 is not None:
        if type(v7) is not str:
            return False
    return True


def x_idempotency_key_parameter(value: Any) -> bool:
    if (
        type(value) is not str
        or len(value) < 1
        or len(value) > 256
        or not (value.isascii() or _is_text(value))
    ):
        return False
    return True


def status_parameter(value: Any) -> bool:
    if type(value) is not str or value not in {"ACTIVE", "COMMITTED", "RELEASED", "EXPIRED"}:
        return False
    return True


def tenant_parameter(value: Any) -> bool:
    if type(value) is not str or not (value.isascii() or _is_text(value)):
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


def sort_by_parameter(value: Any) -> bool:
    if type(value) is not str or value not in {
        "reservation_id",
        "tenant",
        "scope_path",
        "status",
        "reserved",
        "created_at_ms",
        "expires_at_ms",
    }:
        return False
    return True


def sort_dir_parameter(value: Any) -> bool:
    if type(value) is not str or value not in {"asc", "desc"}:
        return False
    return True


def include_parameter(value: Any) -> bool:
    if type(value) is not list:
        return False
    for v1 in value:
        if type(v1) is not str or not (v1.isascii() or _is_text(v1)):
            return False
    return True


def limit_parameter(value: Any) -> bool:
    if type(value) is not int or not 1 <= value <= 200:
        return False
    return True


def reservation_id_parameter(value: Any) -> bool:
    if (
        type(value) is not str
        or len(value) < 1
        or len(value) > 128
        or not (value.isascii() or _is_text(value))
    ):
        return False
    return True


def evidence_id_parameter(value: Any) -> bool:
    if (
        type(value) is not str
        or not _search("^[0-9a-f]{64}\\Z")(value)
        or not (value.isascii() or _is_text(value))
    ):
        return False
    return True


def include_children_parameter(value: Any) -> bool:
    if type(value) is not bool:
        return False
    return True


def risk_class_parameter(value: Any) -> bool:
    if type(value) is not str or value not in {
        "read_only",
        "local_mutation",
        "side_effect",
        "external_side_effect",
        "high_risk",
    }:
        return False
    return True


def limit_parameter_48(value: Any) -> bool:
    if type(value) is not int or not 1 <= value <= 100:
        return False
    return True


def kind_parameter(value: Any) -> bool:
    if (
        type(value) is not str
        or len(value) < 1
        or len(value) > 64
        or not (value.isascii() or _is_text(value))
    ):
        return False
    return True


REQUESTS: dict[str, Callable[[Any], bool]] = {
    "DecisionRequest": decision_request,
    "ReservationCreateRequest": reservation_create_request,
    "CommitRequest": commit_request,
    "ReleaseRequest": release_request,
    "ReservationExtendRequest": reservation_extend_request,
    "EventCreateRequest": event_create_request,
}

RESPONSES: dict[str, Callable[[Any], bool]] = {
    "DecisionResponse": decision_response,
    "ErrorResponse": error_response,
    "ReservationCreateResponse": reservation_create_response,
    "ReservationListResponse": reservation_list_response,
    "ReservationDetail": reservation_detail_response,
    "CommitResponse": commit_response,
    "ReleaseResponse": release_response,
    "ReservationExtendResponse": reservation_extend_response,
    "CyclesEvidenceEnvelope": cycles_evidence_envelope_response,
    "CyclesEvidenceJwks": cycles_evidence_jwks_response,
    "BalanceResponse": balance_response_32,
    "EventCreateResponse": event_create_response,
    "ActionKindRegistry": action_kind_registry_response,
    "ActionKind": action_kind_response,
}

PARAMETERS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "decide": {"X-Idempotency-Key": x_idempotency_key_parameter},
    "createReservation": {"X-Idempotency-Key": x_idempotency_key_parameter},
    "listReservations": {
        "idempotency_key": x_idempotency_key_parameter,
        "status": status_parameter,
        "tenant": tenant_parameter,
        "workspace": tenant_parameter,
        "app": tenant_parameter,
        "workflow": tenant_parameter,
        "agent": tenant_parameter,
        "toolset": tenant_parameter,
        "from": from__parameter,
        "to": from__parameter,
        "expires_from": from__parameter,
        "expires_to": from__parameter,
        "finalized_from": from__parameter,
        "finalized_to": from__parameter,
        "sort_by": sort_by_parameter,
        "sort_dir": sort_dir_parameter,
        "include": include_parameter,
        "limit": limit_parameter,
        "cursor": tenant_parameter,
    },
    "getReservation": {"reservation_id": reservation_id_parameter},
    "commitReservation": {
        "reservation_id": reservation_id_parameter,
        "X-Idempotency-Key": x_idempotency_key_parameter,
    },
    "releaseReservation": {
        "reservation_id": reservation_id_parameter,
        "X-Idempotency-Key": x_idempotency_key_parameter,
    },
    "extendReservation": {
        "reservation_id": reservation_id_parameter,
        "X-Idempotency-Key": x_idempotency_key_parameter,
    },
    "getEvidence": {"evidence_id": evidence_id_parameter},
    "getEvidenceJwks": {},
    "getBalances": {
        "tenant": tenant_parameter,
        "workspace": tenant_parameter,
        "app": tenant_parameter,
        "workflow": tenant_parameter,
        "agent": tenant_parameter,
        "toolset": tenant_parameter,
        "include_children": include_children_parameter,
        "limit": limit_parameter,
        "cursor": tenant_parameter,
    },
    "createEvent": {"X-Idempotency-Key": x_idempotency_key_parameter},
    "listActionKinds": {
        "risk_class": risk_class_parameter,
        "deprecated": include_children_parameter,
        "cursor": tenant_parameter,
        "limit": limit_parameter_48,
    },
    "getActionKind": {"kind": kind_parameter},
}
