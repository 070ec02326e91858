"""`Admin`, and `admin.aio` with the same operations as coroutines."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cycles._version import public
from cycles.admin import _budgets, _funding, _keys, _onboarding, _others, _tenants
from cycles.admin._channel import channels, configured
from cycles.admin._methods import awaiting, blocking, iterating, iterating_async

if TYPE_CHECKING:
    import httpx


class Admin:
    """A client of the admin operations of one Cycles deployment, for threads; `aio` is the same for event loops.

    The admin key may do everything, so keep this object away from code that only spends. The key is in no repr, log
    record, exception or file.

    Args:
        base_url: Address of the admin server; ``CYCLES_ADMIN_BASE_URL`` if it is None.
        api_key: The admin key; ``CYCLES_ADMIN_API_KEY`` if it is None.
        http_client: Your own `httpx.Client` for blocking calls. You close it.
        async_http_client: Your own `httpx.AsyncClient` for `aio`. You close it.
        timeout: Seconds for one attempt, 5 by default.
        connect_timeout: Seconds of it for the connection, 2 by default.
        max_connections: Maximum number of connections.

    Raises:
        ConfigurationError: naming the setting that is missing or wrong.
    """

    onboard = blocking(_onboarding.onboard)
    create_tenant = blocking(_tenants.create_tenant)
    tenant = blocking(_tenants.tenant)
    update_tenant = blocking(_tenants.update_tenant)
    suspend_tenant = blocking(_tenants.suspend_tenant)
    reactivate_tenant = blocking(_tenants.reactivate_tenant)
    close_tenant = blocking(_tenants.close_tenant)
    create_budget = blocking(_budgets.create_budget)
    budget = blocking(_budgets.budget)
    budgets = iterating(_budgets.budgets)
    fund = blocking(_funding.fund)
    credit = blocking(_funding.credit)
    debit = blocking(_funding.debit)
    resize = blocking(_funding.resize)
    repay_debt = blocking(_funding.repay_debt)
    start_period = blocking(_funding.start_period)
    start_periods = blocking(_funding.start_periods)
    freeze = blocking(_budgets.freeze)
    unfreeze = blocking(_budgets.unfreeze)
    create_api_key = blocking(_keys.create_api_key)
    api_keys = iterating(_keys.api_keys)
    revoke_api_key = blocking(_keys.revoke_api_key)
    rotate_api_key = blocking(_keys.rotate_api_key)
    create_webhook = blocking(_others.create_webhook)
    audit = iterating(_others.audit)
    quota_counters = iterating(_others.quota_counters)
    reset_quota_counter = blocking(_others.reset_quota_counter)
    raw = blocking(_others.raw)

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        http_client: httpx.Client | None = None,
        async_http_client: httpx.AsyncClient | None = None,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        max_connections: int | None = None,
    ) -> None:
        settings = {"timeout": timeout, "connect_timeout": connect_timeout, "max_connections": max_connections}
        config = configured(base_url, api_key, settings)
        self._base_url = config.base_url
        self._channel, async_channel, self._connections = channels(config, http_client, async_http_client)
        self.aio = AsyncAdmin(async_channel)

    def close(self) -> None:
        """Close the connections of threads. Later calls raise `CyclesError`."""
        self._connections.close()

    async def aclose(self) -> None:
        """Close the connections of threads and of the running event loop. Later calls raise `CyclesError`."""
        await self._connections.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Admin {self._base_url}>"


class AsyncAdmin:
    """The operations of `Admin` as coroutines, and its lists as async iterators."""

    onboard = awaiting(_onboarding.onboard)
    create_tenant = awaiting(_tenants.create_tenant)
    tenant = awaiting(_tenants.tenant)
    update_tenant = awaiting(_tenants.update_tenant)
    suspend_tenant = awaiting(_tenants.suspend_tenant)
    reactivate_tenant = awaiting(_tenants.reactivate_tenant)
    close_tenant = awaiting(_tenants.close_tenant)
    create_budget = awaiting(_budgets.create_budget)
    budget = awaiting(_budgets.budget)
    budgets = iterating_async(_budgets.budgets)
    fund = awaiting(_funding.fund)
    credit = awaiting(_funding.credit)
    debit = awaiting(_funding.debit)
    resize = awaiting(_funding.resize)
    repay_debt = awaiting(_funding.repay_debt)
    start_period = awaiting(_funding.start_period)
    start_periods = awaiting(_funding.start_periods)
    freeze = awaiting(_budgets.freeze)
    unfreeze = awaiting(_budgets.unfreeze)
    create_api_key = awaiting(_keys.create_api_key)
    api_keys = iterating_async(_keys.api_keys)
    revoke_api_key = awaiting(_keys.revoke_api_key)
    rotate_api_key = awaiting(_keys.rotate_api_key)
    create_webhook = awaiting(_others.create_webhook)
    audit = iterating_async(_others.audit)
    quota_counters = iterating_async(_others.quota_counters)
    reset_quota_counter = awaiting(_others.reset_quota_counter)
    raw = awaiting(_others.raw)

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __repr__(self) -> str:
        return "<AsyncAdmin>"


public(Admin)
