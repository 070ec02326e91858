"""Onboarding of a tenant: tenant, budgets and key in one call that can be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from cycles._core.amounts import Amount
from cycles._errors import CyclesError, DuplicateResourceError, InvalidRequestError
from cycles.admin._budgets import amount_body, create_budget, untouched
from cycles.admin._channel import Channel
from cycles.admin._keys import RUNTIME_PERMISSIONS, create_api_key
from cycles.admin._scopes import checked_scope, tenant_of
from cycles.admin._tenants import create_tenant
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
        tenant_settings: Settings of `create_tenant`.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        DuplicateResourceError: if the tenant exists with another name, or a budget with another allocation.
    """
    wanted = _wanted(tenant_id, budgets)
    exists: list[str] = []
    try:
        tenant = await create_tenant(channel, tenant_id, name, **tenant_settings)
        exists.append(f"tenant {tenant_id}")
        made: list[Budget] = []
        for scope, amount in wanted:
            limit = overdraft_limit if overdraft_limit is not None and overdraft_limit.unit == amount.unit else None
            made.append(await _budget(channel, scope, amount, limit))
            exists.append(f"budget {scope} in {amount.unit}")
        key = await create_api_key(channel, tenant_id, key_name, permissions=permissions)
    except CyclesError as error:
        error.add_note(f"onboard {tenant_id}: {', '.join(exists) or 'nothing'} exists; call onboard again to continue")
        raise
    return Onboarded(tenant=tenant, budgets=tuple(made), key=key)


def _wanted(tenant_id: str, budgets: Budgets) -> list[tuple[str, Amount]]:
    wanted: list[tuple[str, Amount]] = []
    for scope, amounts in budgets.items():
        path = checked_scope(scope)
        if tenant_of(path) != tenant_id:
            raise InvalidRequestError(
                f"budgets: {scope!r:.120} is not a scope of tenant {tenant_id!r:.80}; begin it with its tenant"
            )
        for amount in amounts if isinstance(amounts, Iterable) else [amounts]:
            amount_body(f"budgets[{scope!r:.120}]", amount)
            wanted.append((path, amount))
    return wanted


async def _budget(channel: Channel, scope: str, amount: Amount, limit: Amount | None) -> Budget:
    try:
        return await create_budget(channel, scope, amount, overdraft_limit=limit)
    except DuplicateResourceError:
        found = await untouched(channel, scope, amount)
        if found is None:
            raise
        return found
