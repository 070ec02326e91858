"""`api_key` as a callable: sync or async, called once, again after a 401, and never shown."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles._core.messages.outcome import Ambiguous, RejectedResponse, Unreachable
from cycles._drivers.api_key import KeySource, KeyUnavailableError, is_rejected_key, no_key
from tests.client.conftest import ACTION, World
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.anyio


class Keys:
    """Returns the keys in order, the last one for ever."""

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        key = self.keys.pop(0) if len(self.keys) > 1 else self.keys[0]
        if isinstance(key, Exception):
            raise key
        return key

    @property
    def function(self) -> Callable[[], Any]:
        return self

    @property
    def coroutine(self) -> Callable[[], Any]:
        async def get() -> Any:
            await asyncio.sleep(0)
            return self()

        return get


@pytest.fixture(params=["function", "coroutine"])
def client_with(request: pytest.FixtureRequest, server: cycles.EmbeddedServer, tmp_path: Path) -> Any:
    """Return a function that makes a client whose key comes from `Keys`, as a function or coroutine function."""

    def make(keys: Keys, **settings: Any) -> cycles.Cycles:
        transport = server.transport()
        return cycles.Cycles(
            base_url="http://embedded",
            api_key=getattr(keys, request.param),
            http_client=httpx.Client(transport=transport),
            async_http_client=httpx.AsyncClient(transport=transport),
            **{"tenant": "acme", "journal_dir": tmp_path, **settings},
        )

    return make


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def test_the_callable_is_called_once_for_all_requests(
    client_with: Any, kind: str, server: cycles.EmbeddedServer
) -> None:
    keys = Keys(server.api_key)
    with client_with(keys) as client:
        world = World(kind, client)
        assert keys.calls == 0
        async with world.enter(world.reserve(actual=cycles.tokens(1))):
            pass
    assert keys.calls == 1


async def test_it_is_called_again_after_a_401_and_the_request_is_repeated(
    client_with: Any, kind: str, server: cycles.EmbeddedServer
) -> None:
    keys = Keys("old-key", server.api_key)
    with client_with(keys) as client:
        world = World(kind, client)
        async with world.enter(world.reserve(actual=cycles.tokens(1))) as guard:
            pass
        assert guard.state == "committed"
    assert keys.calls == 2


async def test_a_key_that_stays_wrong_is_an_error_that_does_not_show_it(
    client_with: Any, kind: str, log: pytest.LogCaptureFixture
) -> None:
    keys = Keys("secret-old", "secret-new")
    with client_with(keys) as client:
        world = World(kind, client)
        with pytest.raises(cycles.UnauthorizedError) as raised:
            await world.get(world.operations.decide(cycles.tokens(1), action=ACTION))
        shown = f"{raised.value!r}{raised.value.details}{client!r}{client.config!r}{client.describe()}{log.text}"
        assert "secret" not in shown
        assert b"secret" not in pickle.dumps(raised.value)


@pytest.mark.parametrize("bad", [ValueError("secret"), None, "", 5, " a "])
async def test_a_callable_that_returns_no_key_is_an_error_and_nothing_is_sent(
    client_with: Any, kind: str, server: cycles.EmbeddedServer, bad: Any
) -> None:
    sent = len(server.requests)
    with client_with(Keys(bad), journal=False) as client:
        world = World(kind, client)
        with pytest.raises(cycles.TransportError, match="the callable returned no key") as raised:
            await world.acquire(world.reserve(on_unavailable="allow"))
        assert raised.value.request_sent is False
    assert len(server.requests) == sent


async def test_a_settlement_without_a_key_is_pending_and_settled_later(
    client_with: Any, kind: str, server: cycles.EmbeddedServer
) -> None:
    keys = Keys(server.api_key)
    with client_with(keys) as client:
        world = World(kind, client)
        guard = await world.acquire(world.reserve())
        server.ledger.set_api_key(server.api_key, tenant="acme", status="REVOKED")
        server.ledger.set_api_key("rotated-key", tenant="acme")
        keys.keys = [ValueError("no vault"), "rotated-key"]
        settlement = await world.get(guard.commit(cycles.tokens(7)))
        assert settlement.status == "pending"
        assert (await world.get(world.operations.flush())).settled == 1
    assert server.ledger.balance("tenant:acme", unit="TOKENS").spent == cycles.tokens(7)


def test_with_the_journal_it_needs_a_tenant(tmp_path: Path) -> None:
    options: dict[str, Any] = {"base_url": "http://localhost", "api_key": lambda: "k", "journal_dir": tmp_path}
    wrong: list[dict[str, Any]] = [{}, {"tenant": ""}, {"journal_store": f"file://{tmp_path}"}]
    for given in wrong:  # a store has such partitions too
        with pytest.raises(cycles.ConfigurationError, match=r"set tenant=\.\.\. or CYCLES_TENANT"):
            cycles.Cycles(**options, **given)
    cycles.Cycles(**options, journal=False).close()
    cycles.Cycles(**options, tenant="acme").close()


def test_operations_without_a_key_do_not_call_it(client_with: Any, server: cycles.EmbeddedServer) -> None:
    keys = Keys(ValueError("never called"))
    with client_with(keys) as client, pytest.raises(cycles.CyclesError):
        client.evidence("0" * 64)
    assert keys.calls == 0


def test_a_coroutine_function_runs_in_the_context_of_the_caller(server: cycles.EmbeddedServer) -> None:
    region = contextvars.ContextVar[str]("region")
    seen: list[str] = []

    async def key() -> str:
        seen.append(region.get())
        return server.api_key_for("acme")

    region.set("here")
    with (
        httpx.Client(transport=server.transport()) as http,
        cycles.Cycles(base_url="http://a", api_key=key, tenant="acme", journal=False, http_client=http) as client,
    ):
        client.decide(cycles.tokens(1), action=ACTION)
    assert seen == ["here"]


async def test_what_a_function_raises_beside_exceptions_is_raised_in_its_task(
    server: cycles.EmbeddedServer, kind: str
) -> None:
    """It runs in another thread then, whose end no task would see."""

    class Stop(BaseException):
        pass

    def stop() -> str:
        raise Stop

    with server.client(tenant="acme", api_key=stop, journal=False) as client:
        world = World(kind, client)
        with pytest.raises(Stop):
            async with asyncio.timeout(PATIENCE_S):
                await world.get(world.operations.decide(cycles.tokens(1), action=ACTION))


def end_of_calls() -> None:
    """Return when no thread that a task has started for a call runs."""
    for thread in threading.enumerate():
        if thread.name == "cycles-call":
            thread.join(PATIENCE_S)


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_function_that_fails_after_its_task_was_cancelled_disturbs_nothing(
    server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    begun, go_on, errors = threading.Event(), threading.Event(), list[object]()

    def fail() -> str:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        raise ValueError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        deciding = asyncio.ensure_future(client.aio.decide(cycles.tokens(1), action=ACTION))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        deciding.cancel()
        await asyncio.wait([deciding])
        if not is_closed:
            go_on.set()
            await asyncio.to_thread(end_of_calls)
            await asyncio.sleep(0)

    monkeypatch.setattr("threading.excepthook", errors.append)
    with server.client(tenant="acme", api_key=fail, journal=False) as client:
        asyncio.run(main())
        go_on.set()
        end_of_calls()
    assert errors == []


def test_threads_that_need_a_key_at_the_same_time_share_one_call(
    server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = threading.Event()  # the second thread: it waits for the first one, or calls the function, too

    class Lock:
        def __init__(self) -> None:
            self._lock = threading.RLock()

        def __enter__(self) -> None:
            if not self._lock.acquire(blocking=False):
                came.set()
                self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    def get() -> str:
        calls.append(threading.current_thread())
        if len(calls) == 1:
            second.start()
        else:
            came.set()
        assert came.wait(PATIENCE_S)
        return server.api_key

    calls: list[threading.Thread] = []
    monkeypatch.setattr("cycles._drivers.api_key.threading", SimpleNamespace(RLock=Lock))
    with server.client(tenant="acme", api_key=get, journal=False) as client:
        second = threading.Thread(target=client.decide, args=(cycles.tokens(1),), kwargs={"action": ACTION})
        client.decide(cycles.tokens(1), action=ACTION)
        second.join(PATIENCE_S)
    assert len(calls) == 1


@pytest.mark.parametrize("is_coroutine", [False, True], ids=["function", "coroutine"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_key_is_fetched_again_only_if_it_is_the_one_that_was_rejected(
    is_coroutine: bool, is_async: bool
) -> None:
    keys = Keys("old", "new", "newer")
    source = KeySource(keys.coroutine if is_coroutine else keys.function)
    get = source.aget if is_async else source.get
    assert [await get(), await get()] == ["old", "old"]
    assert await get("earlier") == "old"
    assert await get("old") == "new"
    assert await get("old") == "new"  # another request that was rejected with the same key
    assert keys.calls == 2
    assert await get("new") == "newer"


@pytest.mark.parametrize("is_coroutine", [False, True], ids=["function", "coroutine"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (OSError("secret"), "OSError"),
        (None, "ValueError"),
        ("", "ConfigurationError"),
        (5, "ConfigurationError"),
        ("a\nb", "ConfigurationError"),
    ],
)
async def test_what_is_no_key_is_named_by_its_error_only(
    is_coroutine: bool, is_async: bool, bad: Any, name: str
) -> None:
    keys = Keys(bad)
    source = KeySource(keys.coroutine if is_coroutine else keys.function)
    with pytest.raises(KeyUnavailableError) as raised:
        await (source.aget if is_async else source.get)()
    assert str(raised.value) == f"api_key: the callable returned no key ({name}); nothing was sent"
    outcome = no_key(raised.value, "trace")
    assert (outcome.message, outcome.sent, outcome.queued, outcome.trace_id) == (
        str(raised.value),
        False,
        True,
        "trace",
    )
    assert type(outcome.cause).__name__ == name
    assert no_key(KeyUnavailableError("x"), None).message == "x"
    assert isinstance(no_key(KeyUnavailableError("x"), None).cause, KeyUnavailableError)


@pytest.mark.parametrize(
    ("outcome", "is_rejected"),
    [
        (RejectedResponse(401, "UNAUTHORIZED", "no"), True),
        (RejectedResponse(401, None, "no"), True),
        (RejectedResponse(401, "UNAUTHORIZED", "INTERNAL_ERROR"), False),  # the store of the server is down
        (RejectedResponse(403, "FORBIDDEN", "no"), False),
        (Ambiguous(401, "no"), False),
        (Unreachable("no"), False),
    ],
)
def test_only_a_401_about_the_key_rejects_it(outcome: Any, is_rejected: bool) -> None:
    assert is_rejected_key(outcome) is is_rejected
