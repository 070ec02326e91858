"""Guarded copies of provider clients: each request is reserved, limited, sent, and settled at its exact price.

No SDK is imported before `guard` is called, and then only the one that the client belongs to. See `docs/providers.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from cycles._errors import InvalidRequestError
from cycles.providers._bodies import may_be_billed as may_be_billed
from cycles.providers._framework import ReportedCall, ReportedModel
from cycles.providers._meter import (
    BACKGROUND_WAIT_S,
    MIN_OUTPUT_TOKENS,
    WAIT_S,
    LostAttempt,
    ReportedCost,
    Request,
    ReserveOptions,
    Unmetered,
    Within,
    make_meter,
    paid_meter,
)
from cycles.providers._paid import current_payer as current_payer, paid_by, sum_of as sum_of
from cycles.providers._provider import OF_CLOUDS, PROVIDERS, Provider, provider_named

if TYPE_CHECKING:
    from cycles import Action, Amount, Cycles, PriceBook, Subject
    from cycles.providers._meter import Meter

__all__ = ["ReportedCall", "ReportedModel", "Request", "ReserveOptions", "guard", "paid_by", "reported_model"]

T = TypeVar("T")


def guard(
    llm: T,
    *,
    client: Cycles | None = None,
    prices: PriceBook | None = None,
    unit: str | None = None,
    estimate: Amount | Callable[[Request], Amount] | None = None,
    subject: Subject | Mapping[str, Any] | Callable[[Request], Any] | None = None,
    action: Action | tuple[str, str] | Callable[[Request], Any] | None = None,
    metadata: Mapping[str, Any] | Callable[[Request], Mapping[str, Any]] | None = None,
    max_output_tokens: int | None = None,
    wait: float = WAIT_S,
    min_output_tokens: int | None = MIN_OUTPUT_TOKENS,
    within: Within = "own",
    unmetered: Unmetered = "refuse",
    lost_attempt: LostAttempt = "bound",
    reported_cost: ReportedCost = "known",
    free_hosts: Sequence[str] = (),
    background_wait: float = BACKGROUND_WAIT_S,
    **reserve_options: Unpack[ReserveOptions],
) -> T:
    """Return a guarded copy of a provider client; the client itself is not changed.

    Args:
        llm: A client of the packages openai, anthropic or google-genai, sync or async, or a `bedrock-runtime` client of
                boto3.
        client: The Cycles client; by default the default client, looked up at each request.
        prices: The price book; by default one `PriceBook.genai()` for the process.
        unit: The unit of the budgets: ``"USD_MICROCENTS"`` (by default), or ``"TOKENS"``, which needs no price of the
            model: it reserves a bound of the prompt and the output limit, and commits all tokens of the response.
        estimate: What to reserve: an amount, or a callable of the `Request`. By default the book's upper bound.
        subject: As for `reserve`, or a callable of the `Request`.
        action: As for `reserve`, or a callable of the `Request`; by default the kind of the endpoint and the model.
        metadata: As for `reserve`, or a callable of the `Request`.
        max_output_tokens: Sent if a request sets no output limit, and the ceiling of those that do.
        wait: Seconds that a call waits for budget while nothing of it ends; 0: it takes what is left now, or is denied.
        min_output_tokens: The lowest output limit to which a request is lowered, so that it fits its budget; None:
            never. For reasoning models, which may use it up before the first visible word, 16,384 is better.
        within: ``"own"``: each request has its own reservation. ``"enclosing"``: the current guard pays if it can.
        unmetered: What happens to requests that may cost money and cannot be metered: ``"refuse"`` rejects them,
            ``"estimate"`` settles them at `estimate`, ``"allow"`` sends them unguarded.
        lost_attempt: What an attempt costs that was sent and got no status, because the connection broke or the
            response did not come in time. ``"bound"``: what was reserved, and each further attempt of the SDK has its
            own reservation. ``"prompt"``: an estimate of its prompt, and all attempts share one reservation.
        reported_cost: When the cost that a gateway reports is the price of a response: ``"known"``: OpenRouter,
            Perplexity and xAI; ``"always"``: from every host; ``"never"``.
        free_hosts: Hosts whose requests cost nothing, for example ``["localhost:11434", "*.gpu.internal"]``.
        background_wait: Seconds that a call with ``background=True`` stays open until its response is retrieved, 3,600
            by default; then its estimate is settled. 0: it is settled immediately.
        reserve_options: Other options of `reserve`; `actual` and `idempotency_key` are callables.

    Raises:
        InvalidRequestError: for a client of another kind, a client that is guarded, or a wrong value.
        TypeError: for an unknown option.
        ConfigurationError: if prices are needed and the extra is missing, or if the SDK has no known hooks.
    """
    options = {name: value for name, value in locals().items() if name not in ("llm", "reserve_options")}
    provider = _provider_of(llm)
    return _copy(llm, provider, lambda pricing: make_meter(provider.name, pricing, {**options, **reserve_options}))


def guard_for_framework(llm: T, on_error: Callable[[BaseException], object], options: Mapping[str, Any]) -> T:
    """Return a guarded copy as `guard` does, for a framework.

    Args:
        llm: The client.
        on_error: Gets the error of each reservation that fails, before it is raised.
        options: Those of `guard`.

    Raises:
        InvalidRequestError: as `guard` does.
        TypeError: for an unknown option.
        ConfigurationError: as `guard` does.
    """
    provider = _provider_of(llm)
    return _copy(llm, provider, lambda pricing: make_meter(provider.name, pricing, options, on_error=on_error))


def metered(llm: T) -> T:
    """Return a copy of a provider client for a framework: `paid_by` pays for its requests, others pass unguarded.

    Raises:
        InvalidRequestError: for a client of another kind, and for a client that is guarded.
        ConfigurationError: if the SDK has no known hooks.
    """
    provider = _provider_of(llm)
    return _copy(llm, provider, lambda pricing: paid_meter(provider.name, pricing))


def reported_model(
    pricing: str, options: Mapping[str, Any], on_error: Callable[[BaseException], object] | None = None
) -> ReportedModel:
    """Return the settings of a framework's model whose client is unknown: its calls are priced by what it reports.

    Args:
        pricing: The provider of the price data.
        options: The options of `guard`.
        on_error: Gets the error of each reservation that fails, before it is raised.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
        ConfigurationError: if prices are needed and the extra is missing.
    """
    from cycles.providers._reported import MeteredModel

    return MeteredModel(pricing, options, on_error)


def _copy(llm: T, provider: Provider, make: Callable[[str], Meter]) -> T:
    """Return a copy of a client with the hooks of its SDK. `make` returns its settings, by the provider of prices."""
    if provider.hook == "stainless":
        from cycles.providers import _stainless

        return _stainless.guarded_copy(llm, make(_stainless.pricing_of(llm, provider.prices)))
    if provider.hook == "botocore":
        from cycles.providers import _botocore

        return _botocore.guarded_copy(llm, make(provider.prices))
    if provider.hook == "httpx":
        from cycles.providers import _httpx

        return _httpx.guarded_copy(llm, make(provider.prices))
    from cycles.providers import _genai

    return _genai.guarded_copy(llm, make(provider.prices))


def _provider_of(llm: object) -> Provider:
    cls = type(llm)
    if getattr(cls, "_cycles_meter", None) is not None:
        raise InvalidRequestError(f"this {cls.__name__} client is guarded already: guard the original client")
    known = [provider_named(name) for name in PROVIDERS]
    is_of_cloud = any(_is_client(base, client) for base in cls.__mro__ for client in OF_CLOUDS)
    for base in () if is_of_cloud else cls.__mro__:
        for provider in known:
            if any(_is_client(base, client) for client in provider.clients):
                return provider
    raise InvalidRequestError(
        f"llm must be a client of {', '.join(PROVIDERS)}, got {cls.__module__}.{cls.__name__}; docs/providers.md lists "
        "the classes"
    )


def _is_client(cls: type, client: str) -> bool:
    """Return whether a class is a client, which its package may define in a module below its own."""
    package, _, name = client.rpartition(".")
    return cls.__name__ == name and f"{cls.__module__}.".startswith(f"{package}.")
