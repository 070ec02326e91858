"""Options of the client and of `reserve`, `guarded` and `lease_series`: their types, and the checks of their values.

A test keeps these types, the parameters of `Cycles.reserve` and the attributes of `Config` consistent.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict, cast

from cycles._config import (
    LEASE_POLICIES,
    LONGEST_WAIT_S,
    ON_OBSERVED,
    SETTLE,
    UNAVAILABLE,
    Config,
    Durability,
    JournalOutage,
    LeasePolicy,
    OnObserved,
    Settle,
    Unavailable,
    is_seconds,
    without_key_in_frames,
)
from cycles._core.amounts import Amount
from cycles._core.messages.reserve_request import Actual
from cycles._core.subjects import Action, Subject
from cycles._errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from cycles._core.messages.used_fraction import ThresholdWatcher

AnyAction: TypeAlias = Action | tuple[str, str]
AnySubject: TypeAlias = Subject | Mapping[str, Any] | None
ActionOption: TypeAlias = Action | tuple[str, str] | Callable[..., Action | tuple[str, str]]
ActualOption: TypeAlias = Amount | Callable[..., Amount] | None
AmountOption: TypeAlias = Amount | Callable[..., Amount]


_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "lease_policy": LEASE_POLICIES,
    "on_unavailable": UNAVAILABLE,
    "on_observed": ON_OBSERVED,
    "settle": SETTLE,
    "overage_policy": ("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"),
}


class Settings(TypedDict, total=False):
    """The settings of a client as keywords. `Config` documents them."""

    base_url: str | None
    api_key: str | Callable[[], Any] | None
    tenant: str | None
    workspace: str | None
    app: str | None
    workflow: str | None
    agent: str | None
    toolset: str | None
    timeout: float | None
    connect_timeout: float | None
    max_connections: int | None
    default_headers: Mapping[str, str] | None
    max_retries: int | None
    retry_initial_delay: float | None
    retry_max_delay: float | None
    journal: bool | None
    journal_dir: str | os.PathLike[str] | None
    durability: Durability | None
    journal_store: Any | None
    journal_claim_ms: int | None
    journal_store_timeout: float | None
    journal_outage: JournalOutage | None
    journal_checkpoint_ms: int | None
    flush_timeout: float | None
    lease_policy: LeasePolicy | None
    shadow: bool | None
    on_observed: OnObserved | None
    approve: Callable[[Any], Any] | None
    approve_above: float | None


@without_key_in_frames
def merged(config: Config | None, settings: dict[str, Any]) -> Config:
    """Return the configuration of a client: settings over `config`, or over the environment if there is none.

    Raises:
        ConfigurationError: A setting is missing or wrong. `settings` is empty then, because it may contain the key.
    """
    if config is not None and not isinstance(config, Config):
        raise ConfigurationError(f"config must be a cycles.Config, got a value of type {type(config).__name__}")
    # A given configuration replaces the environment as a whole: no variable of the machine changes one of its values.
    whole = Config.from_env(**settings) if config is None else config.with_settings(**settings)
    whole.endpoint()
    return whole


def checked_amount(value: Any, name: str = "estimate") -> Amount:
    """Return `value` if it is an amount.

    Raises:
        InvalidRequestError: It is not an amount.
    """
    if not isinstance(value, Amount):
        raise InvalidRequestError(f"{name} must be an Amount such as cycles.usd('0.05'), got {value!r:.80}")
    return value


def checked_actual(actual: Any, estimate: Amount) -> Actual:
    """Return `actual` if it is None, a callable, or an amount in the unit of the estimate.

    Raises:
        InvalidRequestError: It is none of these.
    """
    # Of a callable only its result can be checked, at the end of the block, where a wrong one must not lose the spend.
    if actual is None or callable(actual):
        return cast(Actual, actual)
    if not isinstance(actual, Amount):
        raise InvalidRequestError(f"actual must be an Amount or a callable, got {actual!r:.80}")
    if actual.unit != estimate.unit:
        raise InvalidRequestError(f"actual must be in the unit of the estimate, {estimate.unit}: got {actual}")
    return actual


def checked_choice(name: str, value: Any) -> Any:
    """Return the value of an option that has a few values.

    Raises:
        InvalidRequestError: There is no such value.
    """
    # Checked here, because a mistyped policy would show itself only when it is needed, as when a lease is lost.
    if value not in _CHOICES[name]:
        raise InvalidRequestError(f"{name} must be one of {', '.join(_CHOICES[name])}, got {value!r:.80}")
    return value


def checked_seconds(name: str, value: Any) -> float:
    """Return a time in seconds.

    Raises:
        InvalidRequestError: It is not a number from 0 to one day.
    """
    if not is_seconds(value):
        raise InvalidRequestError(f"{name} must be seconds, 0 to {LONGEST_WAIT_S:.0f}, got {value!r:.80}")
    seconds: float = value
    return seconds


def optional_seconds(name: str, value: Any) -> float | None:
    """Return a time in seconds, or None.

    Raises:
        InvalidRequestError: It is neither None nor a number from 0 to one day.
    """
    return None if value is None else checked_seconds(name, value)


def checked_watcher(thresholds: Any, callback: Any, scopes: Any) -> ThresholdWatcher:
    """Return the watcher of thresholds.

    Raises:
        InvalidRequestError: A threshold is no fraction from 0 to 1, `callback` is not callable, or `scopes` is a str.
    """
    from cycles._core.messages.used_fraction import ThresholdWatcher

    many = isinstance(thresholds, Iterable) and not isinstance(thresholds, str)
    values: tuple[Any, ...] = tuple(thresholds) if many else (thresholds,)
    for value in values or (None,):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise InvalidRequestError(f"thresholds must be fractions above 0 and up to 1, like 0.8, got {value!r:.80}")
    if not callable(callback):
        raise InvalidRequestError(f"callback must be a callable that takes an event, got {callback!r:.80}")
    # A string is iterable too, and its letters would be scopes that no budget has.
    if isinstance(scopes, str) or not isinstance(scopes, Iterable | None):
        raise InvalidRequestError(f"scopes must be a list of scope paths, got {scopes!r:.80}")
    watched = None if scopes is None else frozenset(str(scope).lower() for scope in scopes)
    return ThresholdWatcher(tuple(float(value) for value in values), callback, watched)


def check_timeout(value: Any) -> None:
    """Check the timeout of an attempt in seconds.

    Raises:
        InvalidRequestError: It is not a number of more than 0, at most one day.
    """
    if not is_seconds(value) or value <= 0:
        raise InvalidRequestError(
            f"timeout must be seconds, more than 0 and at most {LONGEST_WAIT_S:.0f}, got {value!r:.80}"
        )


def checked_flag(name: str, value: Any) -> bool:
    """Return a boolean.

    Raises:
        InvalidRequestError: It is not True or False. A non-empty string would count as true.
    """
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name} must be True or False, got {value!r:.80}")
    return value


class GuardedOptions(TypedDict, total=False):
    """The options of `Cycles.reserve` that `guarded` takes too. Most may be a callable of the call's arguments."""

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
    timeout: float | Callable[..., float | None] | None
    extra_headers: Mapping[str, str] | Callable[..., Mapping[str, str] | None] | None
    on_observed: OnObserved | None
    observe: bool | Callable[..., bool]
    settle: Settle | None


