"""The settings that `guard` gives to a client, for all its requests, and their checks."""

from __future__ import annotations

import inspect
import logging
import math
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict
from urllib.parse import urlsplit

from attrs import Factory, define, field, frozen

import cycles
from cycles._config import LONGEST_WAIT_S, is_seconds
from cycles._core.amounts import Amount
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._errors import ConfigurationError, InvalidRequestError, did_you_mean
from cycles._version import readable
from cycles.prices import PriceBook
from cycles.providers._conversations import Conversations
from cycles.providers._endpoints import find
from cycles.providers._hosts import FreeHost, free_hosts_of, is_free, reports_cost
from cycles.providers._paid import current_payer
from cycles.providers._provider import Endpoint, Provider, provider_named
from cycles.providers._shared import shared

if TYPE_CHECKING:
    from cycles import Action, Cycles, Subject, Usage

Within: TypeAlias = Literal["own", "enclosing"]
ReportedCost: TypeAlias = Literal["known", "always", "never"]
Unmetered: TypeAlias = Literal["refuse", "estimate", "allow"]
LostAttempt: TypeAlias = Literal["bound", "prompt"]

LOST_ATTEMPTS: Final = ("bound", "prompt")
"""What an attempt costs that was sent and got no status: what was reserved, or an estimate of its prompt."""
UNITS: Final = ("USD_MICROCENTS", "TOKENS")
"""The units in which calls can be bounded and settled without `estimate` and `actual`."""
WAIT_S: Final = 240.0
"""How long a call waits by default while nothing of its budget ends: less than common HTTP timeouts (300 s or more)."""
BACKGROUND_WAIT_S: Final = 3_600.0
"""How long a call stays open by default whose response is made in the background."""
MIN_OUTPUT_TOKENS: Final = 1_024
"""The lowest output limit to which a request is lowered by default."""

_SESSION_S: Final = 1_200.0
"""How long a container costs nothing after it was paid."""

OPTIONS: Final = (
    "client",
    "prices",
    "unit",
    "estimate",
    "max_output_tokens",
    "wait",
    "min_output_tokens",
    "within",
    "unmetered",
    "lost_attempt",
    "reported_cost",
    "free_hosts",
    "background_wait",
)
"""The options of `guard` that `Cycles.reserve` does not have."""

_log: Final = logging.getLogger("cycles")
_DESCRIBES: Final = ("subject", "action", "metadata")
"""The options of `Cycles.reserve` that are callables of the request, too."""
_OWN: Final = ("self", "estimate", "wait", *_DESCRIBES)
"""Parameters of `Cycles.reserve` that `guard` has itself."""


class ReserveOptions(TypedDict, total=False):
    """The options of `Cycles.reserve` that a guarded client takes."""

    ttl_ms: int
    grace_period_ms: int | None
    overage_policy: str | None
    idempotency_key: Callable[[Request], str] | None
    actual: Callable[[Usage], Amount] | None
    lease_policy: Literal["warn"] | None
    shadow: bool | None
    observe: bool
    on_observed: Literal["raise", "run"] | None
    on_unavailable: Literal["raise", "allow"] | None
    settle: Literal["background"] | None
    timeout: float | None
    extra_headers: Mapping[str, str] | None


@frozen(kw_only=True)
class Request:
    """One request of a guarded client, as callables of `guard` get it.

    Attributes:
        provider: For example ``"openai"``, ``"anthropic"`` or ``"google"``.
        endpoint: For example ``"chat.completions"``.
        path: As the SDK sends it.
        model: The model that it names, or None.
        body: Read-only.
        max_output_tokens: The output limit that the request sets, or None.
        stream: Whether the response is a stream.
    """

    provider: str
    endpoint: str
    path: str
    model: str | None
    body: Mapping[str, Any]
    max_output_tokens: int | None
    stream: bool


class Sessions:
    """The containers that a client has paid: running code in one of them again costs nothing for 20 minutes."""

    def __init__(self) -> None:
        self._paid: dict[str, tuple[float, object]] = {}  # since when, and the token of the call that has paid

    def pays(self, name: str, now: float, token: object) -> bool:
        """Return whether a call is to pay a container, and note that it does. It may ask again."""
        with shared:
            at, payer = self._paid.get(name, (-math.inf, None))
            if at > now - _SESSION_S:
                return payer is token
            self._paid = {each: paid for each, paid in self._paid.items() if paid[0] > now - _SESSION_S}
            self._paid[name] = now, token
        return True


