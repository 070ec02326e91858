"""What the hooks, the proxy and the fakes know of a provider: each provider is one module that satisfies `Provider`.

`PROVIDERS` has one row for each. `docs/providers.md` and `docs/more-providers.md` list their endpoints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

from attrs import field, frozen

from cycles._core.values.usage import Usage
from cycles._usage.estimating import Kind

Hook: TypeAlias = Literal["stainless", "google", "botocore", "httpx"]

PROVIDERS: Final[dict[str, str]] = {
    "openai": "cycles.providers._openai",
    "anthropic": "cycles.providers._anthropic",
    "google": "cycles.providers._google",
    "bedrock": "cycles.providers._bedrock",
    "groq": "cycles.providers._groq",
    "mistral": "cycles.providers._mistral",
    "cohere": "cycles.providers._cohere",
}
"""The module of each provider; it is imported when it is needed."""
_OTHERS: Final = {"framework": "cycles.providers._reported"}
"""The module of models of frameworks that have no known client."""

OF_CLOUDS: Final = ("cohere.AwsClient", "cohere.AwsClientV2", "cohere.OciClient", "cohere.OciClientV2")
"""Classes, with their subclasses, that send to a cloud in a form of its own, although their base is a known client."""


@frozen
class Background:
    """How an endpoint makes a response in the background. It is retrieved by its id, below the path of the endpoint.

    Attributes:
        member: The member of the body that requests it.
        running: The values of ``status`` of a response that is still being made.
        ended: Those of one that has ended.
    """

    member: str
    running: tuple[str, ...]
    ended: tuple[str, ...]


@frozen
class Endpoint:
    """One metered endpoint.

    Attributes:
        name: How users see it, for example ``"chat.completions"``.
        kind: What it makes.
        action: The action kind of its reservations.
        limits: Members of the body that limit the output; the first is the one that is added. A dot goes deeper.
        thinking: Members with the tokens of reasoning that the output limit contains.
        is_thinking_below: Whether the provider rejects an output limit that is not above them.
        tier: The member with the service tier.
        spellings: Other names of members that the provider accepts, and those that `limits` and `tier` have.
        background: How it makes responses in the background; None: it does not.
    """

    name: str
    kind: Kind
    action: str
    limits: tuple[str, ...] = ()
    thinking: tuple[str, ...] = ()
    is_thinking_below: bool = False
    tier: str = "service_tier"
    spellings: Mapping[str, str] = field(factory=dict)
    background: Background | None = None


@frozen
class Mark:
    """How an event of a stream is recognized in its bytes, without parsing it: one event in twenty matters.

    Attributes:
        words: One of them is in each such event; they are found ten times faster than the pattern.
        pattern: What such an event contains.
    """

    words: tuple[bytes, ...]
    pattern: re.Pattern[bytes]

    def is_in(self, event: bytes) -> bool:
        """Return whether an event has this mark."""
        for word in self.words:
            if word in event:
                return self.pattern.search(event) is not None
        return False


_NEVER: Final = Mark((), re.compile(rb"(?!)"))
WITH_USAGE: Final = Mark((b'"usage"',), re.compile(rb'"usage"\s*:\s*\{'))
WITH_FINISH: Final = Mark((b"finish_reason",), re.compile(rb'"finish_reason"\s*:\s*"'))
WITH_ERROR: Final = Mark((b'"error"',), re.compile(rb'"error"\s*:\s*[{"]'))

Reported: TypeAlias = Literal["part", "total", "alone"] | None
"""What an event reports of the usage: nothing, that of a part of the response, or that of all of it.

``"alone"``: of all of it, in an event that has nothing else.
"""


def _nothing(value: Mapping[str, Any], finished: bool) -> Reported:
    return None


def _no_error(value: Mapping[str, Any]) -> bool:
    return False


@frozen
class StreamRules:
    """How a response that is streamed reports its usage, its end and its errors.

    Attributes:
        requested: Members to add to the request, so that the stream reports its usage; the event with the usage
            alone is then hidden from the user.
        is_usage_last: Whether an event with the usage alone follows the finish reason.
        running_totals: Each event reports the totals so far: the last of them is read.
        with_usage: The mark of events that may report usage.
        with_finish: The mark of events with a finish reason.
        with_error: The mark of events that may report an error.
        last: The mark of the last event.
        counted: The mark of events that are read beside those with usage.
        usage: What an event reports, and whether a finish reason was seen before it or in it.
        failed: Whether an event reports an error.
    """

    requested: Mapping[str, Any] = field(factory=dict)
    is_usage_last: bool = False
    running_totals: bool = False
    with_usage: Mark = _NEVER
    with_finish: Mark = _NEVER
    with_error: Mark = _NEVER
    last: Mark = _NEVER
    counted: Mark = _NEVER
    usage: Callable[[Mapping[str, Any], bool], Reported] = _nothing
    failed: Callable[[Mapping[str, Any]], bool] = _no_error


class Provider(Protocol):
    """What a module of a provider has: data and pure functions; it imports no SDK and does no I/O.

    Attributes:
        name: For example ``"groq"``.
        clients: Classes that `guard` accepts, with their subclasses, for example ``"groq.Groq"``.
        hook: How requests of these clients are seen.
        metered: Metered endpoints, by their paths as `path` returns them.
        free: Patterns of POSTs that cost nothing: ``*`` is one segment, ``**`` any number of them.
        prices: The provider of the price data, if the base URL is not that of another one.
        price_by: Whose model name has the price: that of the response, or that of the request.
        is_copied: Whether others have its wire format, so that an unknown host says nothing of who sends the bill.
        vertex: Methods of Vertex AI that take its bodies, for the models that it publishes there, and their paths in
            `metered`.
    """

    name: str
    clients: tuple[str, ...]
    hook: Hook
    metered: Mapping[str, Endpoint]
    free: tuple[str, ...]
    prices: str
    price_by: Literal["response", "request"]
    is_copied: bool
    vertex: Mapping[str, str]

    def path(self, path: str) -> str:
        """Return a path as `metered` and `free` have it; a path that this returned is not changed."""
        ...

    def read(self, value: Any, usage: Usage) -> object:
        """Read the counts of a response or of an event of a stream."""

    def reported_cost(self, value: Any) -> Fraction | None:
        """Return the microcents that a gateway reports for a response, or None."""

    def stream(self, body: Mapping[str, Any]) -> StreamRules:
        """Return how the stream of a request reports its usage, its end and its errors."""
        ...

    def error(self, status: int, message: str) -> Mapping[str, Any]:
        """Return the body of an error response, as the provider's SDK understands it."""
        ...


@cache
def provider_named(name: str) -> Provider:
    """Return the module of a provider.

    Raises:
        KeyError: if there is no such provider.
    """
    return cast(Provider, import_module(_OTHERS.get(name) or PROVIDERS[name]))


@cache
def price_by(prices: str) -> Literal["response", "request"]:
    """Return whose model name has the price, by the provider of the price data."""
    found = next((one for one in map(provider_named, PROVIDERS) if one.prices == prices), None)
    return "response" if found is None else found.price_by


def exact(value: Any) -> Fraction | None:
    """Return a number of JSON as the decimal that was written; None for what is no number >= 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return Fraction(Decimal(repr(value)))


_VERSION: Final = re.compile(r"^.*?(?=/v\d+/)")


def from_version(path: str) -> str:
    """Return a path without what a gateway has before the version."""
    return _VERSION.sub("", path, count=1)


def no_cost(value: Any) -> Fraction | None:
    """Return None: the provider's responses report no cost."""
    return None
