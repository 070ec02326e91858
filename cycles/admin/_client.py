"""`Admin`, and `admin.aio` with the same operations as coroutines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cycles._client.closing import ClosedByItsBlock
from cycles._client.methods import blocking, iterating, iterating_async, suspending
from cycles._config import without_key_in_frames
from cycles._version import public
from cycles.admin import _budgets, _bulk, _funding, _keys, _onboarding, _others, _overview, _policies, _tenants
from cycles.admin._channel import AsyncChannel, Channel, Channels, configured

if TYPE_CHECKING:
    import httpx


class Admin(ClosedByItsBlock):
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

    onboard: Final = blocking(_onboarding.onboard)
    create_tenant: Final = blocking(_tenants.create_tenant)
    tenant: Final = blocking(_tenants.tenant)
    update_tenant: Final = blocking(_tenants.update_tenant)
    suspend_tenant: Final = blocking(_tenants.suspend_tenant)
    reactivate_tenant: Final = blocking(_tenants.reactivate_tenant)
    close_tenant: Final = blocking(_tenants.close_tenant)
    change_tenants: Final = blocking(_bulk.change_tenants)
    create_budget: Final = blocking(_budgets.create_budget)
    budget: Final = blocking(_budgets.budget)
    budgets: Final = iterating(_budgets.budgets)
    fund: Final = blocking(_funding.fund)
    credit: Final = blocking(_funding.credit)
    debit: Final = blocking(_funding.debit)
    resize: Final = blocking(_funding.resize)
    repay_debt: Final = blocking(_funding.repay_debt)
    start_period: Final = blocking(_funding.start_period)
    start_periods: Final = blocking(_funding.start_periods)
    freeze: Final = blocking(_budgets.freeze)
    unfreeze: Final = blocking(_budgets.unfreeze)
    create_api_key: Final = blocking(_keys.create_api_key)
    api_keys: Final = iterating(_keys.api_keys)
    revoke_api_key: Final = blocking(_keys.revoke_api_key)
    rotate_api_key: Final = blocking(_keys.rotate_api_key)
    create_policy: Final = blocking(_policies.create_policy)
    policies: Final = iterating(_policies.policies)
    update_policy: Final = blocking(_policies.update_policy)
    create_webhook: Final = blocking(_others.create_webhook)
    change_webhooks: Final = blocking(_bulk.change_webhooks)
    webhook_security: Final = blocking(_overview.webhook_security)
    set_webhook_security: Final = blocking(_overview.set_webhook_security)
    overview: Final = blocking(_overview.overview)
    audit: Final = iterating(_others.audit)
    quota_counters: Final = iterating(_others.quota_counters)
    reset_quota_counter: Final = blocking(_others.reset_quota_counter)
    raw: Final = blocking(_others.raw)

    @without_key_in_frames
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
        self._channels = Channels(config, http_client, async_http_client)
        self._channel = Channel(self._channels)
        self.aio: AsyncAdmin = AsyncAdmin(AsyncChannel(self._channels))

    def close(self) -> None:
        """Close the connections of threads. Later calls raise `CyclesError`."""
        self._channels.close()

    async def aclose(self) -> None:
        """Close the connections of threads and of the running event loop. Later calls raise `CyclesError`."""
        await self._channels.aclose()

    def __repr__(self) -> str:
        return f"<Admin {self._base_url}>"

    def _context(self) -> Channel:
        return self._channel


class AsyncAdmin:
    """The operations of `Admin` as coroutines, and its lists as async iterators."""

    onboard: Final = suspending(_onboarding.onboard)
    create_tenant: Final = suspending(_tenants.create_tenant)
    tenant: Final = suspending(_tenants.tenant)
    update_tenant: Final = suspending(_tenants.update_tenant)
    suspend_tenant: Final = suspending(_tenants.suspend_tenant)
    reactivate_tenant: Final = suspending(_tenants.reactivate_tenant)
    close_tenant: Final = suspending(_tenants.close_tenant)
    change_tenants: Final = suspending(_bulk.change_tenants)
    create_budget: Final = suspending(_budgets.create_budget)
    budget: Final = suspending(_budgets.budget)
    budgets: Final = iterating_async(_budgets.budgets)
    fund: Final = suspending(_funding.fund)
    credit: Final = suspending(_funding.credit)
    debit: Final = suspending(_funding.debit)
    resize: Final = suspending(_funding.resize)
    repay_debt: Final = suspending(_funding.repay_debt)
    start_period: Final = suspending(_funding.start_period)
    start_periods: Final = suspending(_funding.start_periods)
    freeze: Final = suspending(_budgets.freeze)
    unfreeze: Final = suspending(_budgets.unfreeze)
    create_api_key: Final = suspending(_keys.create_api_key)
    api_keys: Final = iterating_async(_keys.api_keys)
    revoke_api_key: Final = suspending(_keys.revoke_api_key)
    rotate_api_key: Final = suspending(_keys.rotate_api_key)
    create_policy: Final = suspending(_policies.create_policy)
    policies: Final = iterating_async(_policies.policies)
    update_policy: Final = suspending(_policies.update_policy)
    create_webhook: Final = suspending(_others.create_webhook)
    change_webhooks: Final = suspending(_bulk.change_webhooks)
    webhook_security: Final = suspending(_overview.webhook_security)
    set_webhook_security: Final = suspending(_overview.set_webhook_security)
    overview: Final = suspending(_overview.overview)
    audit: Final = iterating_async(_others.audit)
    quota_counters: Final = iterating_async(_others.quota_counters)
    reset_quota_counter: Final = suspending(_others.reset_quota_counter)
    raw: Final = suspending(_others.raw)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def _context(self) -> Channel:
        return self._channel

    def __repr__(self) -> str:
        return "<AsyncAdmin>"


public(Admin)
