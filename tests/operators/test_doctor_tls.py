"""The check `tls` of `cycles doctor`: who issued the certificate, how long it is valid, and what makes it fail."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.operators.conftest import Cycles
from tests.operators.proxying import proxied
from tests.support.stub import Stub

pytest.importorskip("cryptography")


def certificate(directory: Path, *, days: int, host: str = "localhost") -> Path:
    """Write a certificate of Example CA and its key to one file, and return it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example CA")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{host}-{days}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def served(path: Path) -> Iterator[str]:
    """Serve TLS with this certificate, and yield the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with Stub(tls=context) as stub:
        yield stub.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def tls(run_here: Cycles, no_pause: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the status of `doctor` and its check `tls` for an address."""
    monkeypatch.setenv("CYCLES_API_KEY", "cyc_live_abc_def")
    monkeypatch.setenv("CYCLES_TENANT", "acme")
    monkeypatch.setenv("CYCLES_TIMEOUT", "2")

    def check(url: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        ran = run_here("doctor", "--json")
        [found] = [each for each in ran.document["checks"] if each["name"] == "tls"]
        return ran.status, found

    return check


def test_issuer_and_days_are_shown(tls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path, days=90)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with served(path) as url:
        _, found = tls(url)
    assert found == {
        "name": "tls",
        "status": "ok",
        "detail": "issued by Example CA, 90 days left",
        "remedy": None,
    }


def test_a_certificate_that_ends_soon_fails(tls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path, days=3)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with served(path) as url:
        _, found = tls(url)
    assert (found["status"], found["remedy"]) == ("fail", "renew the certificate")
    assert "3 days left" in found["detail"]


@pytest.mark.parametrize(
    ("days", "host", "trusted", "says"),
    [
        (-1, "localhost", True, "expired"),
        (90, "other.example", True, "mismatch"),
        (90, "localhost", False, "self-signed" if ssl.OPENSSL_VERSION_INFO >= (3,) else "self signed"),
    ],
)
def test_a_certificate_that_clients_reject_fails(
    tls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, host: str, trusted: bool, says: str
) -> None:
    path = certificate(tmp_path, days=days, host=host)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with served(path) as url:
        status, found = tls(url)
    assert (status, found["status"], found["remedy"]) == (3, "fail", "correct the certificate or SSL_CERT_FILE")
    assert says in found["detail"].lower()


def test_a_server_without_tls_fails(tls: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def greet() -> None:
            for _ in range(2):
                connection, _ = plain.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-none\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        status, found = tls(f"https://127.0.0.1:{plain.getsockname()[1]}")
    assert (status, found["status"]) == (3, "fail")
    assert found["remedy"]


def test_certificates_that_cannot_be_read_are_wrong_configuration(
    tls: Any, monkeypatch: pytest.MonkeyPatch, run_here: Cycles
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nothing/here.pem")
    status, found = tls("https://127.0.0.1:9")
    assert (status, found["status"]) == (2, "fail")
    assert found["detail"].startswith("certificates cannot be loaded from SSL_CERT_FILE")
    assert found["remedy"] == "name a readable PEM file or unset it"
    ran = run_here("run", "--embedded", "--budget", "1USD", "--", "true")
    assert ran.status == 2
    assert "SSL_CERT_FILE" in ran.err


def test_the_proxy_uses_the_same_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path, days=90)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with served(path) as url, proxied(upstreams={"openai": url, "anthropic": url, "gemini": url}) as place:
        assert place.post("/openai/v1/files", json={}).status_code == 200
