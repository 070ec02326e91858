"""A provider of models: it responds to requests of httpx clients, loses some responses, and keeps a bill of each use.

`Use` notes, attempt by attempt, what is billed and what must be charged: see
`docs/providers.md#what-happens-to-a-request`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import httpx

from cycles._flows.io import run

if TYPE_CHECKING:
    from tests.simulation.workload import Op, Program

How: TypeAlias = Literal["whole", "unavailable", "refused", "lost"]
HOW: Final[tuple[How, ...]] = ("whole", "whole", "whole", "unavailable", "refused", "lost")
URL: Final = "http://provider.invalid"
LIMIT: Final = 40
BODY: Final = {"model": "m", "max_output_tokens": LIMIT}
PROMPT_BOUNDS: Final = {False: 52, True: 66}
"""What is reserved for the prompt of a whole response and of a stream; the output limit is added to it."""
COUNTED: Final = 22
"""The estimate of the prompt, which is charged if a stream is left before it reports its usage."""
PROMPT: Final = 12  # what the provider bills for it
MADE: Final = 9  # tokens of the output, if the limit allows them
PARTS: Final = 3  # events of a stream that have a part of it
_TEXT: Final = "abcdefghijkl"
_COUNTED_OF_TEXT: Final = 4
DELAYS_S: Final = (0.0, 0.1, 2.0, 7.0, 30.0)
_USE: Final = "x-use"  # the header that names the use
_Sleep: TypeAlias = Callable[[float], Awaitable[None]]


class Use:
    """One use of a provider: one request of a program, with all its attempts.

    Args:
        program: Whose use it is.
        op: Its notes.
        bound: What an attempt may cost; None: a bound of its prompt, and the output limit that it is sent with.
    """

    def __init__(self, program: Program, op: Op, bound: int | None = None) -> None:
        self.program = program
        self.op = op
        self.random = Random(f"provider of {program.hub.seed} {op.agent}")
        self.stream = self.random.random() < 0.5
        self.leaves_after = self.random.choice((None, None, 0, 1, 2, PARTS + 1)) if self.stream else None
        self.sent = 0  # attempts
        self._given = bound
        self._base = self._billed = 0  # what the attempts before the last one cost, and what was billed for them

    def reserves(self) -> None:
        """Note that the next attempt is about to be reserved; the one before has ended, and is settled."""
        op = self.op
        self._settles()
        op.committing = False
        most = PROMPT_BOUNDS[self.stream] + LIMIT
        op.reaching = op.known + (most if self._given is None else self._given)

    @property
    def body(self) -> dict[str, Any]:
        """The body of its requests."""
        body = {
            **BODY,
            "input": f"{self.op.agent:>5}",
        }  # of no known conversation, whose prompt is bounded by its usage
        return {**body, "stream": True} if self.stream else body

    def begins(self, limit: int) -> int:
        """Note that an attempt is sent; until it gets a status it costs its bound. Return its output limit."""
        op = self.op
        bound = PROMPT_BOUNDS[self.stream] + limit if self._given is None else self._given
        self.sent += 1
        self._base, self._billed, op.ran = op.known, op.billed, True
        op.reservations |= self.program.server.reservations_of(op.agent)
        op.known = op.reaching = self._base + bound
        op.steps.append((self.program.hub.awake_s, op.known))  # its bound was written ahead
        op.committing = True
        return limit

    def bills(self, amount: int) -> None:
        """Note what the provider bills for the attempt."""
        self.op.billed = self._billed + amount

    def costs(self, amount: int) -> None:
        """Note what the attempt costs if it ends now."""
        self.op.known = self._base + amount

    def fails(self) -> None:
        """Note that the attempt has got an error status, or no connection: it costs nothing."""
        op = self.op
        if op.steps and op.known == op.steps[-1][1]:
            op.steps.pop()
        op.known, op.committing = self._base, False

    def ends(self) -> None:
        """Note that the call has returned to the program."""
        op = self.op
        self._settles()
        op.reaching = op.known
        op.releases = op.ran and not op.known

    def _settles(self) -> None:
        """Note that all attempts are settled; or, if a guard around them pays, that what they cost is its spend."""
        if self._given is None:
            self.op.returned = self.op.known
        elif self.sent:
            self.op.steps.append((self.program.hub.awake_s, self.op.known))


class Upstream(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The connections of an httpx client to the provider.

    Args:
        sleep: Lets time pass, in a thread or a task.
    """

    def __init__(self, sleep: _Sleep) -> None:
        self.sleep = sleep
        self._uses: dict[str, Use] = {}

    def expect(self, use: Use) -> dict[str, str]:
        """Return the headers of the requests of a use."""
        self._uses[use.op.agent] = use
        return {_USE: use.op.agent}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return run(self._respond(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._respond(request)

    async def _respond(self, request: httpx.Request) -> httpx.Response:
        use = self._uses[request.headers[_USE]]
        how = use.random.choice(HOW)
        if how == "refused":
            raise httpx.ConnectError("connection refused", request=request)
        body = json.loads(request.read())
        limit = use.begins(body["max_output_tokens"])
        bill = PROMPT + min(MADE, limit)
        await self.sleep(use.random.choice(DELAYS_S))
        if how == "lost":
            use.bills(bill)
            raise httpx.ReadError("connection reset", request=request)
        if how == "unavailable":
            use.fails()
            return httpx.Response(503, stream=httpx.ByteStream(b'{"error": {}}'), request=request)
        is_stream = body.get("stream") is True
        use.bills(PROMPT if is_stream else bill)
        if is_stream:
            use.costs(COUNTED + 1)
        parts = _events(use, limit) if is_stream else _whole(use, limit)
        content: Any = _Stream(use, parts, self.sleep)
        kind = "text/event-stream" if is_stream else "application/json"
        return httpx.Response(200, headers={"content-type": kind}, stream=content, request=request)


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response body. Its connection may break between two parts."""

    def __init__(self, use: Use, parts: Iterator[bytes], sleep: _Sleep) -> None:
        self._use = use
        self._parts = parts
        self._sleep = sleep
        self._breaks_before = use.random.choice((None, None, None, 0, 1, 2, 3))

    def __iter__(self) -> Iterator[bytes]:
        while (part := run(self._next())) is not None:
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._next()) is not None:
            yield part

    async def _next(self) -> bytes | None:
        if self._breaks_before is not None:
            self._breaks_before -= 1
            if self._breaks_before < 0:
                raise httpx.ReadError("connection reset")
        if self._use.random.random() < 0.3:
            await self._sleep(self._use.random.choice(DELAYS_S))
        return next(self._parts, None)


def _response(limit: int) -> dict[str, Any]:
    made = min(MADE, limit)
    usage = {"input_tokens": PROMPT, "output_tokens": made, "total_tokens": PROMPT + made}
    return {"id": "resp_1", "model": "m", "status": "completed", "usage": usage}


def _whole(use: Use, limit: int) -> Iterator[bytes]:
    """Yield a whole response in two parts. Until all of it has arrived, it costs its bound."""
    content = json.dumps(_response(limit)).encode()
    yield content[:20]
    yield content[20:]
    use.costs(PROMPT + min(MADE, limit))


def _events(use: Use, limit: int) -> Iterator[bytes]:
    """Yield a stream. If it is left, what it has made is charged by its estimate."""
    yield _event("response.created", response={"id": "resp_1", "model": "m"})
    for number in range(1, PARTS + 1):
        use.bills(PROMPT + min(MADE // PARTS * number, limit))
        use.costs(COUNTED + min(_COUNTED_OF_TEXT * number, limit))
        yield _event("response.output_text.delta", delta=_TEXT)
    bill = PROMPT + min(MADE, limit)
    use.bills(bill)
    use.costs(bill)
    yield _event("response.completed", response=_response(limit))


def _event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()
