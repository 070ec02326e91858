"""Rules of the proxy that one request at a time shows: what it reads, drops, names and tells."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest

import cycles
from cycles.providers import _google
from cycles.proxy._agent_tree import MOST_PATHS, AgentTree
from cycles.proxy._authority import Authority
from cycles.proxy._bodies import read_body
from cycles.proxy._caller_proxy import caller_proxy
from cycles.proxy._environment import past_the_proxy, share_variables
from cycles.proxy._errors import reason_of
from cycles.proxy._prompts import warn_at
from cycles.proxy._routes import ROUTES, UNROUTED
from cycles.proxy._settings import ProxySettings, upstreams_of
from cycles.proxy._targets import RejectedError, check_caller, upstream_headers
from tests.operators.proxying import BOOK, CHAT_PATH, KEY, USED, proxied, upstreams
from tests.operators.tunnels import opened
from tests.support.stub import Stub, ok

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


# --- What a program sends -------------------------------------------------------------------------------------------


def test_a_program_that_leaves_within_its_body_sends_nothing() -> None:
    """A part of a request would be paid as a whole one."""
    with Stub(ok()) as stub, proxied(upstreams=upstreams(stub.url)) as place:
        head = f"POST /{KEY}{CHAT_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with opened(place) as connection:
            connection.sendall(f"{head}Content-Length: 99\r\n\r\n".encode() + b'{"model": "m", "messages": []}')
        place.proxy.stop(5)
        assert (stub.requests, place.reserved) == ([], [])


def test_a_wrong_agent_is_400_at_each_kind_of_request() -> None:
    with proxied(unmetered="allow") as place:
        for path in (CHAT_PATH, "/openai/v1/moderations", "/openai/v1/unknown/path"):
            for agent in ("a//b", "ä", "a b", "a" * 600):
                response = place.post(path, headers={"x-cycles-agent": agent.encode()})
                assert (response.status_code, "X-Cycles-Agent" in response.text) == (400, True), (path, agent)
        assert not place.provider.requests


@pytest.mark.parametrize("path", [CHAT_PATH, "/openai/v1/moderations"])
def test_what_is_for_the_proxy_does_not_reach_the_provider(path: str) -> None:
    headers = {
        "x-cycles-proxy-key": KEY,
        "x-cycles-agent": "a/b",
        "proxy-authorization": "Basic eA==",
        "proxy-connection": "keep-alive",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "trailer": "x",
    }
    with proxied() as place:
        assert place.post(path, headers={**headers, "x-kept": "1"}).status_code == 200
        [sent] = place.provider.requests
        assert (set(headers) & set(sent.headers), sent.headers["x-kept"]) == (set(), "1")


@pytest.mark.parametrize("path", [CHAT_PATH, "/openai/v1/moderations"])
def test_a_cookie_of_a_provider_is_that_of_its_program_alone(path: str) -> None:
    with Stub(ok({"choices": []}, headers=[("Set-Cookie", "session=1; Path=/")])) as stub:
        with proxied(upstreams=upstreams(stub.url)) as place:
            for _ in range(2):
                assert "session=1" in place.post(path).headers["set-cookie"]
            place.post(path, headers={"cookie": "mine=2"})
        assert [request.headers.get("cookie") for request in stub.requests] == [None, None, "mine=2"]


def test_the_provider_is_not_asked_to_expect() -> None:
    sent = upstream_headers([(b"expect", b"100-continue"), (b"host", b"h"), (b"x", b"1")], has_length=True)
    assert sent == [(b"x", b"1"), (b"accept-encoding", b"identity")]


def test_members_within_an_object_are_priced_and_sent_under_their_own_names() -> None:
    endpoint = _google.metered[":generateContent"]
    same = read_body(b'{"generationConfig": {"maxOutputTokens": 7}}', {}, endpoint)
    other = read_body(b'{"generationConfig": {"max_output_tokens": 7}}', {}, endpoint)
    assert (same.must_change, other.must_change) == (False, True)
    assert same.content == other.content


@pytest.mark.parametrize("captured", [False, True])
def test_the_origin_of_a_page_is_that_of_the_provider_only_if_captured(captured: bool) -> None:
    headers = {"host": "api.openai.com", "origin": "https://platform.openai.com"}
    if captured:
        assert check_caller("/v1/x", headers, None, captured=True) == "/v1/x"
    else:
        with pytest.raises(RejectedError, match="another origin"):
            check_caller("/v1/x", headers, None)


# --- What a program is told -----------------------------------------------------------------------------------------


def test_a_request_that_is_wrong_is_counted_as_invalid() -> None:
    with proxied() as place:
        assert place.post(content=b"{").status_code == 400
        assert dict(place.proxy.app.totals.failed_by) == {"invalid request": 1}


def test_the_code_of_a_denial_is_its_reason() -> None:
    with proxied(cycles.usd("0.000001")) as place:
        response = place.post(json={**CHAT, "max_tokens": 5})
        assert (response.status_code, response.json()["error"]["code"]) == (402, "budget_exceeded")
        assert (response.headers["x-cycles-reason"], response.headers["x-should-retry"]) == ("budget_exceeded", "false")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (cycles.ReservationDeniedError("no", code="BUDGET_EXCEEDED", reason_code="BUDGET_FROZEN"), "budget_frozen"),
        (cycles.ReservationDeniedError("no", code="BUDGET_EXCEEDED"), "budget_exceeded"),
        (cycles.ReservationDeniedError("no", reason_code="RUN_LIMIT"), "run_limit"),
        (cycles.ReservationDeniedError("no"), "denied"),
        (cycles.TransportError("no"), "denied"),
    ],
)
def test_the_reason_of_a_denial_is_that_of_the_decision_or_its_code(error: cycles.CyclesError, reason: str) -> None:
    assert reason_of(error) == reason


def test_an_upgrade_is_told_what_to_upgrade_to() -> None:
    with proxied() as place:
        upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
        response = httpx.get(f"{place.openai_url}/realtime", headers={**upgrade, "sec-websocket-key": "eA=="})
        assert (response.status_code, response.headers["upgrade"]) == (426, "HTTP/1.1")
        assert "upgrade" in response.headers["connection"].lower()


def test_a_share_gets_an_address_that_works_whatever_the_host_header_is() -> None:
    with proxied() as place:
        url = f"{place.url}/{KEY}/shares"
        for number, host in enumerate(("", "a b", "x/y", "x@y")):
            asked = {"name": f"a{number}", "limit": " 1USD "}
            made = httpx.post(url, json=asked, headers={"host": host}, timeout=60).json()
            assert made["proxy_url"].startswith(f"{place.url}/"), host
        assert httpx.post(url, json={"name": "a0", "limit": "1.0USD"}, timeout=60).status_code == 200
        assert httpx.post(url, json={"name": "a0", "limit": "10%"}, timeout=60).status_code == 409


# --- What a reservation says ----------------------------------------------------------------------------------------


def test_a_reservation_names_the_run() -> None:
    with proxied(run_id="run_7") as place:
        place.provider.reply(usage=USED)
        place.post()
        [reserve] = place.server.requests.of("reserve")
        assert reserve.json["metadata"]["run"] == "run_7"


# --- The proxy of the caller ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "http://b:2"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, "http://a:1"),
        ({"HTTPS_PROXY": "a:1"}, "http://a:1"),
        ({"ALL_PROXY": "http://c:3"}, "http://c:3"),
    ],
)
def test_which_proxy_is_that_of_the_caller(environ: dict[str, str], url: str | None) -> None:
    found = caller_proxy(environ)
    assert (found and found.url) == url


@pytest.mark.parametrize("wrong", ["socks5://h:1", "http://", "http://h:x", "http://h:0"])
@pytest.mark.parametrize("other", [{}, {"https_proxy": "http://a:1"}, {"HTTPS_PROXY": "http://a:1"}])
def test_a_wrong_proxy_is_an_error_also_if_another_one_counts(wrong: str, other: dict[str, str]) -> None:
    with pytest.raises(cycles.ConfigurationError, match="ALL_PROXY is"):
        caller_proxy({**other, "ALL_PROXY": wrong})


@pytest.mark.parametrize(
    ("no_proxy", "host", "served"),
    [
        ("", "h", True),
        ("*", "h", False),
        ("a.com", "a.com", False),
        ("a.com", "b.a.com", False),
        ("a.com", "ba.com", True),
        (".a.com", "b.a.com", False),
        ("*.a.com", "b.a.com", False),
        ("A.COM", "a.com", False),
        ("x, a.com:443", "a.com", False),
        ("x a.com", "a.com", False),
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("::1", "::1", False),
    ],
)
def test_which_hosts_the_proxy_of_the_caller_serves(no_proxy: str, host: str, served: bool) -> None:
    found = caller_proxy({"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy})
    assert found is not None
    assert found.serves(host) is served


# --- The rest -------------------------------------------------------------------------------------------------------


def test_a_key_of_any_characters_is_one_segment_and_one_password() -> None:
    key = "a/b@c:d?e#f%20 g$h"
    found = share_variables("http://127.0.0.1:1", key, {}, ProxySettings(upstreams={}, prices=BOOK, tunnel=True))
    for variable in ("HTTPS_PROXY", "https_proxy"):
        tunnel = urlsplit(found[variable])
        assert (tunnel.hostname, tunnel.port, unquote(tunnel.password or "")) == ("127.0.0.1", 1, key)
    for variable, behind in (("CYCLES_PROXY_URL", ""), ("OPENAI_BASE_URL", "/openai/v1"), ("GROQ_BASE_URL", "/groq")):
        path = urlsplit(found[variable]).path
        assert (unquote(path.split("/")[1]), path.partition(path.split("/")[1])[2]) == (key, behind)


def test_the_authority_signs_for_hosts_of_providers_only_and_allows_for_clocks_that_differ() -> None:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(Authority().certificate)
    names = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert x509.DNSName("api.openai.com") in (names.value.permitted_subtrees or [])
    now = datetime.datetime.now(datetime.UTC)
    assert found.not_valid_before_utc < now - datetime.timedelta(minutes=4)


@pytest.mark.parametrize(
    "url",
    [
        "http://h:x/",
        "http://h:99999",
        "http://h:0",
        "ftp://h",
        "http://",
        "http://h/a b",
        "http://h/\n",
        "http://h/?q",
        "http://h?a=1",
        "http://h/#f",
    ],
)
def test_an_upstream_that_is_no_plain_address_is_an_error(url: str) -> None:
    with pytest.raises(cycles.ConfigurationError, match="is not an http or https address"):
        upstreams_of({"openai": url}, {})


@pytest.mark.parametrize("end", ["", "/", "//"])
def test_an_upstream_has_no_slash_at_its_end(end: str) -> None:
    """A path follows it."""
    given = {"openai": f"http://h:1/v1{end}", "groq": f"http://h:2{end}"}
    environ = {"ANTHROPIC_BASE_URL": f"http://h:3{end}", "OPENROUTER_API_BASE": f"http://h:4/api/v1{end}"}
    found = upstreams_of(given, {**environ, "OPENAI_BASE_URL": "http://other"})["upstreams"]
    names = ("openai", "groq", "anthropic", "openrouter")
    assert [found[name] for name in names] == ["http://h:1/v1", "http://h:2", "http://h:3", "http://h:4/api/v1"]


@pytest.mark.parametrize(
    ("name", "variable"), [(name, variable) for name, route in ROUTES.items() for variable in route.variables]
)
def test_each_route_is_that_of_its_variable_but_that_of_local_models(name: str, variable: str) -> None:
    found = upstreams_of({}, {variable: "http://h:1"})
    assert (name in found["named"]) is (name != "ollama")


@pytest.mark.parametrize("variable", UNROUTED)
@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("", False),
        ("https://api.cohere.com/v1", False),
        ("https://API.Cohere.COM", False),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", False),
        ("http://gateway.internal/cohere", True),
        ("http://[::1", True),
    ],
)
def test_an_address_that_neither_a_route_nor_the_tunnel_takes_is_named(variable: str, url: str, passes: bool) -> None:
    other = {"MINE": "http://gateway.internal"}
    assert past_the_proxy({variable: url, **other}) == ([variable] if passes else [])


def test_a_threshold_of_a_budget_is_said_once_for_all_clients() -> None:
    said: list[str] = []
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}) as server,
        server.client(tenant="acme") as one,
        server.client(tenant="acme") as two,
    ):
        warn_at([one, two], [0.5], said.append)
        for client in (one, two, one):
            with client.reserve(cycles.usd("0.3"), action=("llm.call", "m")) as guard:
                guard.commit(cycles.usd("0.3"))
        assert said == ["60% of tenant:acme is used, $0.40 of $1.00 is left"]
        server.ledger.set_budget("tenant:acme", cycles.tokens(10))
        for client in (two, one):
            with client.reserve(cycles.tokens(4), action=("llm.call", "m")) as guard:
                guard.commit(cycles.tokens(4))
    assert said[1:] == ["80% of tenant:acme is used, 2 tokens of 10 tokens is left"]


def test_a_known_agent_is_counted_by_name_behind_the_most() -> None:
    tree = AgentTree()
    for number in range(MOST_PATHS + 5):
        tree.add(f"a{number}", 1)
    tree.add("a3", 1)
    found = tree.document()
    assert (found["a3"]["calls"], len(found)) == (2, MOST_PATHS + 1)
