"""What an exchange makes of a base URL, a coded body and the certificates of the machine, without a connection."""

from __future__ import annotations

import errno
import gzip
import ssl
import sys
import zlib
from typing import Any

import httpx
import pytest

import cycles
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, decoded, tls_context

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
