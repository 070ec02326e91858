"""The settings of the proxy, from its flags and from the environment. No I/O but reading a price file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import field, frozen

from cycles._core.amounts import Amount
from cycles._errors import ConfigurationError
from cycles.prices import PriceBook, read_price_file
from cycles.providers._hosts import FreeHost
from cycles.providers._meter import MIN_OUTPUT_TOKENS, WAIT_S, LostAttempt
from cycles.providers._provider import PROVIDERS
from cycles.proxy._asking import Asking
from cycles.proxy._caller_proxy import CallerProxy
from cycles.proxy._routes import ROUTES, Route


@frozen(kw_only=True)
class ProxySettings:
    """How the proxy treats requests.

    Attributes:
        upstreams: Base URL of each route that the user named, or that its provider has for all users.
        named: The routes whose upstream the user named; requests to their hosts go there too.
        flagged: Those of them that `--upstream` named.
        mounts: The part of a path that the base URL of a route contains, if it is not that of the table.
        prices: The price book.
        unit: The unit of each reservation: USD_MICROCENTS or TOKENS.
        own_scope: The scope of the run's own ledger, whose budget `--budget` sets; None: a server has the budgets.
        asking: Asks before calls are sent, if much of a budget is used; None: there is no question.
        subject: Subject fields of each reservation.
        max_output_tokens: Sent if a request sets no output limit, and the ceiling of those that do.
        unknown_model: What a request to a model without a price may cost; None rejects it.
        unmetered: Whether requests that may cost money and cannot be metered are rejected or passed.
        lost_attempt: What a call costs that was sent and got no status: its bound, or an estimate of its prompt.
        wait: Seconds to wait for budget while nothing of it ends.
        min_output_tokens: The lowest output limit to which a request is lowered; None: never.
        tunnel: Whether CONNECT is accepted.
        captured_hosts: Hosts of routes whose connections are captured; None: all.
        allowed: Hosts of providers that are tunnelled, and not charged.
        free_hosts: Hosts whose requests cost nothing.
        caller: The proxy that the caller has configured, for tunnels and requests upstream.
        sealed: Whether the program has no other network.
        shared_ports: The ports of this machine that a sealed program may reach.
        run_id: The run in the metadata of its calls, if its ledger is kept; None: it is in none.
        fake: Whether a fake provider is the upstream of all routes.
        key: The first segment of each path, or the header `X-Cycles-Proxy-Key`; None: no key is needed.
    """

    upstreams: Mapping[str, str]
    prices: PriceBook
    named: frozenset[str] = frozenset()
    flagged: frozenset[str] = frozenset()
    mounts: Mapping[str, str] = field(factory=dict)
    unit: str = "USD_MICROCENTS"
    own_scope: str | None = None
    asking: Asking | None = field(default=None, repr=False)
    subject: Mapping[str, str] = field(factory=dict)
    max_output_tokens: int | None = None
    unknown_model: Amount | None = None
    unmetered: Literal["refuse", "allow"] = "refuse"
    lost_attempt: LostAttempt = "bound"
    wait: float = WAIT_S
    min_output_tokens: int | None = MIN_OUTPUT_TOKENS
    tunnel: bool = False
    captured_hosts: frozenset[str] | None = frozenset()
    allowed: frozenset[str] = frozenset()
    free_hosts: tuple[FreeHost, ...] = ()
    caller: CallerProxy | None = None
    sealed: bool = False
    shared_ports: tuple[int, ...] = ()
    run_id: str | None = None
    fake: bool = False
    key: str | None = field(default=None, repr=False)


def upstreams_of(given: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings `upstreams`, `named`, `flagged` and `mounts`.

    The upstream of a route is what a flag says, then what a variable of its SDKs holds, then the provider's own.

    Raises:
        ConfigurationError: for an address that is no http or https URL.
    """
    upstreams: dict[str, str] = {}
    mounts: dict[str, str] = {}
    named = set()
    for name, route in ROUTES.items():
        source, url, mount = _upstream_of(route, given.get(name), environ)
        if url is None:
            continue
        if not _is_address(url):
            raise ConfigurationError(f"{source} is not an http or https address: {url!r:.120}; write https://HOST/PATH")
        upstreams[name] = url.rstrip("/")
        if mount != route.mount:
            mounts[name] = mount
        if source is not None:
            named.add(name)
    return {"upstreams": upstreams, "named": frozenset(named), "flagged": frozenset(given), "mounts": mounts}


def fake_upstreams(url: str) -> dict[str, Any]:
    """Return these settings for `--fake`: all routes lead to the server of a fake provider.

    A path that begins with the name of a provider selects its shapes there: the streams of some report usage always.
    Azure's variables are set only if they were set before, as without `--fake`: the SDK of OpenAI may reject them
    beside those of OpenAI.
    """
    upstreams = {name: (f"{url}/{name}" if name in PROVIDERS else url) + route.mount for name, route in ROUTES.items()}
    return {"upstreams": upstreams, "named": frozenset(ROUTES), "flagged": frozenset({"ollama"}), "fake": True}


def _upstream_of(route: Route, given: str | None, environ: Mapping[str, str]) -> tuple[str | None, str | None, str]:
    """Return what names the upstream of a route, the upstream, and the part of a path that it contains."""
    if given:
        return f"--upstream {route.name}", given, route.mount
    if route.name != "ollama":  # local models are free: they are not routed unless the user says so
        for variable, suffix in route.variables.items():
            if url := environ.get(variable):
                return variable, *_without_suffix(url.rstrip("/"), suffix, route.mount)
    return None, route.upstream, route.mount


def _without_suffix(url: str, suffix: str, mount: str) -> tuple[str, str]:
    """Return what a variable held, in the form that the route has, if it has that form."""
    if suffix == mount:
        return url, mount
    if url.endswith(suffix):
        return url.removesuffix(suffix) + mount, mount
    return url, suffix


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number, or too large
        return False
    is_plain = url.isprintable() and " " not in url and not parts.query and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and has_port and is_plain


def price_book(path: str | None) -> PriceBook:
    """Return the installed prices, overridden by those of a JSON or TOML file.

    Raises:
        ConfigurationError: if the file cannot be read, or if the package `genai-prices` is not installed.
    """
    if path is None:
        return PriceBook.genai()
    found = read_price_file(path, "--prices", older=True)
    if found.is_older:
        return PriceBook.genai(found.models)
    return PriceBook.genai(file=path)
