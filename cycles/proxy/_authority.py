"""The certificate authority of one run, the certificates that it issues, and the files with which programs trust it.

Its key is made at the start and stays in the memory of this process. The key of the certificates is written to a file,
because `ssl` reads keys from files only: encrypted with a password that is in memory. The file is deleted immediately.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cycles._errors import ConfigurationError
from cycles.proxy._routes import hosts_of_routes

_LIFETIME: Final = timedelta(days=30)
_SKEW: Final = timedelta(hours=1)
"""How far a clock may be behind."""
_EXTRA: Final = "NODE_EXTRA_CA_CERTS"
BUNDLES: Final = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CODEX_CA_CERTIFICATE",
    "GIT_SSL_CAINFO",
)
"""Variables that name all certificates that a program trusts."""
_PEM_MARK: Final = b"-----BEGIN CERTIFICATE-----"


class Authority:
    """A certificate authority for the hosts of routes, and for no other host."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cycles: this run only")])
        permitted = [x509.DNSName(host) for host in hosts_of_routes()]
        usage = _usage(key_cert_sign=True, crl_sign=True)
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.NameConstraints(permitted, None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    @property
    def certificate(self) -> bytes:
        """The certificate of the authority, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str) -> ssl.SSLContext:
        """Return the TLS settings of a server for a host; they are made once."""
        if host not in self._contexts:
            self._contexts[host] = self._new_context(host)
        return self._contexts[host]

    def _new_context(self, host: str) -> ssl.SSLContext:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cycles")])
        leaf = (
            self._builder(subject, self._leaf_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        self._load(context, leaf)
        return context

    def _load(self, context: ssl.SSLContext, leaf: x509.Certificate) -> None:
        password = secrets.token_bytes(32)
        key = self._leaf_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )
        descriptor, name = tempfile.mkstemp(prefix="cycles-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key + leaf.public_bytes(serialization.Encoding.PEM) + self.certificate)
            context.load_cert_chain(name, password=password)
        finally:
            os.unlink(name)  # noqa: PTH108 - it was opened by its name


def _usage(**usages: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: usages.get(name, False) for name in names})


def trust_variables(authority: Authority, environ: Mapping[str, str], closing: contextlib.ExitStack) -> dict[str, str]:
    """Return variables that name files with which a program trusts an authority. The files have certificates only.

    Args:
        authority: Its certificate is appended, in each file, to what the program trusts already.
        environ: The variables of the caller.
        closing: Deletes the files when it is closed, also after an error.

    Raises:
        ConfigurationError: if a bundle of the caller cannot be read, or a file cannot be written.
    """
    own = environ.get(_EXTRA)
    contents = {_EXTRA: _read(_EXTRA, Path(own)) if own else b""} | {name: _base(name, environ) for name in BUNDLES}
    files: dict[bytes, str] = {}
    try:
        folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="cycles-run-", ignore_cleanup_errors=True))
        for base in contents.values():
            if base not in files:
                path = Path(folder, f"ca-{len(files)}.pem")
                path.write_bytes(base + authority.certificate)
                files[base] = str(path)
    except OSError as error:
        raise ConfigurationError(f"--capture cannot write certificates: {error}; check TMPDIR") from error
    return {name: files[base] for name, base in contents.items()}


def _base(name: str, environ: Mapping[str, str]) -> bytes:
    """Return what a program trusts already: the caller's own bundle, or the roots of the system."""
    for variable in (name, "SSL_CERT_FILE"):
        if environ.get(variable):
            return _read(variable, Path(environ[variable]))
    return _system_roots()


def _read(name: str, path: Path) -> bytes:
    try:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        return b"".join(_with_newline(file.read_bytes()) for file in files)
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error}; correct or unset it") from error


def _with_newline(content: bytes) -> bytes:
    return content if content.endswith(b"\n") or not content else content + b"\n"


def _system_roots() -> bytes:
    for path in _root_files():
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            if _PEM_MARK in content:
                return _with_newline(content)
    loaded = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, loaded)).encode()


def _root_files() -> Iterable[Path]:
    paths = ssl.get_default_verify_paths()
    named = [paths.cafile, paths.openssl_cafile]
    usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]
    with contextlib.suppress(ImportError):
        import certifi

        usual.append(certifi.where())
    return (Path(path) for path in [*named, *usual] if path)
