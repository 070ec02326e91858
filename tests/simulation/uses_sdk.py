"""Calls of guarded SDK clients: the real hooks of `cycles.providers`, over a fake SDK that retries and a fake provider.

Threads and tasks call; streams are left, and connections break before and in the middle of a response. Beneath a guard
with `within="enclosing"`, the guard pays for all attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import TYPE_CHECKING, Any, Final

import httpx

from cycles.providers import _httpx, _stainless
from cycles.providers._meter import make_meter
from tests.simulation.byte_codes import Interrupted, points
from tests.simulation.network import amount
from tests.simulation.provider import URL, Upstream, Use
from tests.simulation.sdk import PAUSE_S, RETRIES, AsyncSdk, BlockingSdk, Options, SdkError

if TYPE_CHECKING:
    from cycles.providers._meter import Meter
    from tests.simulation.swarm import Swarm
    from tests.simulation.workload import Op, Program

CALL: Final = "SDK call"
IN_GUARD: Final = "SDK call in a guard"
FEATURE: Final = "SDK calls"
IN_LOOPS: Final = "SDK calls in loops"
IN_GUARDS: Final = "SDK calls in guards"
SHARE: Final = 0.5
"""The share of programs with such calls, if the feature is on."""
IN_GUARD_BOUND: Final = 30  # of each attempt; all of them fit into the guard


def with_sdk(threads: list[list[str]], swarm: Swarm, random: Random) -> list[list[str]]:
    """Return the kinds of uses of each thread, of which calls of an SDK may replace the last ones."""
    for kind, feature in ((CALL, FEATURE), (IN_GUARD, IN_GUARDS)):
        if threads and feature in swarm and random.random() < SHARE:
            number = random.randrange(len(threads))
            threads = [[*kinds[:-2], kind, kind] if number == place else kinds for place, kinds in enumerate(threads)]
    return threads


def with_sdk_in_loop(tasks: list[str], swarm: Swarm, random: Random) -> list[str]:
    """Return the kinds of uses of the tasks of a loop; see `with_sdk`."""
    for kind, feature in ((CALL, IN_LOOPS), (IN_GUARD, IN_GUARDS)):
        if tasks and feature in swarm and random.random() < SHARE:
            tasks = [*tasks[:-2], kind, kind]
            random.shuffle(tasks)
    return tasks


def call_in_thread(program: Program, op: Op) -> None:
    program.server.swarm.matters(FEATURE)
    use = Use(program, op)
    with _interrupts(program, op):
        _call(program, use, _meter(program, use))


async def call_in_task(program: Program, op: Op) -> None:
    program.server.swarm.matters(IN_LOOPS)
    use = Use(program, op)
    await _call_async(program, use, _meter(program, use))


def guard_in_thread(program: Program, op: Op) -> None:
    program.server.swarm.matters(IN_GUARDS)
    with program.reserve(op) as guard:
        program.entered(op, guard)
        use = Use(program, op, IN_GUARD_BOUND)
        _call(program, use, _meter(program, use, within="enclosing"))
        if not op.known:
            guard.release()


async def guard_in_task(program: Program, op: Op) -> None:
    program.server.swarm.matters(IN_GUARDS)
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        use = Use(program, op, IN_GUARD_BOUND)
        await _call_async(program, use, _meter(program, use, within="enclosing"))
        if not op.known:
            await guard.release()


def _meter(program: Program, use: Use, **options: Any) -> Meter:
    price: dict[str, Any] = {"unit": "TOKENS", "min_output_tokens": use.random.choice((None, 1, 16))}
    if options:
        price = {"estimate": amount(IN_GUARD_BOUND)}
    account = use.op.account
    whose = {"client": program.client, "subject": account.subject, "overage_policy": account.policy, "wait": 0}
    ttl = {"ttl_ms": use.random.choice((1_000, 5_000, 60_000))}
    return make_meter("openai", "openai", {**price, **whose, **ttl, **options})


@contextlib.contextmanager
def _interrupts(program: Program, op: Op) -> Any:
    """Let a signal handler raise at any point of a call, if byte codes are points."""
    signals = points(program.hub, program.server.swarm, len(program.ops)) if op.in_main else contextlib.nullcontext()
    try:
        with signals:
            yield
    except Interrupted:
        op.exact = {op.known, op.reaching}
        raise


class _Holder:
    """A client without a method above its retries."""

    def __init__(self, http: Any) -> None:
        self.httpx_client = http


def _request(use: Use, upstream: Upstream) -> Options:
    return Options(use.body, upstream.expect(use))


def _call(program: Program, use: Use, meter: Meter) -> None:
    async def sleep(seconds: float) -> None:
        program.hub.sleep(seconds)

    upstream = Upstream(sleep)
    http = httpx.Client(transport=upstream, trust_env=False)
    use.reserves()
    with contextlib.suppress(SdkError, httpx.TransportError):
        if use.random.random() < 0.7:
            sdk: Any = _stainless.guarded_copy(BlockingSdk(upstream, http, use), meter)
            response = sdk.request(None, _request(use, upstream), stream=use.stream)
        else:
            response = _send(program, use, _httpx.guarded_copy(_Holder(http), meter).httpx_client, upstream)
        if use.stream and response.is_success:
            for number, _ in enumerate(response.iter_bytes()):
                if number == use.leaves_after:
                    break
            response.close()
    use.ends()


def _send(program: Program, use: Use, http: Any, upstream: Upstream) -> Any:
    """Send a request as an SDK that retries above its HTTP client."""
    options = _request(use, upstream)
    for left in reversed(range(RETRIES + 1)):
        request = http.build_request("POST", URL + options.url, json=options.json_data, headers=options.headers)
        try:
            response = http.send(request, stream=use.stream)
            if response.is_success or not left:
                return response
        except httpx.TransportError:
            if not left:
                raise
        use.reserves()
        program.hub.sleep(PAUSE_S)
    return None


async def _call_async(program: Program, use: Use, meter: Meter) -> None:
    upstream = Upstream(asyncio.sleep)
    http = httpx.AsyncClient(transport=upstream, trust_env=False)
    use.reserves()
    with contextlib.suppress(SdkError, httpx.TransportError):
        sdk: Any = _stainless.guarded_copy(AsyncSdk(upstream, http, use), meter)
        response = await sdk.request(None, _request(use, upstream), stream=use.stream)
        if use.stream:
            number = 0
            async for _ in response.aiter_bytes():
                if number == use.leaves_after:
                    break
                number += 1
            await response.aclose()
    use.ends()
