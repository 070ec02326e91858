"""Every parameter of every public method of the client, its guards and its pools has a test of its effect."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

from attrs import fields_dict

import cycles
from cycles._client import call_options, options
from cycles._client.async_operations import AsyncOperations
from cycles._client.pool import AsyncPool, Pool

TESTS = Path(__file__).parents[1]
CLASSES = (cycles.Cycles, AsyncOperations, cycles.Guard, cycles.AsyncGuard, Pool, AsyncPool)
FUNCTIONS = (
    cycles.guarded,
    cycles.limit,
    cycles.subject,
    cycles.run,
    cycles.copy_context_to,
    cycles.set_default_client,
)
OF_RESERVE = (
    "estimate action subject ttl_ms grace_period_ms overage_policy metadata idempotency_key actual lease_policy shadow"
    " on_unavailable wait on_observed observe timeout extra_headers settle"
)
OF_SERIES = OF_RESERVE.replace(" idempotency_key actual", "")
RESERVE = "options/test_reservations::test_options_of_a_call_have_their_effect_in_each_way_to_use_it"
VIEW = "options/test_reservations::test_options_of_a_view_have_their_effect_in_each_way_to_use_it"
OPERATION = "options/test_operations::test_every_parameter_of_an_operation_is_sent"
POOL = "options/test_pools::test_the_options_of_a_pool_are_those_of_its_chunks"
POOLED = "options/test_pools::test_the_options_of_a_guard_of_a_pool"
COMMIT = "options/test_guards::test_the_parameters_of_commit"
ENDS = "options/test_guards::test_the_parameters_of_release_and_extend"
WRAP = "options/test_guards::test_the_parameters_of_wrap"
END = "options/test_guards::test_the_parameter_of_end"
ATTACH = "options/test_guards::test_the_options_of_attach"
FLUSH = "options/test_clients::test_the_timeout_of_a_flush"
PENDING = "options/test_clients::test_pending_lists_what_is_open_or_what_was_rejected"
CAPS = "client/test_guard_conveniences::test_caps_limit_the_guard"
POLICIES = "client/next_protocol/test_action_policies"
OF_GUARD = {
    "commit": {COMMIT: "actual metrics metadata wait"},
    "settled": {COMMIT: "timeout"},
    "release": {ENDS: "reason"},
    "extend": {ENDS: "extend_by_ms"},
    "end": {END: "raised"},
    "wrap": {WRAP: "stream usage settle"},
    "spend": {"options/test_states::spent": "amount"},
    "allows_tool": {CAPS: "name"},
    "require_tool": {CAPS: "name"},
    "filter_tools": {CAPS: "tools", "options/test_guards::test_the_reader_of_the_names_of_tools": "name"},
    "max_tokens": {CAPS: "default"},
}
OPERATIONS = {
    "decide": "estimate action subject metadata idempotency_key",
    "preview": "estimate action subject ttl_ms grace_period_ms overage_policy metadata idempotency_key",
    "record": "actual action subject overage_policy metrics metadata idempotency_key",
    "commit_reservation": "reservation_id actual metrics metadata idempotency_key",
    "release_reservation": "reservation_id reason idempotency_key",
    "extend_reservation": "reservation_id extend_by_ms idempotency_key",
    "reservation": "reservation_id",
    "find": "idempotency_key",
    "balances": "subject include_children",
    "reservations": "status subject idempotency_key created_from created_to expires_from expires_to finalized_from"
    " finalized_to sort_by sort_dir include limit",
    "action_kind": "kind",
    "action_kinds": "risk_class include_deprecated",
    "evidence": "evidence_id",
    "evidence_keys": "",
    "raw": "operation arguments",
}
OF_CLIENT: dict[str, dict[str, str]] = {
    **{name: {OPERATION: f"{own} timeout extra_headers"} for name, own in OPERATIONS.items()},
    "evidence_verdict": {
        OPERATION: "ref_or_id timeout extra_headers",
        "evidence/test_client::test_waiting_ends_with_wait_ms": "wait_ms",
        "evidence/test_client::test_a_pin_is_compared": "expected_signer",
        "evidence/test_client::test_the_server_must_be_the_one_of_the_client_or_the_one_that_is_named": "server_id",
    },
    "flush": {FLUSH: "timeout"},
    "pending": {PENDING: "rejected"},
}
SHOWN: dict[str, dict[str, str]] = {
    "Cycles.reserve": {RESERVE: OF_RESERVE},
    "Cycles.guarded": {RESERVE: OF_RESERVE},
    "guarded": {RESERVE: OF_RESERVE},
    "Cycles.lease_series": {
        RESERVE: OF_SERIES,
        "options/test_reservations::test_the_age_of_a_part_of_a_series": "part_ms",
    },
    "Cycles.with_options": {VIEW: "timeout subject overage_policy lease_policy max_retries extra_headers"},
    "Cycles.pool": {
        POOL: "max_held action subject chunk ttl_ms grace_period_ms overage_policy metadata timeout extra_headers",
        "options/test_pools::test_the_lease_policy_of_a_guard_of_a_pool": "lease_policy",
        "options/test_pools::test_the_shadow_of_a_pool": "shadow",
        "options/test_pools::test_a_pool_that_may_run_without_a_server": "on_unavailable",
        "options/test_pools::test_the_limit_of_a_pool": "limit",
    },
    "Cycles.attach": {
        ATTACH: "token actual timeout extra_headers",
        "options/test_guards::test_the_lease_policy_of_an_attached_guard": "lease_policy",
    },
    "Cycles.on_event": {POOLED: "observer"},
    "Cycles.on_threshold": {"options/test_clients::test_the_parameters_of_on_threshold": "thresholds callback scopes"},
    "Cycles.trace_with": {"client/test_tracing::test_a_tracer_sees_the_life_of_a_guard": "tracing"},
    "Cycles.embedded": {"options/test_clients::test_the_parameters_of_embedded": "budgets tenant settings"},
    **{f"Cycles.{name}": tests for name, tests in OF_CLIENT.items()},
    **{f"AsyncOperations.{name}": tests for name, tests in OF_CLIENT.items()},
    **{f"{kind}.{name}": tests for kind in ("Guard", "AsyncGuard") for name, tests in OF_GUARD.items()},
    "Pool.reserve": {
        POOLED: "estimate action subject actual metadata",
        "options/test_pools::test_the_lease_policy_of_a_guard_of_a_pool": "lease_policy",
        "options/test_pools::test_a_guard_of_a_pool_that_waits": "wait",
        "pools/test_ends::test_a_pooled_guard_cannot_be_detached_extended_or_copied": "idempotency_key",
    },
    "Pool.guarded": {POOLED: "estimate actual options"},
    "Pool.flush": {"options/test_pools::test_the_time_of_a_flush_of_a_pool": "timeout"},
    "AsyncPool.flush": {"options/test_pools::test_the_time_of_a_flush_of_a_pool": "timeout"},
    "limit": {"guards/test_run_limit::test_beyond_the_limit_nothing_is_sent": "amount"},
    "subject": {"guards/test_subjects::test_the_call_wins_over_blocks_over_the_configuration": "_subject_ levels"},
    "run": {
        f"{POLICIES}::test_a_quota_of_a_run_needs_a_run_and_a_release_returns_its_call": "run_id",
    },
    "copy_context_to": {"client/test_context::test_jobs_see_the_subject_of_the_code_that_submits_them": "executor"},
    "set_default_client": {RESERVE: "client"},
}
"""For each method, the tests that show the effect of its parameters: a file below `tests/` and a function in it."""


def parameters(function: Any) -> set[str]:
    """Return the names of the parameters that a caller may pass, with those of `**options`."""
    found: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            found.add(name)
        elif listed := re.search(r"Unpack\[(\w+)\]", str(parameter.annotation)):
            found |= (getattr(options, listed[1], None) or getattr(call_options, listed[1])).__annotations__.keys()
        elif name != "unknown":  # which is rejected
            found.add(name)
    return found - {"self", "context", "kind", "tb"} | ({"kind"} if function.__name__ == "action_kind" else set())


def callables() -> dict[str, Any]:
    """Return every public method and function that takes something."""
    methods = {
        f"{each.__name__}.{name}": getattr(each, name)
        for each in CLASSES
        for name in dir(each)
        if not name.startswith("_") and inspect.isroutine(inspect.getattr_static(each, name))
    }
    found = {**methods, **{each.__name__: each for each in FUNCTIONS}}
    return {name: value for name, value in found.items() if parameters(value)}


def test_each_parameter_of_each_method_has_a_test() -> None:
    shown = {name: {each for names in tests.values() for each in names.split()} for name, tests in SHOWN.items()}
    assert shown == {name: parameters(function) for name, function in callables().items()}


SETTINGS: dict[str, str] = {
    "options/test_reservations::test_settings_of_a_client_have_their_effect_in_each_reservation": (
        "workspace app workflow agent toolset timeout max_retries default_headers lease_policy shadow on_observed"
    ),
    "options/test_clients::test_the_limits_of_the_connections": "base_url connect_timeout max_connections",
    "options/test_clients::test_the_parameters_of_embedded": "tenant",
    "client/test_api_key::test_the_callable_is_called_once_for_all_requests": "api_key",
    "client/test_approval::test_approve_is_called_from_the_fraction_on_and_a_no_sends_nothing": "approve approve_above",
    "options/test_clients::test_the_pauses_between_the_attempts_of_a_settlement": "retry_initial_delay retry_max_delay",
    "options/test_clients::test_the_time_of_a_close": "flush_timeout",
    "options/test_clients::test_the_journal_has_its_settings": (
        "journal_dir durability journal_store journal_claim_ms journal_store_timeout journal_outage"
        " journal_checkpoint_ms"
    ),
    "guards/test_without_journal::test_with_a_journal_the_report_says_where_the_amount_is": "journal",
}
"""The tests of the settings of a client."""


def test_the_tests_exist() -> None:
    named = {test for tests in [*SHOWN.values(), SETTINGS] for test in tests}
    assert {test for test in named if test.split("::")[-1] not in functions_of(test.split("::")[0])} == set()


@cache
def functions_of(file: str) -> set[str]:
    """Return the names of the functions in a file of tests."""
    tree = ast.parse((TESTS / f"{file}.py").read_text("utf-8"))
    return {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_setting_of_a_client_has_a_test() -> None:
    assert {each for names in SETTINGS.values() for each in names.split()} == set(fields_dict(cycles.Config))
