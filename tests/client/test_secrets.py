"""The API key is in no frame of an error that leaves the SDK: error trackers record local variables."""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from tests.support.points import run_at
from tests.support.stub import Stub, hang_up, ok, raw

KEY = "cyc_live_hunter2"


def frames_of_the_sdk(error: BaseException | None, seen: set[int] | None = None) -> Iterator[FrameType]:
    """The frames of an error, its cause and its context, without those of this test."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    link = error.__traceback__
    while link is not None:
        if link.tb_frame.f_code.co_filename != __file__:
            yield link.tb_frame
        link = link.tb_next
    yield from frames_of_the_sdk(error.__cause__, seen)
    yield from frames_of_the_sdk(error.__context__, seen)


def shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return repr(error)


def assert_no_key(error: BaseException) -> None:
    variables = [
        (frame.f_code.co_qualname, name, shown(value))
        for frame in frames_of_the_sdk(error)
        for name, value in frame.f_locals.items()
    ]
    assert [where[:2] for where in variables if KEY in where[2]] == []


WRONG: list[dict[str, Any]] = [
    {"timeout": -1},
    {"timeout": "soon"},
    {"base_url": "nowhere"},
    {"no_such_setting": 1},
    {"tenant": 5},
    {"journal_dir": 5},
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    "make", [cycles.Cycles, cycles.Config, cycles.Config.from_env], ids=["Cycles", "Config", "env"]
)
def test_an_error_of_the_configuration_has_no_key_in_its_frames(
    make: Callable[..., object], wrong: dict[str, Any]
) -> None:
    if make is cycles.Config and "no_such_setting" in wrong:
        pytest.skip("Python itself raises the TypeError before any frame of the SDK")
    with pytest.raises(cycles.ConfigurationError) as caught:
        make(**{"base_url": "http://localhost", "api_key": KEY, **wrong})
    assert_no_key(caught.value)


def test_a_header_that_cannot_be_sent_has_no_key_in_its_frames() -> None:
    with pytest.raises(cycles.InvalidRequestError) as caught:
        cycles.Cycles(base_url="http://localhost", api_key=KEY, default_headers={"X-Team": "a\n"})
    assert_no_key(caught.value)


@pytest.mark.parametrize(("url", "module"), [("redis://localhost", "redis"), ("postgresql://localhost", "postgres")])
def test_a_store_that_cannot_be_made_has_no_key_in_its_frames(
    url: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = f"the package of {module} is not installed"

    def fail(*_: object) -> None:
        raise cycles.ConfigurationError(missing)

    monkeypatch.setitem(
        sys.modules, f"cycles._journal.stores.{module}", SimpleNamespace(RedisStore=fail, PostgresStore=fail)
    )
    with pytest.raises(cycles.ConfigurationError, match=missing) as caught:
        client_of("http://localhost", journal=True, journal_dir=tmp_path, journal_store=url)
    assert_no_key(caught.value)


@pytest.mark.parametrize("arguments", [("nowhere", KEY), ("http://localhost", f"{KEY}\n")])
def test_an_error_of_an_admin_client_has_no_key_in_its_frames(arguments: tuple[str, str]) -> None:
    with pytest.raises(cycles.ConfigurationError) as positional:
        cycles.Admin(*arguments)
    assert_no_key(positional.value)
    with pytest.raises(cycles.ConfigurationError) as named:
        cycles.Admin(base_url=arguments[0], api_key=arguments[1])
    assert_no_key(named.value)


def test_a_key_that_cannot_be_sent_is_in_no_frame() -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        cycles.Cycles(base_url="http://localhost", api_key=f"{KEY}\n")
    assert KEY not in str(caught.value)
    assert_no_key(caught.value)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def client_of(base_url: str, **settings: Any) -> cycles.Cycles:
    given: dict[str, Any] = {"journal": False, "timeout": 0.5, "tenant": "acme", "api_key": KEY, **settings}
    return cycles.Cycles(base_url=base_url, **given)


BROKEN = {"hang up": hang_up(), "not HTTP": raw(b"not HTTP at all\r\n\r\n"), "half": raw(b"HTTP/1.1 200 OK\r\nCont")}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("kind", ["sync", "async", "httpx", "httpx async"])
def test_an_error_of_a_request_has_no_key_in_its_frames(broken: Any, kind: str) -> None:
    with Stub(*[broken] * 4) as stub:
        settings: dict[str, Any] = {}
        if kind.startswith("httpx"):
            settings = {"http_client": httpx.Client(), "async_http_client": httpx.AsyncClient()}
        client = client_of(stub.url, **settings)
        with pytest.raises(cycles.TransportError) as caught:
            if kind.endswith("async"):
                asyncio.run(client.aio.decide(cycles.usd(1), action=("a", "b")))
            else:
                client.decide(cycles.usd(1), action=("a", "b"))
    assert caught.value.__cause__ is not None
    assert_no_key(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_error_of_a_closed_port_has_no_key_in_its_frames() -> None:
    client = client_of(f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(cycles.TransportError) as caught:
        client.reserve(cycles.usd(1), action=("a", "b")).acquire()
    assert_no_key(caught.value)


def test_a_wrong_extra_header_has_no_key_in_its_frames() -> None:
    with pytest.raises(cycles.InvalidRequestError) as caught:
        client_of("http://localhost").raw("getBalances", tenant="acme", extra_headers={"X-A": "b\n"})
    assert_no_key(caught.value)


def test_an_interrupt_while_a_request_is_sent_has_no_key_in_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with Stub() as stub:
        client = client_of(stub.url, timeout=20.0)
        monkeypatch.setattr("cycles._http.http11.Http11.feed", interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            client.decide(cycles.usd(1), action=("a", "b"))
    assert_no_key(caught.value)


ALLOWED = b'{"decision":"ALLOW"}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(ALLOWED), ALLOWED)


@pytest.mark.parametrize("answer", [ok(ALLOWED), raw(CHUNKED, keep=True)], ids=["plain", "read by h11"])
@pytest.mark.parametrize("headers", [{}, {"X-Gateway": f"Bearer {KEY}"}], ids=["key", "header"])
def test_an_error_at_any_point_of_an_exchange_has_no_key_in_its_frames(answer: Any, headers: dict[str, str]) -> None:
    """A signal handler of the caller may raise anywhere, for example at the soft time limit of a task."""

    class TimeIsUpError(Exception):
        pass

    def raise_here() -> None:
        raise TimeIsUpError

    with Stub(*[answer] * 1000) as stub:
        for number in range(1000):
            with client_of(stub.url, default_headers=headers, timeout=20.0) as client:
                decide = partial(client.decide, cycles.usd(1), action=("a", "b"))
                try:
                    is_reached = run_at("cycles/_http/http11.py", number, raise_here, decide)
                except TimeIsUpError as error:
                    assert_no_key(error)
                else:
                    assert not is_reached
                    break
    assert number > 50
