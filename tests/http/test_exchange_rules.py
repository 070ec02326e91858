"""What an exchange makes of a base URL, a coded body and the certificates of the machine, without a connection."""

from __future__ import annotations

import errno
import gzip
import os
import ssl
import sys
import zlib
from typing import Any

import httpx
import pytest

import cycles
from cycles._http import exchange
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, decoded, tls_context
from cycles._http.factory import asynchronous, blocking

TEXT = b"0123456789" * 100
GZIP = gzip.compress(TEXT, mtime=0)  # without the time, which would be in the names of tests


@pytest.mark.parametrize("encoding", ["gzip", " GZIP ", "x-gzip", "deflate"])
@pytest.mark.parametrize(("limit", "is_read"), [(1_001, True), (1_000, True), (999, False), (998, False)])
def test_a_coded_body_is_unpacked_up_to_its_limit(encoding: str, limit: int, is_read: bool) -> None:
    body = zlib.compress(TEXT) if encoding == "deflate" else GZIP
    try:
        read: Any = decoded(body, encoding, limit)
    except ExchangeError as error:
        read = error.kind, str(error), error.request_sent
    too_large = FailureKind.TOO_LARGE, f"the response is larger than {limit} bytes", True
    assert read == (TEXT if is_read else too_large)


@pytest.mark.parametrize("encoding", [None, "identity", "br", "", "gzip, deflate"])
def test_a_body_with_another_coding_is_returned_unchanged(encoding: str | None) -> None:
    assert decoded(GZIP, encoding, 1) == GZIP


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"no gzip at all", "the compressed response is damaged"),
        (GZIP[:-1], "the compressed response is incomplete"),
        (b"", "the compressed response is incomplete"),
    ],
)
def test_a_coded_body_that_cannot_be_unpacked_is_broken(body: bytes, says: str) -> None:
    with pytest.raises(ExchangeError) as raised:
        decoded(body, "gzip", 10_000)
    assert (raised.value.kind, str(raised.value), raised.value.request_sent) == (FailureKind.BROKEN, says, True)


class OtherError(OSError):
    """An OSError of a subclass, as `ssl.SSLError` is."""


@pytest.mark.parametrize(
    ("error", "is_descriptors"),
    [
        (OSError(errno.EMFILE, "too many open files"), True),
        (OSError(errno.ENFILE, "too many open files"), True),
        (OSError(errno.EIO, "no disk"), False),
        (OtherError(errno.EMFILE, "a file"), False),
        (ssl.SSLError(errno.ENFILE, "a certificate"), False),
        (ValueError("no certificate"), False),
    ],
)
def test_certificates_that_cannot_be_read_for_want_of_a_file_descriptor_are_no_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_descriptors: bool
) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(httpx, "create_ssl_context", fail)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises((ExchangeError, cycles.ConfigurationError)) as raised:
        tls_context()
    found: Any = raised.value
    if is_descriptors:
        said = (FailureKind.CONNECT, f"TLS certificates cannot be read ({error})", False)
        assert (found.kind, str(found), found.request_sent) == said
    else:
        assert str(found) == (
            f"TLS certificates cannot be loaded: the system's certificates ({error}); "
            "name a readable PEM file or unset it"
        )
    assert found.__cause__ is error


def test_a_wrong_certificate_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere" + "x" * 300)
    monkeypatch.setenv("SSL_CERT_FILE", "a.pem")
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: ssl.create_default_context(cafile="/nowhere/a.pem"))
    with pytest.raises(cycles.ConfigurationError) as raised:
        tls_context()
    named = f"SSL_CERT_FILE='a.pem', SSL_CERT_DIR='/nowhere{'x' * 191} ("
    assert str(raised.value).startswith(f"TLS certificates cannot be loaded: {named}")


def test_plain_http_needs_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)  # importing it raises ImportError
    assert Endpoint("http://a.test").tls is None


