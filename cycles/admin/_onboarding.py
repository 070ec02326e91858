"""Onboarding of a tenant: tenant, budgets and key in one call that can be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from cycles._core.amounts import Amount
from cycles._errors import CyclesError, DuplicateResourceError, InvalidRequestError
from cycles.admin._budgets import amount_body, budget_call, create_budget, untouched
from cycles.admin._channel import Channel
from cycles.admin._keys import RUNTIME_PERMISSIONS, create_api_key, key_call
from cycles.admin._scopes import checked_scope, tenant_of
from cycles.admin._tenants import create_tenant, tenant_call
from cycles.admin.results import Budget, Onboarded

Budgets: TypeAlias = Mapping[str, Amount | Iterable[Amount]]


async def onboard(
    channel: Channel,
    /,
    tenant_id: str,
    name: str,
    *,
    budgets: Budgets,
    key_name: str,
    permissions: Sequence[str] = RUNTIME_PERMISSIONS,
    overdraft_limit: Amount | None = None,
    timeout: float | None = None,
    extra_headers: Mapping[str, str] | None = None,
    **tenant_settings: Any,
) -> Onboarded:
    """Create a tenant, its budgets and a key, in this order. A repetition continues where an earlier call failed.

    A tenant that exists with this name, and a budget that exists with the same allocation and nothing spent, count as
    created. The key is created last and once. If a step fails, a note on the error lists what exists.

    Args:
        budgets: An amount, or several in different units, per scope: ``{"tenant:acme-corp": cycles.usd(100)}``.
        key_name: Display name of the key.
        permissions: What the key may do.
        overdraft_limit: Maximum debt of the budgets in its unit.
        timeout: Seconds that one attempt of a request may take.
        extra_headers: Headers that each request has in addition.
        tenant_settings: Settings of `create_tenant`.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        DuplicateResourceError: if the tenant exists with another name, or a budget with another allocation.
    """
    channel = channel.with_options(timeout, extra_headers)
    wanted = _wanted(tenant_id, budgets, overdraft_limit)
    for call in (
        tenant_call(tenant_id, name, **tenant_settings),
        *(budget_call(scope, amount, overdraft_limit=limit) for scope, amount, limit in wanted),
        key_call(tenant_id, key_name, permissions=permissions),
    ):
        channel.wire.check(call)
    exists: list[str] = []
    try:
        tenant = await create_tenant(channel, tenant_id, name, **tenant_settings)
        exists.append(f"tenant {tenant_id}")
        made: list[Budget] = []
        for scope, amount, limit in wanted:
            made.append(await _budget(channel, scope, amount, limit))
            exists.append(f"budget {scope} in {amount.unit}")
        key = await create_api_key(channel, tenant_id, key_name, permissions=permissions)
    except CyclesError as error:
        error.add_note(f"onboard {tenant_id}: {', '.join(exists) or 'nothing'} exists; call onboard again to continue")
        raise
    return Onboarded(tenant=tenant, budgets=tuple(made), key=key)


def _wanted(
    tenant_id: str, budgets: Budgets, overdraft_limit: Amount | None
) -> list[tuple[str, Amount, Amount | None]]:
    """Return scope, allocation and maximum debt of each budget."""
    if not isinstance(budgets, Mapping):
        raise InvalidRequestError(f"budgets must be a mapping of scopes to amounts: got {budgets!r:.80}")
    if overdraft_limit is not None:
        amount_body("overdraft_limit", overdraft_limit)
    wanted: dict[tuple[str, str], tuple[str, Amount, Amount | None]] = {}
    for scope, amounts in budgets.items():
        path = checked_scope(scope)
        if tenant_of(path) != tenant_id:
            raise InvalidRequestError(
                f"budgets: {scope!r:.120} is not a scope of tenant {tenant_id!r:.80}; begin it with its tenant"
            )
        for amount in amounts if isinstance(amounts, Iterable) else [amounts]:
            unit = amount_body(f"budgets[{scope!r:.120}]", amount)["unit"]
            if (path, unit) in wanted:
                raise InvalidRequestError(f"budgets: {scope!r:.120} has two amounts in {unit}; pass one for each unit")
            limit = overdraft_limit if overdraft_limit is not None and overdraft_limit.unit == amount.unit else None
            wanted[path, unit] = (path, amount, limit)
    if overdraft_limit is not None and all(limit is None for _, _, limit in wanted.values()):
        raise InvalidRequestError(f"overdraft_limit is in {overdraft_limit.unit}, but no budget is; omit it")
    return list(wanted.values())


async def _budget(channel: Channel, scope: str, amount: Amount, limit: Amount | None) -> Budget:
    try:
        return await create_budget(channel, scope, amount, overdraft_limit=limit)
    except DuplicateResourceError:
        found = await untouched(channel, scope, amount)
        if found is None:
            raise
        return found