def _in_dollars_by_default(unit: Any) -> Any:
    return "USD_MICROCENTS" if unit is None else unit


def _is_one_of(*allowed: str) -> Callable[[object, Any, object], None]:
    def check(_: object, option: Any, value: object) -> None:
        if value not in allowed:
            raise InvalidRequestError(f"{option.alias} must be {' or '.join(map(repr, allowed))}, got {value!r:.80}")

    return check


def _is_seconds(at_zero: str) -> Callable[[object, Any, object], None]:
    def check(_: object, option: Any, value: object) -> None:
        if not is_seconds(value):
            raise InvalidRequestError(
                f"{option.alias} must be seconds, 0 to {LONGEST_WAIT_S:.0f}, got {value!r:.80}; "
                f"{option.alias}=0 {at_zero}"
            )

    return check


def _is_count(or_none: str = "") -> Callable[[object, Any, object], None]:
    def check(_: object, option: Any, value: object) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InvalidRequestError(f"{option.alias} must be an integer >= 1{or_none}, got {value!r:.80}")

    return check


def _is_client(_: object, __: object, client: Any) -> None:
    if client is not None and not isinstance(client, cycles.Cycles):
        raise InvalidRequestError(f"client must be a cycles.Cycles, got {client!r:.80}")


def _is_book(_: object, __: object, prices: Any) -> None:
    if prices is not None and not isinstance(prices, PriceBook):
        raise InvalidRequestError(f"prices must be a cycles.PriceBook, got {prices!r:.80}")


def _is_estimate(_: object, __: object, estimate: Any) -> None:
    if estimate is not None and not isinstance(estimate, Amount) and not callable(estimate):
        raise InvalidRequestError(f"estimate must be an amount or a callable of the request, got {estimate!r:.80}")