class SeriesOptions(TypedDict, total=False):
    """The options of `Cycles.reserve` that `lease_series` takes. They apply to each of its parts."""

    subject: AnySubject
    ttl_ms: int
    grace_period_ms: int | None
    overage_policy: str | None
    metadata: Mapping[str, Any] | None
    lease_policy: LeasePolicy | None
    shadow: bool | None
    on_unavailable: Unavailable | None
    wait: float | None
    timeout: float | None
    extra_headers: Mapping[str, str] | None
    on_observed: OnObserved | None
    observe: bool
    settle: Settle | None


def check_http_clients(http_client: object, async_http_client: object) -> None:
    """Check by what they can do, not by their classes, that the user's HTTP clients are a sync and an async one.

    Raises:
        ConfigurationError: naming the argument.
    """
    send = getattr(http_client, "send", None)
    if http_client is not None and (not callable(send) or inspect.iscoroutinefunction(send)):
        raise ConfigurationError(f"http_client must be like an httpx.Client, got {http_client!r:.80}")
    can_send = callable(getattr(async_http_client, "send", None)) and hasattr(async_http_client, "aclose")
    if async_http_client is not None and not can_send:
        raise ConfigurationError(f"async_http_client must be like an httpx.AsyncClient, got {async_http_client!r:.80}")
