"""Calls of models whose client is unknown: reserved as a guarded client reserves, and priced by what they report.

A framework's guarded model begins and ends each of its calls here. This module is their `Provider`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Literal

from cycles._core.values.usage import Usage
from cycles.providers._call import Call, Ending, Outcome
from cycles.providers._meter import Meter, make_meter
from cycles.providers._paid import current_payer, paid_by, sum_of
from cycles.providers._provider import Endpoint, Hook, StreamRules, no_cost
from cycles.providers._pump import broken
from cycles.providers._settle import TASK, end_call, open_call

if TYPE_CHECKING:
    from cycles import Amount

name: Final = "framework"
clients: Final[tuple[str, ...]] = ()
hook: Final[Hook] = "httpx"
metered: Final[Mapping[str, Endpoint]] = {
    "/messages": Endpoint("messages", "text", "llm.completion", ("max_tokens",)),
    "/embeddings": Endpoint("embeddings", "embedding", "llm.embedding"),
}
free: Final[tuple[str, ...]] = ()
prices: Final = ""
price_by: Final[Literal["response"]] = "response"
is_copied: Final = False
vertex: Final[Mapping[str, str]] = {}
reported_cost = no_cost


def path(path: str) -> str:
    """Return a path unchanged."""
    return path


def read(value: Any, usage: Usage) -> None:
    """Read what a framework reports: `counts` of one response so far, its `model`, and the `context` of its price."""
    if value["counts"]:
        usage.see_response("reported", value["counts"], model=value["model"], context=value["context"])


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: each report has the totals so far."""
    return StreamRules(running_totals=True)


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    return {"error": {"message": message}}


class Inside:
    """What pays for the requests of guarded clients that are sent inside of a call: the call, once."""

    def __init__(self, call: MeteredCall) -> None:
        self.meter = call.meter
        self.estimate: Amount = call.reserved
        self.price: Callable[[Usage], Amount] | None = call.book if call.actual is None else call.actual
        self.requests: list[Any] = []
        self._usage = call.usage

    def bind(self, request: Any) -> None:
        """Take a request that is about to be sent."""
        self.requests.append(request)

    def ended(self, request: Any) -> None:
        """Add what a request used."""
        request.add_usage(self._usage)


class MeteredCall(Call):
    """One call of a model whose client is unknown."""

    def __init__(self, meter: Meter, body: Mapping[str, Any], *, stream: bool, url: str) -> None:
        super().__init__(meter, metered["/messages"], "/messages", body, stream=stream, url=url)
        self.reserved = self.estimate()
        self._inside = Inside(self)

    def begin(self) -> dict[str, int]:
        """Reserve, as `ReportedCall` says."""
        return self.limits(open_call(self))

    async def abegin(self) -> dict[str, int]:
        """As `begin`, for a coroutine."""
        return self.limits(await TASK.open(self))

    def inside(self) -> AbstractContextManager[None]:
        """Return the block in which the model runs. Enter it for each step of a stream, never across a ``yield``."""
        return paid_by(self._inside)

    def report(
        self,
        texts: Iterable[str],
        counts: Mapping[str, int],
        model: str | None,
        context: Mapping[str, str],
        *,
        complete: bool,
    ) -> None:
        """Read a response, or a part of a stream, as `ReportedCall` says."""
        if not self._inside.requests:  # guarded clients have reported more
            made = [{"text": text} for text in texts]
            value: dict[str, Any] = {"candidates": made, "counts": counts, "model": model, "context": context}
            value["complete"] = complete
            self._whole = None if self.request.stream else value
            self.chunk(value)

    def finish(self, raised: BaseException | None = None) -> None:
        """Settle the call; `raised` is why it has no complete response. Raises nothing that a server can cause."""
        end_call(self, *self._ended(raised))

    async def afinish(self, raised: BaseException | None = None) -> None:
        """As `finish`, for a coroutine."""
        await TASK.end(self, *self._ended(raised))

    def _ended(self, raised: BaseException | None) -> tuple[Outcome, BaseException | None]:
        if raised is None:
            self.responded = True
            return None, None
        if self.responded:
            return broken(raised), None
        # A call that failed costs nothing, one that was left does.
        self.attempts = int(not isinstance(raised, Exception))
        return None, raised

    def _read_chunk(self, value: Any) -> None:
        self._read(value)
        self._exact = self._exact or (value["complete"] and self.usage.is_filled)

    def _conclude(self, outcome: Outcome, raised: BaseException | None) -> Ending:
        paid = sum_of([request.paid(outcome) for request in self._inside.requests])
        return super()._conclude(outcome, raised) if paid is None else Ending(paid[0], None, paid[1])


class MeteredModel:
    """The settings of one guarded model of a framework.

    Args:
        pricing: The provider of the price data.
        options: The options of `guard`.
        on_error: Gets the error of each reservation that fails, before it is raised.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
        ConfigurationError: if prices are needed and the extra is missing.
    """

    def __init__(
        self, pricing: str, options: Mapping[str, Any], on_error: Callable[[BaseException], object] | None
    ) -> None:
        self._meter = make_meter(name, pricing, options, on_error=on_error)

    def call(self, body: Mapping[str, Any], *, stream: bool, url: str) -> MeteredCall | None:
        """Return a call with its estimate, as `ReportedModel` says."""
        around = current_payer()
        if isinstance(around, Inside) and around.meter is self._meter:
            return None
        if self._meter.endpoint("POST", "/messages", url) is None:
            return None
        return MeteredCall(self._meter, body, stream=stream, url=url)

    def bound(self, body: Mapping[str, Any], *, embeds: bool) -> Amount:
        """Return what a request may cost at most, as `ReportedModel` says."""
        path = "/embeddings" if embeds else "/messages"
        return Call(self._meter, metered[path], path, body, stream=False, url="").estimate()
