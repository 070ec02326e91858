"""The option types of the client, of `reserve`, `guarded` and `lease_series`, and the checks of their values."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypedDict

from cycles._config import LEASE_POLICIES, Durability, LeasePolicy
from cycles._core.amounts import Amount
from cycles._core.lifecycle import Actual
from cycles._core.reserve_request import Unavailable
from cycles._core.subjects import Action, Subject
from cycles._errors import InvalidRequestError

AnyAction: TypeAlias = Action | tuple[str, str]
AnySubject: TypeAlias = Subject | Mapping[str, Any] | None
ActionOption: TypeAlias = Action | tuple[str, str] | Callable[..., Action | tuple[str, str]]
ActualOption: TypeAlias = Amount | Callable[..., Amount] | None
AmountOption: TypeAlias = Amount | Callable[..., Amount]


class Settings(TypedDict, total=False):
    """What a client can be told by keyword; see `Config` for what each means."""

    base_url: str | None
    api_key: str | None
    tenant: str | None
    workspace: str | None
    app: str | None
    workflow: str | None
    agent: str | None
    toolset: str | None
    timeout: float | None
    connect_timeout: float | None
    max_connections: int | None
    retry_initial_delay: float | None
    retry_max_delay: float | None
    journal: bool | None
    journal_dir: str | os.PathLike[str] | None
    durability: Durability | None
    flush_timeout: float | None
    lease_policy: LeasePolicy | None
    shadow: bool | None


def checked_actual(actual: Actual, estimate: Amount) -> Actual:
    if actual is None or callable(actual):
        return actual
    if not isinstance(actual, Amount):
        raise InvalidRequestError(f"actual: give an amount or a callable, got {actual!r}")
    if actual.unit != estimate.unit:
        raise InvalidRequestError(f"actual: {actual} is in {actual.unit}, but the estimate is in {estimate.unit}")
    return actual


def checked_policy(policy: LeasePolicy) -> LeasePolicy:
    if policy not in LEASE_POLICIES:
        raise InvalidRequestError(f"lease_policy: must be one of {', '.join(LEASE_POLICIES)}, got {policy!r}")
    return policy


def checked_wait(wait: float | None) -> float | None:
    if wait is not None and (isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < math.inf):
        raise InvalidRequestError(f"wait: must be seconds, zero or more and finite, got {wait!r}")
    return wait


def checked_unavailable(choice: Unavailable) -> Unavailable:
    if choice not in ("raise", "allow"):
        raise InvalidRequestError(f"on_unavailable: must be 'raise' or 'allow', got {choice!r}")
    return choice


class GuardedOptions(TypedDict, total=False):
    """The options of `Cycles.reserve` that a decorator takes too; each may be a callable of the call's arguments."""

    subject: Subject | Mapping[str, Any] | Callable[..., Subject | Mapping[str, Any] | None] | None
    ttl_ms: int | Callable[..., int]
    grace_period_ms: int | Callable[..., int | None] | None
    overage_policy: str | Callable[..., str | None] | None
    metadata: Mapping[str, Any] | Callable[..., Mapping[str, Any] | None] | None
    idempotency_key: str | Callable[..., str | None] | None
    lease_policy: LeasePolicy | None
    shadow: bool | Callable[..., bool | None] | None
    on_unavailable: Unavailable | None
    wait: float | Callable[..., float | None] | None


class SeriesOptions(TypedDict, total=False):
    """The options of `Cycles.reserve` that a series takes for each of its parts."""

    subject: AnySubject
    ttl_ms: int
    grace_period_ms: int | None
    overage_policy: str | None
    metadata: Mapping[str, Any] | None
    lease_policy: LeasePolicy | None
    shadow: bool | None
    on_unavailable: Unavailable | None
    wait: float | None
