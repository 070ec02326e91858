"""Check the options of `client.pool`."""

from __future__ import annotations

from typing import Any, Final

from cycles._client.call_options import REQUEST_OPTIONS
from cycles._client.options import (
    checked_amount,
    checked_choice,
    checked_flag,
)
from cycles._client.pool import Pool, PoolOwner, pool_name
from cycles._core.amounts import Amount
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.subjects import Subject, as_action, as_subject
from cycles._core.values.json_values import clean_object
from cycles._errors import InvalidRequestError
from cycles._flows.pool.parts import PoolOptions
from cycles._flows.reserve import create_call

PARTS: Final = 4  # chunks of a pool by default
SETTLE_TTLS: Final = 4  # a server allows ten extensions, and each adds at least half a ttl
SETTLE_MS: Final = 30_000  # the age at which a chunk is committed, and so how late the ledger learns of spend


def make_pool(client: PoolOwner, given: dict[str, Any]) -> Pool:
    """Return a pool with checked options.

    Raises:
        InvalidRequestError: a value is wrong.
    """
    max_held = checked_amount(given["max_held"], "max_held")
    limit = given["limit"]
    size = _chunk_size(max_held, given["chunk"], limit)
    config = client.config
    request = _request(client, given, Amount(max_held.unit, size))
    client._runtime().channel.wire.check(create_call(request, "k"))
    own: Subject = as_subject(given["subject"])
    checked = PoolOptions(
        request=request,
        name=pool_name(),
        unit=max_held.unit,
        max_held=max_held.amount,
        chunk=size,
        limit=None if limit is None else limit.amount,
        action=request.action,
        dimensions=own.dimensions,
        ttl_ms=request.ttl_ms,
        grace_period_ms=request.grace_period_ms,
        overage_policy=request.overage_policy,
        metadata=request.metadata,
        lease_policy=request.lease_policy,
        shadow=request.shadow,
        on_unavailable=request.on_unavailable,
        settle_ms=min(SETTLE_MS, SETTLE_TTLS * request.ttl_ms),
        sync=config.journal and config.durability == "disk",
    )
    return Pool(client, checked, request, own)


def _request(client: PoolOwner, given: dict[str, Any], chunk: Amount) -> ReserveRequest:
    """Return the reserve request of the pool's chunks. An option that is not given comes from the client."""
    config, context = client.config, client._context()
    options = context.options.over({name: given[name] for name in REQUEST_OPTIONS})
    policy, unavailable = given["lease_policy"] or options.lease_policy, given["on_unavailable"]
    return ReserveRequest(
        estimate=chunk,
        action=as_action(given["action"]),
        subject=context.subject(given["subject"]),
        ttl_ms=given["ttl_ms"],
        grace_period_ms=given["grace_period_ms"],
        overage_policy=given["overage_policy"] if given["overage_policy"] is not None else options.overage_policy,
        metadata=None if given["metadata"] is None else clean_object(given["metadata"], "metadata"),
        lease_policy=config.lease_policy if policy is None else checked_choice("lease_policy", policy),
        timeout=options.timeout,
        extra_headers=options.extra_headers,
        max_retries=config.max_retries if options.max_retries is None else options.max_retries,
        shadow=config.shadow if given["shadow"] is None else checked_flag("shadow", given["shadow"]),
        on_unavailable="raise" if unavailable is None else checked_choice("on_unavailable", unavailable),
        on_observed=config.on_observed,
    )


def _chunk_size(max_held: Amount, chunk: Amount | None, limit: Amount | None) -> int:
    """Return the amount of one chunk. `chunk` and `limit` must be in the unit of `max_held`."""
    for name, amount in (("chunk", chunk), ("limit", limit)):
        if amount is not None and checked_amount(amount, name).unit != max_held.unit:
            raise InvalidRequestError(f"{name} must be in the unit of max_held: {amount} is not in {max_held.unit}")
    size = -(-max_held.amount // PARTS) if chunk is None else chunk.amount
    if not 1 <= size <= max_held.amount:
        raise InvalidRequestError(
            f"chunk must be from 1 to max_held, {max_held}: got {Amount(max_held.unit, size)}; pass a larger max_held"
        )
    return size