@define(eq=False, kw_only=True)
class Meter:
    """The settings of one guarded client; its copies share it. `guard` documents its options.

    Raises:
        InvalidRequestError: for a wrong value.
    """

    provider: str
    pricing: str
    given_client: Cycles | None = field(default=None, alias="client", validator=_is_client)
    book: PriceBook | None = field(default=None, alias="prices", validator=_is_book)
    unit: str = field(default="USD_MICROCENTS", converter=_in_dollars_by_default, validator=_is_one_of(*UNITS))
    estimate: Amount | Callable[[Request], Amount] | None = field(default=None, validator=_is_estimate)
    subject: Subject | Mapping[str, Any] | Callable[[Request], Any] | None = None
    action: Action | tuple[str, str] | Callable[[Request], Any] | None = None
    metadata: Mapping[str, Any] | Callable[[Request], Mapping[str, Any]] | None = None
    max_output_tokens: int | None = field(default=None, validator=_is_count())
    wait_s: float = field(default=WAIT_S, alias="wait", validator=_is_seconds("denies without waiting"))
    min_output_tokens: int | None = field(default=MIN_OUTPUT_TOKENS, validator=_is_count(", or None to lower no limit"))
    within: Within = field(default="own", validator=_is_one_of("own", "enclosing"))
    unmetered: Unmetered = field(default="refuse", validator=_is_one_of("refuse", "estimate", "allow"))
    lost_attempt: LostAttempt = field(default="bound", validator=_is_one_of(*LOST_ATTEMPTS))
    reported_cost: ReportedCost = field(default="known", validator=_is_one_of("known", "always", "never"))
    free_hosts: tuple[FreeHost, ...] = field(default=(), converter=free_hosts_of)
    background_wait_s: float = field(
        default=BACKGROUND_WAIT_S,
        alias="background_wait",
        validator=_is_seconds("settles the estimate without waiting for the response"),
    )
    actual: Callable[[Usage], Amount] | None = field(default=None, init=False)
    idempotency_key: Callable[[Request], str] | None = field(default=None, init=False)
    options: Mapping[str, Any] = field(factory=dict, init=False)  # of `reserve`
    on_error: Callable[[BaseException], object] | None = None  # of a framework; gets the error of a failed reserve
    only_paid: bool = False  # requests without a payer pass untouched: it is a framework's own client
    lowered_level: int = logging.WARNING
    conversations: Conversations = Factory(Conversations)
    sessions: Sessions = Factory(Sessions)
    classes: dict[type, type] = Factory(dict)  # guarded subclasses by their base; a class takes long to make
    _reported: set[str] = Factory(set)

    @property
    def client(self) -> Cycles:
        """The Cycles client; the default one is looked up at each request."""
        return self.given_client or cycles.get_default_client()

    @property
    def api(self) -> Provider:
        """The endpoints, usage and streams of the provider."""
        return provider_named(self.provider)

    def takes_cost(self, url: str) -> bool:
        """Return whether a cost that a response from this address reports is its price."""
        return self.reported_cost == "always" or (self.reported_cost == "known" and reports_cost(url))

    def endpoint(self, method: str, path: str, base_url: str) -> Endpoint | Literal["unmetered"] | None:
        """Return what a request is; None if it passes untouched.

        Raises:
            InvalidRequestError: for a request that may cost money and cannot be metered.
        """
        found = find(self.provider, method, path)
        if found == "unmetered" and is_free(base_url, self.free_hosts):
            return None
        if found == "free" or (self.only_paid and current_payer() is None):
            return None
        if behind_proxy(base_url):
            self.once("proxy", logging.INFO, f"requests to {base_url} are metered by the Cycles proxy, not here")
            return None
        if found != "unmetered":
            return found
        return "unmetered" if self.passes_unmetered(path) is False else None

    def passes_unmetered(self, path: str) -> bool:
        """Return True if an unmetered request may pass unguarded, and False if it is settled at its estimate.

        Raises:
            InvalidRequestError: if it may do neither.
        """
        if self.unmetered == "allow":
            self.once(path, logging.WARNING, f"a request to {path} may cost money and is not metered")
            return True
        if self.unmetered == "estimate":
            return False
        raise InvalidRequestError(
            f"a request to {path} may cost money and cannot be metered: pass unmetered='estimate' with estimate= to "
            "guard() to settle it at an estimate, or unmetered='allow' to send it unguarded; nothing was sent"
        )

    def reject_unmetered(self, what: str) -> bool:
        """Raise for connections that no hook can meter, unless they are allowed."""
        if self.unmetered == "allow":
            return self.passes_unmetered(what)
        raise InvalidRequestError(
            f"{what} may cost money and cannot be metered: pass unmetered='allow' to guard() to use it unguarded; "
            "nothing was sent"
        )

    def once(self, key: str, level: int, message: str) -> None:
        """Log a message once for this client."""
        with shared:
            if key in self._reported:
                return
            self._reported.add(key)
        _log.log(level, "guarded %s client: %s", self.provider, message)

    def report_maximum(self, most: int) -> None:
        """Report once that a request without an output limit is reserved at the maximum of its model."""
        self.once(
            "limit",
            logging.INFO,
            f"a request sets no output limit; it is reserved at the maximum of its model, {most} tokens. "
            "Set a limit, or pass max_output_tokens= to guard()",
        )

    def report_lowered(self, planned: int | None, limit: int) -> None:
        """Report once that an output limit was lowered."""
        was = "set to" if planned is None else f"lowered from {planned} to"
        self.once(
            "lowered",
            self.lowered_level,
            f"the output limit of a request was {was} {limit} tokens, so that it fits its budget. "
            "Fund the budget, or pass min_output_tokens=None to guard() to deny such requests",
        )

    def note_failed_reserve(self, error: BaseException) -> None:
        """Pass the error of a failed reserve to the framework, before it is raised."""
        if self.on_error is not None:
            self.on_error(error)

    def report_payer(self) -> None:
        """Report once that the call of a framework pays for the requests of this client."""
        if not self.only_paid:
            self.once(
                "payer",
                logging.WARNING,
                "an integration guards the model call that sends its requests, so that call pays for them. Guard "
                "either the client or the call",
            )

    def report_wait(self, request: ReserveRequest) -> None:
        """Report once that a call waits."""
        self.once(
            "wait",
            logging.INFO,
            f"a call that may cost {request.estimate} waits for its budget, which calls in flight hold. "
            "A lower max_output_tokens= lets more calls run at the same time",
        )


