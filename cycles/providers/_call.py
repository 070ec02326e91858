"""One request of a guarded client: its plan, its limits, what its response reports, and what it cost. No I/O."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from attrs import field, frozen

from cycles._core.amounts import Amount, tokens, usd_microcents
from cycles._core.subjects import Subject
from cycles._core.values.usage import MAX_MODEL_VERSION, Usage
from cycles._errors import InvalidRequestError, UnknownModelError
from cycles._usage.estimating import (
    Files,
    Shape,
    guardrail_units,
    has_guardrail,
    output_maximum,
    results_of,
    searches_in_chat,
    shape_of,
)
from cycles._usage.pricing import rounded_up
from cycles._usage.readers import code_sessions, reported_total
from cycles.prices import Origin, PriceBook
from cycles.providers._admission import Need
from cycles.providers._bodies import (
    check_limits,
    limit_of,
    model_of,
    number_at,
    parsed_json,
    thinking_budget,
    tier_of,
    was_sent,
)
from cycles.providers._conversations import Chain, chain_of
from cycles.providers._endpoints import normalized
from cycles.providers._frames import FrameFilter
from cycles.providers._held import HeldResponses, response_in, responses_in, running_in
from cycles.providers._hosts import billed_by, is_free
from cycles.providers._meter import Meter, Request
from cycles.providers._paid import current_payer
from cycles.providers._provider import Endpoint, StreamRules, price_by
from cycles.providers._stream_filter import StreamFilter, parsed, strings_of

Outcome: TypeAlias = Literal["closed", "error"] | None

UNLIMITED_REQUEST_TOKENS: Final = 16_384
"""The output limit that a request without one gets if the maximum of its model does not fit into its budgets."""
PROJECT_HEADER: Final = "openai-project"
_LONGEST_KEY: Final = 256
_EVENTS: Final = re.compile(rb"\s*(?:data|event|id|retry)?:")
"""How server-sent events begin."""

_log: Final = logging.getLogger("cycles")


@frozen(eq=False)
class End:
    """How a response has ended. It is stored before the response is priced, so that an interruption loses nothing.

    Attributes:
        outcome: How it ended, if not normally.
        raised: What the SDK raised.
        response: The response as a later request has retrieved it, if it was made in the background.
    """

    outcome: Outcome
    raised: BaseException | None
    response: Mapping[str, Any] | None = None


@frozen
class Ending:
    """How a call is settled: an amount to commit, or a reason to release."""

    amount: Amount | None
    reason: str | None = None
    metadata: Mapping[str, Any] = field(factory=dict)


class Call:
    """One request, from its plan to its settlement. `response` and `conclude` may run in different threads."""

    def __init__(
        self, meter: Meter, endpoint: Endpoint | None, path: str, body: Mapping[str, Any], *, stream: bool, url: str
    ) -> None:
        self.meter = meter
        self.endpoint = endpoint or Endpoint(normalized(path), "unknown", "llm.completion")
        self.payer = current_payer() if self.is_metered else None  # it has reserved, and gets the cost
        self.book, self.actual = meter.book, meter.actual
        self.request = Request(
            provider=meter.provider,
            endpoint=self.endpoint.name,
            path=path,
            model=model_of(path, body),
            body=MappingProxyType(dict(body)),
            max_output_tokens=limit_of(self.endpoint, body),
            stream=stream,
        )
        at = datetime.now(UTC)
        address = None if meter.pricing != meter.api.prices else url
        self.origin = Origin(model=self.request.model, provider=meter.pricing, url=address, at=at)
        self.usage = self.billed = Usage()
        self.files = Files()
        self.number = 1  # of its reservation: each attempt after a lost one has its own
        self.attempts = self.over = 0  # how many were sent, and how many of them have ended
        self.unanswered = 0
        self.responded = False
        self.output_limit: int | None = None  # to which the request was lowered, so that it fits its budgets
        self.waited = False
        self.sent_limit: int | None = None
        self.hide_usage = False
        self.notes: dict[str, str] = {}  # metadata: the project, the agent behind its parents, the run
        self.agent: str | None = None  # whose call it is, for the subject
        self.flat = not self.is_metered  # it costs what is reserved: nothing has a price for it
        self.streams = False  # the response is settled when the user has read it
        self.guard: Any = None  # a GuardState, or the enclosing guard
        self.runtime: Any = None  # of the client that has reserved; it settles also if the client is closed
        self.client: Any = meter.client if self.payer is None else None
        self.need: Need | None = None
        self.bound: Callable[[int], int] | None = None  # what it may cost at an output limit
        self.admissions: Any = None  # of the client that has reserved
        self.held_in: HeldResponses[Call] | None = None  # has the call while its response is made in the background
        self.held_id: str | None = None  # of that response
        self.timer: Any = None  # ends the call if its response is not retrieved in time
        self._ends: dict[None, End] = {}
        self.ending: Ending | None = None  # set by `conclude`
        self.noted = 0  # of its bound, in what its enclosing guard has written ahead
        self.spends = False  # an enclosing guard pays, and had spent `spent_before` until then
        self.spent_before: Amount | None = None
        self.event_key: str | None = None  # of what is recorded because that guard has ended
        self.rules: StreamRules = meter.api.stream(self.request.body)
        self._url = url
        self._chain: Chain | None = None
        self._exact = False  # the response has reported its totals
        self._sessions: dict[str, int] = {}  # containers that have run code, and what each costs
        self._total = 0  # tokens that the response reports, with or without their parts
        self._takes_cost = meter.takes_cost(url)
        self._cost: Fraction | None = None  # in microcents, as the response reports it
        self._failed = False
        self._token = object()
        self._content: bytes | None = None  # of a response that is not read yet
        self.in_headers: Mapping[str, Any] | None = None
        self._whole: Any = None
        self._chunks: list[Any] = []
        self._filter: StreamFilter | None = None
        self._pid = os.getpid()
        if self.payer is not None:
            price = self.payer.price
            self.book, self.actual = (price, None) if isinstance(price, PriceBook) else (None, price)
            self.flat = price is None and self.payer.estimate.unit != "TOKENS"

    @property
    def is_background(self) -> bool:
        """Whether the provider is to make the response in the background."""
        background = self.endpoint.background
        return background is not None and self.request.body.get(background.member) is True

    @property
    def is_metered(self) -> bool:
        """Whether its endpoint is in the table of the provider: others cost what the user estimates."""
        return self.endpoint.kind != "unknown"

    # --- before the request

    def again(self) -> Call:
        """Return the call of the attempt after this one, which was lost: nothing is reserved for it yet."""
        request = self.request
        made = Call(self.meter, self.endpoint, request.path, request.body, stream=request.stream, url=self._url)
        made.number, made.files, made.notes, made.agent = self.number + 1, self.files, self.notes, self.agent
        made.held_in = self.held_in
        made.reserved = made.estimate()
        return made

    @property
    def charges_lost(self) -> bool:
        """Whether an attempt that got no status costs what is reserved. A payer has reserved only once."""
        return self.meter.lost_attempt == "bound" and self.payer is None

    @property
    def is_free(self) -> bool:
        """Whether the request costs nothing, because the user says so of its host."""
        is_priced = self.is_metered and self.payer is None and not self._in_tokens
        return is_priced and self.meter.actual is None and is_free(self._url, self.meter.free_hosts)

    def planned_limit(self) -> int | None:
        """Return the output limit before caps: the request's, at most `max_output_tokens`."""
        limits = [n for n in (self.request.max_output_tokens, self.meter.max_output_tokens) if n is not None]
        return min(limits) if limits else None

    def estimate(self) -> Amount:
        """Return what to reserve.

        Raises:
            UnknownModelError: if the price book does not know the model.
            InvalidRequestError: if an output limit is no integer of 0 or more, or a callable returns no amount.
        """
        if self.payer is not None:
            return self.payer.estimate
        check_limits(self.endpoint, self.request.body, least=0)
        if self.is_free:
            return usd_microcents(0)
        given = self.meter.estimate
        if given is not None:
            amount = given if isinstance(given, Amount) else given(self.request)
            if not isinstance(amount, Amount):
                raise InvalidRequestError(
                    f"estimate must return an amount such as cycles.usd('0.05'), got {amount!r:.80}"
                )
            if amount.unit not in ("USD_MICROCENTS", "TOKENS") and self.meter.actual is None:
                raise InvalidRequestError(f"an estimate in {amount.unit} needs actual=: pass it to guard()")
            if self.is_metered and self.meter.actual is None and amount.unit != "TOKENS":
                self._book().check(self._model(), self.origin)
            return amount
        limit = self.planned_limit()
        most = self._maximum() if limit is None else limit
        shape = shape_of(self.request.body, kind=self.endpoint.kind, output_tokens=most, files=self.files)
        bounds = self._bounds(shape)
        amount = bounds(shape.output_tokens)
        if self.endpoint.limits:
            self.bound = lambda n: bounds(n).amount
        self.need = self._need(amount.amount, limit, most, lambda n: bounds(n).amount)
        return amount

    def _bounds(self, shape: Shape) -> Callable[[int], Amount]:
        """Return what the request may cost at most, by its output limit."""
        body, known_input = self.request.body, self._known_input()
        if self._in_tokens:
            book = self.meter.book or PriceBook({})
            return book.token_bounds(self.request.model or "", body, shape, known_input=known_input)
        context = tier_of(self.endpoint, self.request.body)
        return self._book().bounds(
            self._model(), body, shape, known_input=known_input, context=context, origin=self.origin
        )

    @property
    def _in_tokens(self) -> bool:
        return self.meter.estimate is None and self.meter.unit == "TOKENS"

    def _known_input(self) -> int | None:
        """Return a bound of the input by what the provider has counted of this conversation, if it has."""
        book = self.meter.book
        if book is not None and book.counts_tokens:
            return None
        self._chain = chain_of(self.endpoint.name, (self.request.model, self._url), self.request.body)
        return None if self._chain is None else self.meter.conversations.bound(self._chain, self.request.model or "")

    def _maximum(self) -> int:
        """Return the output limit that the provider enforces for a request without one."""
        most = output_maximum((self.request.model or "") if self._in_tokens else self._model())
        if self.endpoint.limits:
            self.meter.report_maximum(most)
        return most

    def _need(self, first: int, limit: int | None, most: int, bound: Callable[[int], int]) -> Need:
        """Return what the call needs, if its output limit may be lowered."""
        least = self.meter.min_output_tokens
        if least is None or not self.endpoint.limits:
            return Need(first)
        lowest = min(most, least + thinking_budget(self.endpoint, self.request.body))
        if limit is None:
            limit = min(most, max(UNLIMITED_REQUEST_TOKENS, lowest))
        return Need(first, limit, lowest, bound)

    @property
    def lowest_cost(self) -> str:
        """What the call may cost at the lowest output limit that it may get, for people."""
        need = self.need
        if need is None or need.bound is None:
            return str(self.reserved)
        return f"{Amount(self.reserved.unit, need.least)} at an output limit of {need.lowest} tokens"

    def admitted(self, amount: Amount, limit: int | None) -> None:
        """Note what was reserved, and the output limit that it pays for."""
        self.reserved = amount
        planned = self.planned_limit()
        if limit is not None and (planned is None or limit < planned):
            self.output_limit = limit
            self.meter.report_lowered(planned, limit)

    def _book(self) -> PriceBook:
        book = self.book
        if book is None:
            raise InvalidRequestError("this request needs prices: pass prices= to guard()")
        return book

    def _model(self) -> str:
        model = self.request.model or self._book().default_model
        if model is None:
            raise UnknownModelError(
                f"a request to {self.request.path} names no model: pass model=, or a price book with default_model="
            )
        return model

    def reserve_options(self) -> dict[str, Any]:
        """Return the keywords of `Cycles.reserve` for this request."""
        meter, request = self.meter, self.request
        action = meter.action(request) if callable(meter.action) else meter.action
        if action is None:
            action = (self.endpoint.action, request.model or request.endpoint)
        options = dict(meter.options)
        options["action"] = action
        options["subject"] = meter.subject(request) if callable(meter.subject) else meter.subject
        if self.agent is not None:
            given = options["subject"] or {}
            options["subject"] = {**(given.to_dict() if isinstance(given, Subject) else given), "agent": self.agent}
        options["metadata"] = self._metadata(meter.metadata(request) if callable(meter.metadata) else meter.metadata)
        if meter.idempotency_key is not None:
            options["idempotency_key"] = _key_of(meter.idempotency_key(request), self.number)
        return options

    def _metadata(self, given: Any) -> Any:
        """Return the metadata of the user with what joins a reservation with the provider's bill."""
        if given is not None and not isinstance(given, Mapping):
            return given  # `reserve` rejects it
        meter = self.meter
        is_own = meter.pricing == meter.api.prices  # a client of a cloud is billed by that cloud
        provider = billed_by(self._url, meter.pricing, is_copied=meter.api.is_copied) if is_own else meter.pricing
        return {**({} if provider is None else {"provider": provider}), **self.notes, **(given or {})}

    def limits(self, max_tokens: int | None) -> dict[str, int]:
        """Return the output limits to set in the body, by their names in the endpoint table.

        Args:
            max_tokens: The cap of the reservation.

        Raises:
            InvalidRequestError: if a lower limit leaves no space for Anthropic's thinking budget.
        """
        allowed = [n for n in (self.planned_limit(), self.output_limit, max_tokens) if n is not None]
        self.sent_limit = min(allowed) if allowed else None
        if not self.endpoint.limits or self.sent_limit is None:
            return {}
        body, limit = self.request.body, self.sent_limit
        present = {name: n for name in self.endpoint.limits if (n := number_at(body, name)) is not None}
        changed = {name: limit for name, n in present.items() if n > limit} if present else {}
        if not present:
            changed = {self.endpoint.limits[0]: limit}
        budget = thinking_budget(self.endpoint, body)
        if changed and self.endpoint.is_thinking_below and budget and budget >= limit:
            raise InvalidRequestError(
                f"the output limit of {limit} tokens leaves no space for thinking.budget_tokens={budget}: lower the "
                "budget, or raise max_output_tokens= or the caps"
            )
        return changed

    def with_usage_event(self) -> dict[str, Any]:
        """Return the change of the body that requests the usage event of its stream, and hide the event from the user.

        Empty if the stream has none, or if the user decides about it.
        """
        requested = self.rules.requested if self.is_metered and self.request.stream else {}
        self.hide_usage = bool(requested)
        return dict(requested)

    @property
    def usage_event(self) -> bool:
        """Whether the stream ends with an event that reports its usage."""
        return self.rules.is_usage_last

    # --- the response

    def retried(self, response: object, error: BaseException | None) -> bool:
        """Note that an attempt failed and the SDK sends another; return whether this call ends with the attempt."""
        if response is None and self._is_lost(error):
            if self.charges_lost:
                return True
            self.unanswered += 1
        self.over = self.attempts  # a cancellation of the pause before the next one loses none
        return False

    def _is_lost(self, error: BaseException | None) -> bool:
        """Return whether an attempt was sent and ended without a status: the provider may have billed it."""
        return self.attempts > self.over and not self.responded and was_sent(error)

    def whole(self, content: bytes, reported: Mapping[str, Any] | None = None) -> None:
        """Read a whole response. If that is interrupted, `conclude` reads it again.

        Args:
            content: Its body.
            reported: What its headers report.
        """
        self.in_headers = reported
        self._content, self.responded = content, True
        self._read_whole()

    def _read_whole(self) -> None:
        if self._content is None:
            return
        value = parsed_json(self._content)
        if value is None and _EVENTS.match(self._content):  # some gateways stream what no request asked them to stream
            self.stream().feed(self._content)
        elif isinstance(value, list) and self.request.stream:  # Gemini's stream without ``alt=sse``
            self._chunks.clear()
            for chunk in value:
                self.chunk(chunk)
        else:
            self._read_response(value)
        self._content = None

    def _read_response(self, response: Any) -> None:
        self._whole = response
        self._read(response)
        self._read_headers()
        self._exact = bool(self.usage.responses())

    def _read_headers(self) -> None:
        if self.in_headers is not None:
            self._read(self.in_headers)

    def chunk(self, value: Any) -> None:
        """Read a decoded chunk of a stream."""
        self.responded = True
        self._chunks.append(value)
        self._read_chunk(value)

    def _read_chunk(self, value: Any) -> None:
        self._read(value)
        if isinstance(value, Mapping):
            self._failed = self._failed or self.rules.failed(value)
            self._exact = self._exact or self.rules.usage(value, False) == "total"

    def stream(self, *, in_frames: bool = False) -> StreamFilter:
        """Begin to read a stream of events, or of frames of AWS, and return its filter."""
        self.responded = True
        rules = self.rules
        self._filter = FrameFilter(rules) if in_frames else StreamFilter(rules, hide_usage=self.hide_usage)
        return self._filter

    def read_reported(self) -> None:
        """Read the events with usage that the filter has seen."""
        if self._filter is not None:
            self._filter.see_rest()  # the response has ended
            for value in self._filter.reported():
                self._read(value)
            self._read_headers()

    def running_response(self) -> str | None:
        """Return the id of the response if it is still being made in the background, as far as it has reported."""
        background = self.endpoint.background
        if background is None or not self.is_background or self.end is not None:
            return None
        if self._filter is not None:
            return running_in(background, responses_in(self._filter))
        return running_in(background, iter([response_in(self._whole)]))

    def _read(self, value: Any) -> None:
        self.meter.api.read(value, self.usage)
        self._total = max(self._total, reported_total(value))
        if self._takes_cost and (cost := self.meter.api.reported_cost(value)) is not None:
            self._cost = cost
        if "code_sessions" in self.usage.counts:
            self._sessions.update(code_sessions(value))

    @property
    def chunks_outcome(self) -> Outcome:
        """How a stream of decoded chunks that ended normally has ended."""
        return "error" if self._failed else None

    @property
    def stream_outcome(self) -> Outcome:
        """How a stream that is closed now has ended."""
        if self._failed:
            return "error"
        if self._filter is None:
            return "closed" if not self._exact else None
        self._filter.see_rest()
        if self._filter.failed:
            return "error"
        return None if self._filter.complete or self._filter.usage_seen else "closed"

    # --- what it cost

    @property
    def is_mine(self) -> bool:
        """Whether this process has made the call."""
        return self._pid == os.getpid()

    @property
    def end(self) -> End | None:
        """What settles it; None until `claim_end`."""
        return self._ends.get(None)

    def claim_end(self, end: End) -> bool:
        """Become the one that settles this call; False if it is settled or being settled, or is the parent process's.

        A forked child has a copy of each call of its parent. It ends when the child drops it, and reports less usage.
        """
        if not self.is_mine:
            return False
        # One call of C code and no lock: a signal handler may end calls in the middle of it.
        return self._ends.setdefault(None, end) is end

    def paid(self, outcome: Outcome) -> Ending:
        """Return what the payer is to commit; a response that has not ended ends now, with this outcome."""
        self.claim_end(End(outcome, None))
        return self.conclude(self.end or End(outcome, None))

    def add_usage(self, usage: Usage) -> None:
        """Add what the response used to the usage of the guard that pays."""
        # Not by `self`: a call refers to its guard, which has this usage. Only the garbage collector ends such a cycle.
        for number, one in enumerate(self.billed.responses()):
            usage.see_response((self._token, number), one.counts, model=one.model, context=one.context)

    def conclude(self, end: End) -> Ending:
        """Return how the call is settled. Raises only what interrupts it, and may be called again then."""
        if self.ending is None:
            if end.response is not None:
                self._read_response(end.response)
            self.ending = self._conclude(end.outcome, end.raised)
            if self._filter is not None:
                self._filter.kept.clear()
        return self.ending

    def _conclude(self, outcome: Outcome, raised: BaseException | None) -> Ending:
        self._read_whole()
        for value in self._chunks[-1:]:
            self._read_chunk(value)
        lost = self._is_lost(raised)
        unanswered = self.unanswered + lost
        if not self.responded and not unanswered:
            failed = f"provider_call_failed:{type(raised).__name__}" if raised is not None else "provider_not_called"
            return Ending(None, failed)
        metadata: dict[str, Any] = {}
        if raised is not None and outcome is None:
            outcome = "error"
        if outcome is not None:
            metadata["outcome"] = outcome
        if unanswered:
            metadata["attempts"] = self.attempts
        if self.output_limit is not None:
            metadata["output_limit"] = self.sent_limit or self.output_limit
        if lost and self.charges_lost:
            return Ending(self.reserved, None, {**metadata, "actual_source": "estimate"})
        try:
            amount, more = self._amount(outcome, unanswered)
        except Exception as error:  # a price or a callable of the user failed; the spend must not be lost
            _log.warning("the price of a request to %s failed, its estimate is settled: %r", self.request.path, error)
            amount, more = self.reserved, {"actual_source": "estimate"}
        return Ending(amount, None, {**metadata, **more, **self._billed_as()})

    def _billed_as(self) -> dict[str, str]:
        """Return the model and the tier under which the provider bills the response, if they are not the usual ones."""
        found: dict[str, str] = {}
        model = self.usage.model_version
        if model is not None and self.request.model is not None and model != self.request.model:
            found["response_model"] = model[:MAX_MODEL_VERSION]
        for one in self.usage.responses():
            tier = one.context.get("service_tier") or one.context.get("processing")
            if tier is not None and tier not in ("default", "standard", "auto"):
                found["service_tier"] = tier
        return found

    @property
    def reserved(self) -> Amount:
        """What was estimated."""
        return self._reserved

    @reserved.setter
    def reserved(self, amount: Amount) -> None:
        self._reserved = amount

    def _amount(self, outcome: Outcome, unanswered: int) -> tuple[Amount, dict[str, Any]]:
        if self.flat:
            self.read_reported()
            return self.reserved, {"actual_source": "estimate"}
        more: dict[str, Any] = {}
        ended = self._has_totals(outcome)
        if self.actual is None and self.reserved.unit != "TOKENS":
            if self.is_free:
                return self.reserved, {"price_source": "free_host"}
            if self._cost is not None:
                return self._reported(self._cost, unanswered)
        exact = self._is_exact(ended)
        if exact and self._chain is not None and self.attempts == 1 and self.usage.tokens_input:
            self.meter.conversations.learn(self._chain, self.usage.tokens_input)
        if not exact:
            more["actual_source"] = "estimate"
            if not self._estimate_response(ended):
                return self.reserved, more
        if self.reserved.unit != "TOKENS" and (self._count_search() or self._count_guardrail()):
            more["actual_source"] = "estimate"
        for number in range(unanswered):
            more["actual_source"] = "estimate"
            counts = {"tokens_input": self._count_input()}
            self.usage.see_response(("unanswered", number), counts, model=self.request.model)
        usage = self.billed = self._usage_to_price()
        if usage.counts.get("tokens_output_bound"):
            more["actual_source"] = "estimate"
        if self.actual is not None:
            amount = self.actual(usage)
            if not isinstance(amount, Amount) or amount.unit != self.reserved.unit:
                raise InvalidRequestError(f"actual must return an amount in {self.reserved.unit}, got {amount!r:.80}")
            return amount, more
        if self.reserved.unit == "TOKENS":
            return tokens(usage.tokens_input + usage.tokens_output), more
        priced = self._book().priced(usage, self.origin)
        if priced.unpriced:
            more["unpriced"] = list(priced.unpriced)
        if priced.fallback:
            more["price_source"] = "fallback"
        if priced.rules:
            more["price_rules"] = dict(priced.rules)
        if "bound" in priced.rules.values():
            more["actual_source"] = "estimate"
        return priced.amount, more

    def _reported(self, cost: Fraction, unanswered: int) -> tuple[Amount, dict[str, Any]]:
        """Return the cost that the response reports, with an estimate of each attempt that got no response."""
        amount = rounded_up([cost])
        if not unanswered:
            return amount, {"price_source": "reported"}
        usage, counts = Usage(), {"tokens_input": self._count_input()}
        for number in range(unanswered):
            usage.see_response(number, counts, model=self.request.model)
        more = {"price_source": "reported", "actual_source": "estimate"}
        return amount + self._book().priced(usage, self.origin).amount, more

    def _has_totals(self, outcome: Outcome) -> bool:
        """Return whether the response has reported its totals."""
        self.read_reported()
        seen = self._filter
        exact = self._exact or (seen is not None and seen.usage_seen)
        # Gemini's totals are exact at the end of a stream; one whose prompt is blocked has no finish reason.
        return exact or (outcome is None and self.rules.running_totals and self.usage.is_filled)

    def _is_exact(self, ended: bool) -> bool:
        """Return whether the response has reported all that its charge needs."""
        exact = ended and not self._missing()
        if self.actual is None and self.reserved.unit == "TOKENS":  # others report seconds or characters
            return exact and self.usage.tokens_input + self.usage.tokens_output > 0
        return exact or self._count_speech()

    def _missing(self) -> set[str]:
        """Return which of input and output the response of a text model has not reported; a reported 0 is a count."""
        if self.endpoint.kind != "text":
            return set()
        return {"tokens_input", "tokens_output"}.difference(*(one.counts for one in self.usage.responses()))

    def _usage_to_price(self) -> Usage:
        """Return the usage with the models whose prices apply, without what is paid already."""
        if price_by(self.meter.pricing) == "request":
            return _named(self.usage, self.request.model)
        return self._without_paid_sessions() if self._sessions else self.usage

    def _without_paid_sessions(self) -> Usage:
        """Return the usage without the containers that an earlier request has paid: one costs once in 20 minutes."""
        now = monotonic()
        paid = sum(
            size for name, size in self._sessions.items() if not self.meter.sessions.pays(name, now, self._token)
        )
        usage = Usage()
        for number, one in enumerate(self.usage.responses()):
            counts = dict(one.counts)
            if n := counts.get("code_sessions", 0):
                counts["code_sessions"], paid = max(0, n - paid), max(0, paid - n)
            usage.see_response(number, counts, model=one.model, context=one.context)
        return usage

    def _count_search(self) -> bool:
        """Count one web search of a chat completion that searches: its usage does not report it."""
        if self.endpoint.name != "chat.completions" or not self.responded:
            return False
        if self.usage.counts.get("web_searches") or not searches_in_chat(self.request.body):
            return False
        self.usage.see_response(None, {"web_searches": 1}, model=self.usage.model_version or self.request.model)
        return True

    def _count_guardrail(self) -> bool:
        """Count the most that a guardrail has evaluated, if the response does not report it."""
        if not has_guardrail(self.request.body):
            return False
        if any("guardrail_units" in one.counts for one in self.usage.responses()):
            return False
        written = sum(len(text) for made in self._made() for text in made)
        self.usage.see_response(None, guardrail_units(self.request.body, written))
        return True

    def _count_speech(self) -> bool:
        """Count the characters of a speech request, if they have a price: its response reports nothing."""
        spoken = self.request.body.get("input")
        if self.endpoint.kind != "speech" or not isinstance(spoken, str):
            return False
        book, model = self.book, self.request.model
        if book is None or model is None or "characters_input" not in book.price(model).per_call:
            return False
        self.usage.see_response(None, {"characters_input": len(spoken)}, model=model)
        return True

    def _estimate_response(self, ended: bool) -> bool:
        """Count what a response made so far, or what its totals lack; False if that is unknown."""
        if not self.responded:
            return True  # only attempts without a response
        if self.charges_lost and self._whole is None and self._filter is None and not self.request.stream:
            return False  # a whole response that was not read to its end, which the provider has made and billed
        if self.endpoint.kind not in ("text", "embedding"):
            return False
        if self.is_background and not self.usage.responses():
            return False  # the provider continues with it
        missing = self._missing() if self.usage.responses() else {"tokens_input", "tokens_output"}
        counts: dict[str, int] = {}
        if "tokens_input" in missing or not (ended or self.usage.tokens_input):
            is_input = self.endpoint.kind == "embedding"  # all of its total
            counts["tokens_input"] = (is_input and self._total) or self._count_input()
        if self.endpoint.kind == "text" and ("tokens_output" in missing or not ended):
            rest = self._total - counts["tokens_input"] if "tokens_input" in missing else 0  # of a total alone
            counts["tokens_output"] = max(self._count_output(self._made()), self.usage.tokens_output, rest)
        self.usage.see_response(None, counts, model=self.usage.model_version or self.request.model)
        return True

    def _made(self) -> list[list[str]]:
        """Return the strings that each event carried, if it carried any."""
        if self._filter is not None:
            found = [list(strings_of(parsed(event))) for event in self._filter.kept]
        elif self._chunks:
            found = [list(strings_of(chunk)) for chunk in self._chunks]
        else:
            found = [list(strings_of(self._whole))]
        return [made for made in found if made]

    def _count_input(self) -> int:
        book = PriceBook({}) if self.book is None else self.book
        return book.count_input(self.request.model or "", self.request.body)

    def _count_output(self, made: list[list[str]]) -> int:
        text, book = "".join(map("".join, made)).encode("utf-8", "surrogatepass"), self.book
        counted = None if book is None else book.count_output(self.request.model or "", text)
        if counted is None:
            counted = max(-(-len(text) // 3), len(made))
        if self.sent_limit is not None:
            counted = min(counted, self.sent_limit * results_of(self.request.body))
        return max(1, counted)


def _key_of(key: str, number: int) -> str:
    """Return the idempotency key of a reservation: a later one of the same request has another key."""
    if number == 1 or not isinstance(key, str):
        return key  # `reserve` rejects what is no string
    found = f"{key}:{number}"
    return found if len(found) <= _LONGEST_KEY else hashlib.sha256(found.encode()).hexdigest()


def _named(usage: Usage, model: str | None) -> Usage:
    """Return a usage whose responses are all of one model."""
    found = Usage()
    for number, one in enumerate(usage.responses()):
        found.see_response(number, one.counts, model=model, context=one.context)
    return found
