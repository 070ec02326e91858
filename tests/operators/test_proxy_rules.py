"""The rules of the proxy, one by one and without a socket: who may send what, and what reaches a provider."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from cycles.providers._endpoints import find
from cycles.providers._provider import Endpoint
from cycles.proxy._agent_tree import AgentTree, checked_path
from cycles.proxy._bodies import read_body
from cycles.proxy._connect import read_connect, response
from cycles.proxy._denials import Payer, remedies, tightest
from cycles.proxy._hosts import is_own, is_public, normalized_host
from cycles.proxy._server import _ledger_target
from cycles.proxy._shares import ShareError, Shares
from cycles.proxy._targets import (
    RejectedError,
    check_caller,
    check_headers,
    client_headers,
    is_loopback,
    origin_form,
    target_of,
    upstream_headers,
)
from cycles.proxy._totals import Totals
from cycles.proxy._tunnel import Tunnels, key_matches

KEY = "the-key"
UPSTREAMS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


def rejection(error: pytest.ExceptionInfo[RejectedError]) -> tuple[int, str]:
    return error.value.status, error.value.message


# --- headers


@pytest.mark.parametrize("name", ["host", "origin", "x-cycles-proxy-key", "x-cycles-agent", "content-length"])
def test_a_header_that_decides_may_be_there_once(name: str) -> None:
    raw = [(name.encode(), b"1"), (name.title().encode(), b"2")]
    with pytest.raises(RejectedError) as raised:
        check_headers("/openai/v1/x", raw, {name: "2"})
    assert rejection(raised) == (400, f"the header {name} is there 2 times: send it once")
    check_headers("/openai/v1/x", [(b"accept", b"1"), (b"accept", b"2")], {"accept": "2"})


def test_a_body_has_one_length() -> None:
    headers = {"content-length": "3", "transfer-encoding": "chunked"}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    with pytest.raises(RejectedError) as raised:
        check_headers("/anthropic/v1/messages", raw, headers)
    assert rejection(raised) == (400, "the body has a Content-Length and a Transfer-Encoding: send one of them")
    assert raised.value.name == "anthropic"
    for name in headers:
        check_headers("/x", [(name.encode(), b"3")], {name: "3"})


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/{KEY}/openai/v1", {}, None),
        ("/the%2Dkey/openai/v1", {}, None),
        ("/openai/v1", {"x-cycles-proxy-key": KEY}, None),
        ("/openai/v1", {}, 401),
        ("/the-kex/openai/v1", {}, 401),
        ("/openai/v1", {"x-cycles-proxy-key": ""}, 401),
        ("/openai/v1", {"authorization": f"Bearer {KEY}"}, 401),
        (f"/{KEY}/openai/v1", {"origin": "http://localhost:3000"}, None),
        (f"/{KEY}/openai/v1", {"origin": "http://127.0.0.1"}, None),
        (f"/{KEY}/openai/v1", {"origin": "https://evil.com"}, 403),
        (f"/{KEY}/openai/v1", {"origin": "null"}, 403),
        (f"/{KEY}/openai/v1", {"origin": ""}, 403),
        (f"/{KEY}/openai/v1", {"origin": "https://evil.com/localhost"}, 403),
        (f"/{KEY}/openai/v1", {"origin": "https://localhost@evil.com"}, 403),
        (f"/{KEY}/openai/v1", {"origin": "https://evil.com/http://127.0.0.1"}, 403),
        (f"/{KEY}/openai/v1", {"host": "evil.com"}, None),
    ],
)
def test_who_may_send_requests(path: str, headers: dict[str, str], status: int | None) -> None:
    if status is None:
        assert check_caller(path, headers, KEY) == "/openai/v1"
        return
    with pytest.raises(RejectedError) as raised:
        check_caller(path, headers, KEY)
    assert raised.value.status == status
    assert (KEY in raised.value.message) is False


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, None) for host in ("localhost:1", "127.0.0.1", "[::1]:5", "a.localhost")),
        *((host, 403) for host in ("", "evil.com", "evillocalhost", "10.0.0.1", "[bad")),
    ],
)
def test_without_a_key_the_host_is_this_machine(host: str, status: int | None) -> None:
    if status is None:
        assert check_caller("/openai/v1", {"host": host}, None) == "/openai/v1"
        return
    with pytest.raises(RejectedError) as raised:
        check_caller("/openai/v1", {"host": host}, None)
    assert raised.value.status == status
    assert check_caller("/openai/v1", {"host": host}, None, captured=True) == "/openai/v1"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("x.localhost", True),
        ("xlocalhost", False),
        ("127.9.9.9", True),
        ("::1", True),
        ("::2", False),
        (None, False),
    ],
)
def test_loopback(host: str | None, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        ("http://h:1/a/b", "h:1", "/a/b"),
        ("HTTP://h:1/a/b", "h:1", "/a/b"),
        ("http://h:1/a", "other", "http://h:1/a"),
        ("http://u@h:1/a", "u@h:1", "http://u@h:1/a"),
        ("https://h:1/a", "h:1", "https://h:1/a"),
        ("/a", "h", "/a"),
    ],
)
def test_the_whole_address_as_target(target: str, host: str, path: str) -> None:
    assert origin_form(target, host) == path


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://Budget.example", ("budget.example", 443)),
        ("http://budget.example/", ("budget.example", 80)),
        ("https://budget.example:7878/x", ("budget.example", 7878)),
        ("http://budget.example:port", None),
        ("", None),
    ],
)
def test_the_address_of_the_ledger_that_a_tunnel_may_reach(url: str, target: tuple[str, int] | None) -> None:
    assert _ledger_target(url) == target


def test_what_reaches_the_provider() -> None:
    dropped = ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"]
    dropped += ["trailer", "transfer-encoding", "upgrade", "host", "x-cycles-proxy-key", "x-cycles-agent", "expect"]
    raw = [(name.encode(), b"x-listed") for name in dropped]
    kept = [(b"authorization", b"Bearer k"), (b"x-api-key", b"k"), (b"content-length", b"3")]
    sent = upstream_headers([*raw, (b"x-listed", b"1"), *kept], has_length=True)
    assert sent == [*kept, (b"accept-encoding", b"identity")]
    assert upstream_headers(kept, has_length=False) == [*kept[:2], (b"accept-encoding", b"identity")]


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        (b"gzip, br, deflate", b"gzip, deflate"),
        (b"GZIP;q=0.5, zstd", b"GZIP;q=0.5"),
        (b"br", b"identity"),
        (b"*", b"identity"),
    ],
)
def test_only_codings_that_can_be_read_are_accepted(accepted: bytes, sent: bytes) -> None:
    assert upstream_headers([(b"accept-encoding", accepted)], has_length=True) == [(b"accept-encoding", sent)]


def test_what_reaches_the_program() -> None:
    raw = [(b"Connection", b"close, X-Hop"), (b"X-Hop", b"1"), (b"Keep-Alive", b"5"), (b"Content-Length", b"3")]
    raw += [(b"Content-Encoding", b"gzip"), (b"X-Request-Id", b"r")]
    changed = [(b"x-request-id", b"r")]
    assert client_headers(raw, changed=True) == changed
    assert client_headers(raw, changed=False) == [(b"content-length", b"3"), (b"content-encoding", b"gzip"), *changed]


# --- paths


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/openai/v1/../files", 400),
        ("/openai/v1/%2e%2e/files", 400),
        ("/openai//v1/files", 400),
        ("/openai/./files", 400),
        ("/openai/v1/a%5Cb", 400),
        ("/openai/v1/a%5c..%5cb", 400),
        ("http://h/openai/v1", 400),
        ("/openai", 404),
        ("/unknown/v1/x", 404),
        ("/azure/openai/deployments/d/chat/completions", 404),
    ],
)
def test_paths_that_reach_no_upstream(path: str, status: int) -> None:
    with pytest.raises(RejectedError) as raised:
        target_of(path, "", UPSTREAMS)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("path", "query", "url", "provider", "found"),
    [
        ("/openai/v1/chat/completions", "", "https://api.openai.com/v1/chat/completions", "openai", "chat.completions"),
        ("/openai/v1/responses/", "a=1", "https://api.openai.com/v1/responses/?a=1", "openai", "responses"),
        ("/anthropic/v1/messages", "", "https://api.anthropic.com/v1/messages", "anthropic", "messages"),
        ("/anthropic/messages", "", "https://api.anthropic.com/v1/messages", "anthropic", "messages"),
    ],
)
def test_where_a_request_goes(path: str, query: str, url: str, provider: str, found: str) -> None:
    target = target_of(path, query, UPSTREAMS)
    assert (target.url, target.provider) == (url, provider)
    endpoint = find(target.provider, "POST", target.path)
    assert isinstance(endpoint, Endpoint)
    assert endpoint.name == found


@pytest.mark.parametrize(
    ("path", "provider", "model", "streams"),
    [
        ("/v1/projects/p/locations/eu/publishers/google/models/g:generateContent", "google", None, False),
        ("/v1/projects/p/locations/eu/publishers/anthropic/models/c:rawPredict", "anthropic", "c", False),
        ("/v1/projects/p/locations/eu/publishers/anthropic/models/c:streamRawPredict", "anthropic", "c", True),
    ],
)
def test_models_of_vertex(path: str, provider: str, model: str | None, streams: bool) -> None:
    target = target_of(f"/vertex{path}", "", {})
    assert (target.provider, target.model, target.streams) == (provider, model, streams)
    assert target.is_model_fixed is (model is not None)
    assert target.url.startswith("https://aiplatform.eu.rep.googleapis.com/v1/")


# --- bodies

JSON = {"content-type": "application/json"}


def endpoint(provider: str = "openai", path: str = "/chat/completions") -> Endpoint:
    found = find(provider, "POST", path)
    assert isinstance(found, Endpoint)
    return found


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "GZIP", "zstd", "identity, gzip"])
def test_a_compressed_body_is_rejected(coding: str) -> None:
    with pytest.raises(ValueError, match="the body is compressed: send it without Content-Encoding"):
        read_body(b"{}", {**JSON, "content-encoding": coding}, endpoint())
    assert read_body(b"{}", {**JSON, "content-encoding": "Identity"}, endpoint()).content == {}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{", "the body is not JSON: .*; send a JSON object"),
        (b"[" * 100_000, "the body is not JSON: .*; send a JSON object"),
        (b"[]", "the body is not a JSON object; send one"),
        (b"\xff", "the body is not JSON"),
    ],
)
def test_a_body_that_is_no_object(raw: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_body(raw, JSON, endpoint())


def test_a_member_that_is_there_twice_is_sent_as_it_was_priced() -> None:
    body = read_body(b'{"model":"a","max_tokens":1,"max_tokens":2}', JSON, endpoint())
    assert (body.content["max_tokens"], body.must_change) == (2, True)
    assert json.loads(body.changed(None)) == {"model": "a", "max_tokens": 2}
    once = read_body(b'{"model": "a" }', JSON, endpoint())
    assert once.changed(None) == b'{"model": "a" }'
    assert once.changed({"model": "\xe9"}) == '{"model": "é"}'.encode()
    half = read_body(b'{"model": "\\ud800", "model": "\\ud83d\\ude00"}', JSON, endpoint())  # a program may cut a pair
    assert half.changed(None) == '{"model": "😀"}'.encode()
    cut = read_body(b'{"model": "a", "model": "\\ud800"}', JSON, endpoint())
    assert json.loads(cut.changed(None).decode("utf-8", "surrogatepass")) == {"model": "\ud800"}


def form(*parts: bytes, boundary: str = "B") -> bytes:
    return b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts) + b"--B--\r\n"


def field(name: str, value: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


FILE = b'Content-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n12345'
MULTIPART = {"content-type": "multipart/form-data; boundary=B"}


def test_a_form_is_read_as_the_provider_reads_it() -> None:
    raw = form(field("model", "m"), field("n", "3"), field("stream", "true"), FILE, FILE)
    body = read_body(raw, MULTIPART, endpoint(path="/audio/transcriptions"))
    assert body.content == {"model": "m", "n": 3, "stream": True}
    assert (body.files.count, body.files.size, body.changed(None)) == (2, 10, raw)


@pytest.mark.parametrize(
    ("raw", "headers", "says"),
    [
        (b"", {"content-type": "multipart/form-data"}, "the form has no boundary; send it in the header Content-Type"),
        (form(b"no blank line"), MULTIPART, "a part of the form has no content; send a blank line after its headers"),
        (form(field("model", "a"), field("model", "b")), MULTIPART, "the form has model twice; send it once"),
        (form(field("n", "1"), field("n", "9")), MULTIPART, "the form has n twice; send it once"),
    ],
)
def test_a_form_that_cannot_be_priced(raw: bytes, headers: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_body(raw, headers, endpoint(path="/audio/transcriptions"))


# --- tunnels


def head(target: str = "h:443", *headers: str, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"CONNECT {target} {version}", *headers]).encode("latin-1")


def basic(pair: str) -> str:
    return f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize(
    ("given", "host", "port", "key"),
    [
        (head(), "h", 443, None),
        (head("API.OpenAI.com.:443", basic("cycles:k")), "api.openai.com", 443, "k"),
        (head("[::1]:80", basic("cycles:a:b")), "::1", 80, "a:b"),
        (head("h:65535", basic("nokey")), "h", 65535, None),
        (head("h:1", "Proxy-Authorization: Bearer k"), "h", 1, None),
        (head("h:1", "Proxy-Authorization: basic ???"), "h", 1, None),
        (head("h:1", basic("cycles:k").replace("Basic", "bAsIc")), "h", 1, "k"),
        (head("h:1", "Content-Length: 0", version="HTTP/1.0"), "h", 1, None),
        (head("0x7f.1:1"), "127.0.0.1", 1, None),
    ],
)
def test_a_head_of_connect(given: bytes, host: str, port: int, key: str | None) -> None:
    found = read_connect(given)
    assert (found.host, found.port, found.key) == (host, port, key)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (head(version="HTTP/2"), "the request line is not CONNECT HOST:PORT HTTP/1.1"),
        (b"CONNECT h:1", "the request line is not CONNECT HOST:PORT HTTP/1.1"),
        (head("h"), "'h' is not HOST:PORT"),
        (head("h:0"), "'h:0' is not HOST:PORT"),
        (head("h:65536"), "'h:65536' is not HOST:PORT"),
        (head("h:+1"), "is not HOST:PORT"),
        (head("h:000001"), "is not HOST:PORT"),
        (head("::1:80"), "write an IPv6 address as"),
        (head("h_!:1"), "is not a host name"),
        (head("1.2.3:1x"), "is not HOST:PORT"),
        (head("h:1", "Content-Length: 5"), "CONNECT has no body"),
        (head("h:1", "Transfer-Encoding: chunked"), "CONNECT has no body"),
        (head("h:1", "bad"), "'bad' is not a header"),
        (head("h:1", "a : b"), "is not a header"),
    ],
)
def test_a_malformed_head_of_connect(given: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_connect(given)


def test_a_response_to_connect_is_whole() -> None:
    made, _, body = response(403, "Cycles rejected a connection to h", "why", "X: 1").partition(b"\r\n\r\n")
    lines = made.decode().split("\r\n")
    assert (lines[0], lines[-1], body) == ("HTTP/1.1 403 Cycles rejected a connection to h", "X: 1", b"why\n")
    assert {"Content-Length: 4", "Connection: close"} < set(lines)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("A.Example.", "a.example"),
        ("[2001:DB8::1]", "2001:db8::1"),
        *((text, "127.0.0.1") for text in ("::ffff:127.0.0.1", "2130706433", "0177.0.0.1", "127.1")),
    ],
)
def test_hosts_have_one_form(text: str, host: str) -> None:
    assert normalized_host(text) == host


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("169.254.169.254", True),  # the metadata service of clouds
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("fe80::1", True),
        ("192.0.2.1", False),
        ("8.8.8.8", False),
    ],
)
def test_addresses_of_this_machine_and_of_its_link(address: str, own: bool) -> None:
    assert is_own(ipaddress.ip_address(address)) is own


@pytest.mark.parametrize(("address", "public"), [("8.8.8.8", True), ("10.0.0.1", False), ("100.64.0.1", False)])
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("target", "options", "decision", "counted"),
    [
        ("intranet:443", {}, "tunnel", None),
        ("api.openai.com:443", {}, "reject", "rejected"),
        ("API.openai.com.:443", {}, "reject", "rejected"),
        ("8.8.8.8:443", {}, "reject", "rejected"),
        ("10.0.0.1:443", {}, "tunnel", None),
        ("api.cohere.com:443", {}, "reject", "rejected"),
        ("api.openai.com:443", {"allowed": ["api.openai.com"]}, "tunnel", "allowed"),
        ("intranet:443", {"allowed": ["intranet"]}, "tunnel", None),
        ("api.openai.com:443", {"captures": lambda host: True}, "capture", None),
        ("api.openai.com:443", {"captures": lambda host: True, "allowed": ["api.openai.com"]}, "tunnel", "allowed"),
        ("8.8.8.8:443", {"ledger": ("8.8.8.8", 443)}, "tunnel", None),
        ("8.8.8.8:444", {"ledger": ("8.8.8.8", 443)}, "reject", "rejected"),
    ],
)
def test_what_happens_with_a_connection(
    target: str, options: dict[str, Any], decision: str, counted: str | None
) -> None:
    totals = Totals()
    found = read_connect(head(target))
    assert Tunnels(totals, keys=None, **options).decide(found) == decision
    one = Counter({found.host: 1})
    expected = (one if counted == "rejected" else Counter(), one if counted == "allowed" else Counter())
    assert (totals.rejected_hosts, totals.allowed_hosts) == expected


def test_the_key_of_a_tunnel() -> None:
    tunnels = Tunnels(Totals(), keys=lambda given: key_matches(given, KEY))
    assert [tunnels.accepts(key) for key in (KEY, "the-kex", "", None)] == [True, False, False, False]
    assert Tunnels(Totals(), keys=None).accepts(None)


# --- shares, agents, denials


def shares(left: cycles.Amount | None = None, unit: str = "USD_MICROCENTS") -> Shares:
    return Shares(lambda: left, lambda share: None, unit)


def make(of: Shares, limit: Any, name: Any = "a", parent: Any = None) -> Any:
    return of.make(parent, json.dumps({"name": name, "limit": limit}).encode())


@pytest.mark.parametrize(
    ("asked", "amount"),
    [("1USD", 10**8), ("100%", 1_000), ("0.1%", 1), ("33.3333%", 333), ("50%", 500), (" 1USD ", 10**8), (" 20% ", 200)],
)
def test_the_limit_of_a_share(asked: str, amount: int) -> None:
    of = shares(cycles.usd_microcents(1_000))
    made = make(of, asked)
    assert made.limit.amount == cycles.usd_microcents(amount)
    assert make(of, asked) is made


def test_a_share_whose_scope_cannot_be_made_is_made_by_the_next_request() -> None:
    errors = [cycles.InvalidRequestError("the sum of the limits is too large")]

    def opened(share: object) -> None:
        if errors:
            raise errors.pop()

    of = Shares(lambda: None, opened, "USD_MICROCENTS")
    with pytest.raises(cycles.InvalidRequestError):
        make(of, "1USD")
    share = make(of, "1USD")
    assert of.of_key(share.key) is share


@pytest.mark.parametrize(
    ("limit", "name", "status", "says"),
    [
        ("0%", "a", 400, "limit '0%' is not a percentage from 0 to 100: write it like 20%"),
        ("100.1%", "a", 400, "limit '100.1%' is not a percentage from 0 to 100: write it like 20%"),
        ("0USD", "a", 400, "limit '0USD' is not above zero; write it like 1USD"),
        ("5TOKENS", "a", 400, "limit '5TOKENS' is not in USD; write it like 1USD"),
        ("much", "a", 400, "write it like 1USD or 20%"),
        (5, "a", 400, "limit 5 is not an amount; write it like 1USD or 20%"),
        ("1USD", "A", 400, "name 'A' is not 1 to 64 characters of a-z, 0-9, _, . and -"),
        ("1USD", "", 400, "name '' is not 1 to 64 characters"),
        ("1USD", "a" * 65, 400, "is not 1 to 64 characters"),
        ("1USD", "a/b", 400, "is not 1 to 64 characters"),
        ("1USD", None, 400, "name None is not 1 to 64 characters"),
        ("2USD", "known", 409, "known"),
        ("20%", "known", 409, "known"),
    ],
)
def test_a_share_that_cannot_be_made(limit: Any, name: Any, status: int, says: str) -> None:
    of = shares(cycles.usd_microcents(1_000))
    make(of, "1USD", "known")
    with pytest.raises(ShareError) as raised:
        make(of, limit, name)
    assert raised.value.status == status
    assert says in str(raised.value)


def test_the_most_shares_and_the_longest_path(monkeypatch: pytest.MonkeyPatch) -> None:
    of, parent = shares(), None
    for _ in range(4):
        parent = make(of, "1USD", "a" * 63, parent)
    with pytest.raises(ShareError, match=r"the path 'a+/a.* has more than 256 characters: use shorter names"):
        make(of, "1USD", "b", parent)
    monkeypatch.setattr("cycles.proxy._shares.MOST_SHARES", 4)
    with pytest.raises(ShareError, match="the run has 4 shares, which is the most: use one that exists"):
        make(of, "1USD", "c")
    assert make(of, "1USD", "a" * 63).path == "a" * 63


def test_a_part_of_nothing() -> None:
    with pytest.raises(ShareError, match="limit 20% is a part of nothing: the run has no --budget"):
        make(shares(None), "20%")


def test_the_share_with_the_highest_cost_is_first_and_then_the_one_with_the_first_name() -> None:
    of = shares()
    for name, spent in (("b", 5), ("a", 5), ("d", 9), ("c", 0)):
        make(of, "1USD", name).spent = spent
    assert list(of.document()) == ["d", "a", "b", "c"]
    assert [line.partition(":")[0] for line in of.lines()] == [f"share {name}" for name in "dabc"]


def test_a_share_of_a_share_counts_for_both() -> None:
    of = shares(cycles.usd(1))
    parent: Any = make(of, "50%", "p")
    child: Any = make(of, "50%", "c", parent)
    assert (child.path, child.limit.amount) == ("p/c", cycles.usd("0.25"))
    assert [share.path for share in child.with_parents()] == ["p/c", "p"]
    by_key: Any = of.of_key(child.key)
    assert by_key is child
    assert of.of_key(child.key[:-1]) is None
    totals = Totals()
    totals.count_denied(child, "budget_exceeded")
    assert (child.denied, parent.denied, totals.denied) == (1, 1, 1)


@pytest.mark.parametrize("path", ["a", "a/b", "/".join("abcdefgh"), "A.b_c-9", "x" * 128])
def test_a_path_of_agents(path: str) -> None:
    assert checked_path(path) == path


@pytest.mark.parametrize("path", ["", "/", "a/", "a//b", "/".join("abcdefghi"), "x" * 129, "a b", "ä", "a\n"])
def test_what_is_no_path_of_agents(path: str) -> None:
    with pytest.raises(ValueError, match="is not 1 to 8 names of letters, digits"):
        checked_path(path)


def test_the_tree_of_agents() -> None:
    tree = AgentTree(is_named=True)
    for path, amount in (("a", 10**6), ("a/b", 10**6), ("a/c", 3 * 10**6), ("z", 9 * 10**6)):
        tree.add(path, amount)
    assert tree.lines() == [
        "agent z: 1 call, $0.0900",
        "agent a: 1 call, $0.0100 ($0.0500 with those below)",
        "  agent c: 1 call, $0.0300",
        "  agent b: 1 call, $0.0100",
    ]
    for number in range(1_100):
        tree.add(f"n{number}", 0)
    assert len(tree.document()) == 1_001
    assert tree.document()["others"]["calls"] == 104


def payer(name: str, left: int, held: int = 0, *, is_scope: bool = False) -> Payer:
    return Payer(name, name, left, held, 10**8, is_scope)


def test_the_budget_with_the_least_left_decides() -> None:
    budgets = [payer("this run", 5), payer("share a", 3)]
    assert tightest(budgets) is budgets[1]
    assert tightest([]) is None


@pytest.mark.parametrize(
    ("payers", "lower", "waits", "raises"),
    [
        ([payer("this run", 50)], True, False, True),
        ([payer("this run", 50, 50)], True, True, True),
        ([payer("this run", 50, 49)], True, False, True),
        ([payer("this run", 0, 100)], False, True, True),
        ([payer("this run", 50, 50), payer("share a", 40, 0)], True, False, True),
        ([payer("this run", 99, 1)], True, True, True),
        ([payer("this run", 100)], None, None, None),
        ([payer("this run", 100), payer("share a", 101)], None, None, None),
    ],
)
def test_what_would_let_a_call_pass(payers: list[Payer], lower: Any, waits: Any, raises: Any) -> None:
    found = remedies(payers, "USD_MICROCENTS", least=100, bound=lambda n: 10 * n, lowest=10, wait=240)
    assert (found is None) is (lower is None)
    text = found or ""
    assert ("request at most" in text) is bool(lower)
    assert ("pass a --wait above 240 s" in text) is bool(waits)
    assert ("--budget" in text or "raise" in text) is bool(raises)


# --- the summary


def test_the_summary_begins_with_the_dearest_model() -> None:
    totals = Totals(calls=3, spent=6 * 10**6, models={"a": [1, 10**6], "b": [1, 3 * 10**6], "c": [1, 2 * 10**6]})
    totals.waited, totals.lowered, totals.unmetered, totals.estimated = 4, 5, 6, 7
    totals.denied_by.update({"budget_exceeded": 1, "unknown_model": 2})
    totals.failed_by["invalid request"] = 1
    assert totals.line(61.6, cycles.usd(1)) == (
        "3 calls, $0.0600 of $1.00 spent (b $0.0300, c $0.0200, a $0.0100), "
        "3 denied (2 unknown_model; 1 budget_exceeded), 1 failed (invalid request)"
        ", 4 waited, 5 lowered, 6 not metered, 7 estimated, 1 m 02 s"
    )
    found = totals.document(1.23456, 3)
    assert (found["denied_by"], found["failed_by"]) == (dict(totals.denied_by), {"invalid request": 1})
    assert (found["waited"], found["lowered"], found["unmetered"], found["estimated"]) == (4, 5, 6, 7)
    assert (found["seconds"], found["exit"], list(found["models"])) == (1.235, 3, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.4, "59.4 s"), (59.6, "1 m 00 s"), (3_599.6, "1 h 00 m"), (7_384, "2 h 03 m")],
)
def test_how_long_a_run_took(seconds: float, text: str) -> None:
    assert Totals().line(seconds, None) == f"0 calls, $0.00 spent, 0 denied, {text}"


@pytest.mark.parametrize(
    ("window", "day"),
    [("minute", ""), ("hour", ""), ("day", ""), ("week", " on 2026-11-29"), ("month", " on 2026-11-29")],
)
def test_a_forecast_has_its_day_if_its_window_has_several(window: str, day: str) -> None:
    at = int(datetime(2026, 11, 28, 23, 30, tzinfo=UTC).timestamp() * 1000)
    amounts = {"spent": cycles.usd(1).to_dict(), "budget": cycles.usd(5).to_dict()}
    kept = {
        **amounts,
        "window": {"window": window, "timezone": "Europe/Berlin", "ends_at_ms": at, "exhausted_at_ms": at},
    }
    assert f"used up at 00:30{day} at this pace)" in Totals().line(1.0, cycles.usd(5), kept)


def test_the_connections_that_were_rejected_of_one_host_add_up() -> None:
    totals = Totals(rejected_hosts=Counter({"a": 1, "b": 2}), untrusted=Counter({"a": 3}))
    assert totals.document(0, 0)["rejected_hosts"] == {"a": 4, "b": 2}


def test_hosts_that_were_not_charged_have_a_line_each() -> None:
    totals = Totals()
    totals.rejected_hosts.update({"api.openai.com": 2, "api.cohere.com": 1})
    totals.allowed_hosts["chatgpt.com"] = 3
    totals.untrusted["api.groq.com"] = 1
    totals.captured["api.anthropic.com"] = 1
    assert totals.host_lines(captures=False) == [
        "rejected: 2 connections to api.openai.com, which would not be charged; pass --capture",
        "rejected: 1 connection to api.cohere.com, which would not be charged; pass --allow-host api.cohere.com",
        "rejected: 1 connection to api.groq.com: the program trusts no certificate of this run, or needs HTTP/2; "
        "--allow-host api.groq.com passes it uncharged",
        "not charged: 3 connections to chatgpt.com (--allow-host)",
        "captured: 1 call to api.anthropic.com",
    ]
    assert totals.host_lines(captures=True)[0].endswith("pass --allow-host api.openai.com")
    assert totals.document(0, 0)["rejected_hosts"] == {"api.openai.com": 2, "api.cohere.com": 1, "api.groq.com": 1}