@pytest.mark.parametrize(
    ("base_url", "url", "authority"),
    [
        ("http://a.test", "http://a.test/v1/x", b"a.test"),
        ("http://A.test:80/", "http://a.test/v1/x", b"a.test"),
        ("http://a.test:443/p q//", "http://a.test:443/p%20q/v1/x", b"a.test:443"),
        ("https://a.test:443", "https://a.test/v1/x", b"a.test"),
        ("https://[::1]/a;b=1,(c)~%41", "https://[::1]/a;b=1,(c)~%41/v1/x", b"[::1]"),
        ("http://[::1]:81", "http://[::1]:81/v1/x", b"[::1]:81"),
        ("http://u:p@a.test:81/?q#f", "http://a.test:81/v1/x", b"a.test:81"),
        ("http://bücher.example/ü", "http://xn--bcher-kva.example/%C3%BC/v1/x", b"xn--bcher-kva.example"),
    ],
)
def test_the_url_of_a_request_is_the_base_url_and_its_target(base_url: str, url: str, authority: bytes) -> None:
    endpoint = Endpoint(base_url)
    assert (endpoint.url("/v1/x"), endpoint.authority) == (url, authority)


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        ("ftp://a.test", "base_url 'ftp://a.test' must look like https://cycles.example.com"),
        ("http://", "base_url 'http://' must look like https://cycles.example.com"),
        ("a.test", "base_url 'a.test' must look like https://cycles.example.com"),
        ("http://a.test:99999", "base_url 'http://a.test:99999' is not a URL: "),
        ("http://[::1", "base_url 'http://[::1' is not a URL: "),
        ("http://ü:x", "base_url 'http://ü:x' is not a URL: "),
        ("y://" + "x" * 300, f"base_url 'y://{'x' * 195} must look like https://cycles.example.com"),
    ],
)
def test_a_base_url_that_is_wrong_is_named_with_the_reason(base_url: str, says: str) -> None:
    with pytest.raises(ValueError, match="base_url") as raised:
        Endpoint(base_url)
    assert str(raised.value).startswith(says)


@pytest.mark.parametrize(
    ("error", "kind", "says", "request_sent"),
    [
        (exchange.closed(), "closed", "this client is closed: make a new one", False),
        (exchange.no_free_connection(0.25), "queue", "no connection was free within 0.25 s, so nothing was sent; "
         "raise max_connections, or start fewer calls at the same time", False),
        (exchange.timed_out("now", request_sent=True), "timeout", "timed out now", True),
        (exchange.timed_out("now", request_sent=False), "timeout", "timed out now", False),
        (exchange.too_large(7), "too_large", "the response is larger than 7 bytes", True),
        (exchange.broken(None, request_sent=True), "broken", "the connection broke before the response", True),
        (exchange.broken(OSError("x"), request_sent=False), "broken",
         "the connection broke before the response (x)", False),
        (exchange.broken(EOFError(), request_sent=True), "broken",
         "the connection broke before the response (EOFError)", True),
        (exchange.not_connected(Endpoint("http://a.test:81/p"), OSError("x")), "connect",
         "can't connect to http://a.test:81 (x)", False),
        (exchange.not_connected(Endpoint("http://a.test:81/p"), TimeoutError()), "connect",
         "can't connect to http://a.test:81 (TimeoutError)", False),
    ],
)  # fmt: skip
def test_each_failure_says_whether_the_server_may_have_the_request(
    error: ExchangeError, kind: str, says: str, request_sent: bool
) -> None:
    assert (error.kind, str(error), error.request_sent) == (kind, says, request_sent)


@pytest.mark.parametrize(
    ("variables", "base_url", "is_proxied"),
    [
        ({}, "http://a.test", False),
        ({"HTTP_PROXY_NAME": "x"}, "http://a.test", False),
        ({"http_proxy": "http://p"}, "http://a.test", True),
        ({"http_proxy": "http://p"}, "https://a.test", False),
        ({"HTTPS_PROXY": "http://p"}, "https://a.test", True),
        ({"all_proxy": "http://p"}, "https://a.test", True),
        ({"all_proxy": "http://p", "no_proxy": "a.test"}, "http://a.test", False),
        ({"all_proxy": "http://p", "no_proxy": "b.test"}, "http://a.test", True),
        ({"all_proxy": "http://p", "no_proxy": "a.test:81"}, "http://a.test:81", False),
        ({"all_proxy": "http://p", "no_proxy": "a.test:81"}, "http://a.test:82", True),
        ({"no_proxy": "a.test"}, "http://a.test", False),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_requests_go_through_the_proxy_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], base_url: str, is_proxied: bool, is_async: bool
) -> None:
    for name in ("REQUEST_METHOD", *(name for name in os.environ if name.lower().endswith("_proxy"))):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    make: Any = asynchronous if is_async else blocking
    made = make(Endpoint(base_url), connect_timeout_s=1.0, max_connections=2)
    assert (
        type(made).__name__
        == {
            (False, False): "BlockingConnections",
            (False, True): "AsyncConnections",
            (True, False): "BlockingClient",
            (True, True): "AsyncClient",
        }[is_proxied, is_async]
    )


@pytest.mark.parametrize("name", ["HTTPS_PROXY", None])
def test_a_users_client_is_used_whatever_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    if name is not None:
        monkeypatch.setenv(name, "http://p")
    with httpx.Client() as client:
        made: Any = blocking(Endpoint("https://a.test"), client, connect_timeout_s=1.0, max_connections=2)
        assert made.client is client
        made.close()
        assert not client.is_closed