def behind_proxy(base_url: str) -> bool:
    """Return whether requests to this address go to the proxy of ``cycles run``, which meters them itself."""
    proxy = os.environ.get("CYCLES_PROXY_URL")
    if not proxy:
        return False
    try:
        there, client = urlsplit(proxy), urlsplit(base_url)
        if (there.scheme, there.hostname, there.port) != (client.scheme, client.hostname, client.port):
            return False
    except ValueError:  # one of them is no address
        return False
    prefix = [part for part in there.path.split("/") if part]
    return [part for part in client.path.split("/") if part][: len(prefix)] == prefix


_shared_book: dict[str, PriceBook] = {}


def shared_book() -> PriceBook:
    """Return the price book of guarded clients that got none: one for the process.

    Raises:
        ConfigurationError: if the package `genai-prices` is not installed.
    """
    with shared:
        if "genai" not in _shared_book:
            _shared_book["genai"] = PriceBook.genai()
        return _shared_book["genai"]


def make_meter(provider: str, pricing: str, options: Mapping[str, Any], **own: Any) -> Meter:
    """Check the options of a guarded client.

    Args:
        provider: Whose client it is.
        pricing: The provider of the price data.
        options: The options of `guard`.
        own: Other members of `Meter`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
        ConfigurationError: if prices are needed and the package `genai-prices` is not installed.
    """
    given = {name: options[name] for name in (*OPTIONS, *_DESCRIBES) if name in options}
    meter = Meter(provider=provider, pricing=pricing, **given, **own)
    estimate, unit = meter.estimate, given.get("unit")
    if meter.unmetered == "estimate" and estimate is None:
        raise InvalidRequestError("unmetered='estimate' needs estimate=: pass an amount or a callable of the request")
    if unit is not None and estimate is not None:
        raise InvalidRequestError("unit= and estimate= exclude each other: an estimate has its unit; pass one of them")
    fixed = {name: value for name in _DESCRIBES if not callable(value := given.get(name))}
    rest = {name: value for name, value in options.items() if name not in given}
    meter.options, meter.actual, meter.idempotency_key = _checked_options(rest, fixed)
    if isinstance(estimate, Amount) and estimate.unit not in UNITS and meter.actual is None:
        raise InvalidRequestError(f"an estimate in {estimate.unit} needs actual=: pass a callable of the usage")
    if meter.book is None:
        meter.book = _book_if_needed(estimate, meter.actual, unit)
    return meter


@cache
def paid_meter(provider: str, pricing: str) -> Meter:
    """Return the settings of clients whose requests the call of a framework pays."""
    return Meter(provider=provider, pricing=pricing, unmetered="allow", wait=0, min_output_tokens=None, only_paid=True)


def _book_if_needed(estimate: Any, actual: Any, unit: Any) -> PriceBook | None:
    if unit == "TOKENS" or (estimate is not None and (actual is not None or getattr(estimate, "unit", "") == "TOKENS")):
        return None
    try:
        return shared_book()
    except ConfigurationError:
        if callable(estimate):  # it may return tokens
            return None
        raise


def _checked_options(options: Mapping[str, Any], fixed: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    """Check the options of `reserve` as `reserve` does, with a client that sends nothing; `fixed` are no callables."""
    known = [name for name in inspect.signature(cycles.Cycles.reserve).parameters if name not in _OWN]
    for name in options:
        if name not in known:
            raise TypeError(
                f"guard() got an unknown option {name!r:.80}; the options of reserve are {', '.join(known)}"
                f"{did_you_mean(name, [*known, *OPTIONS])}"
            )
    rest = {name: value for name, value in options.items() if value is not None}
    actual, key = rest.pop("actual", None), rest.pop("idempotency_key", None)
    if actual is not None and not callable(actual):
        raise InvalidRequestError(f"actual must be a callable of the usage, got {actual!r:.80}")
    if key is not None and not callable(key):
        raise InvalidRequestError(
            f"idempotency_key must be a callable of the request, got {key!r:.80}: "
            "one key would replay the first request"
        )
    if rest.get("lease_policy", "warn") != "warn":
        raise InvalidRequestError(
            f"lease_policy must be 'warn', got {rest['lease_policy']!r:.80}: a response that is paid is returned"
        )
    probe = cycles.Cycles(cycles.Config(base_url="http://localhost", api_key="none", tenant="none", journal=False))
    try:
        described = {"action": ("guard", "check"), **{name: v for name, v in fixed.items() if v is not None}}
        probe.reserve(cycles.usd(0), **described, **rest)
    finally:
        probe.close()
    return rest, actual, key


readable(Request)
