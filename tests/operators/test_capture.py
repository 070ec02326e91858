"""Captured connections: programs with the provider's address in their code are metered, or fail; none is unguarded."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from cycles.proxy._agents import gemini_environment
from cycles.proxy._authority import BUNDLES, Authority, trust_variables
from cycles.proxy._clients import UpstreamClient
from cycles.proxy._connect import METHOD
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import ROOT, environment, processes, run_process
from tests.operators.proxying import EXACT, KEY, USED, Place, proxied, upstreams as all_upstreams
from tests.operators.running import GPT_4O, agent, summary, upstreams
from tests.operators.tunnels import authorization, opened, read_head, rest_of

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def _captured(authority: Authority, **settings: Any) -> Any:
    named = frozenset(all_upstreams("x"))
    return proxied(tunnel=True, captured_hosts=None, named=named, authority=authority, **settings)


def _client_context(authority: Authority, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def _connected(place: Place, host: str, context: ssl.SSLContext, port: int = 443) -> ssl.SSLSocket:
    connection = opened(place)
    connection.sendall(f"{METHOD.decode()}{host}:{port} HTTP/1.1\r\n{authorization()}\r\n".encode())
    line, _ = read_head(connection)
    assert line == "HTTP/1.1 200 Connection established"
    return context.wrap_socket(connection, server_hostname=host)


def _request(host: str, path: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += f"Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@pytest.mark.parametrize(
    ("host", "path", "body"),
    [
        ("api.openai.com", "/v1/chat/completions", CHAT),
        ("api.anthropic.com", "/v1/messages", {**CHAT, "max_tokens": 500}),
        ("generativelanguage.googleapis.com", "/v1beta/models/m:generateContent", {"contents": []}),
        ("my.openai.azure.com", "/openai/deployments/m/chat/completions?api-version=1", CHAT),
        ("us-east5-aiplatform.googleapis.com", "/v1/publishers/google/models/m:generateContent", {"contents": []}),
        ("api.groq.com", "/openai/v1/chat/completions", CHAT),
        ("openrouter.ai", "/api/v1/chat/completions", CHAT),
    ],
)
def test_a_captured_request_is_charged_exactly(authority: Authority, host: str, path: str, body: Any) -> None:
    with _captured(authority) as place:
        place.provider.reply(usage=USED)
        with _connected(place, host, _client_context(authority, ["h2", "http/1.1"])) as connection:
            assert connection.selected_alpn_protocol() == "http/1.1"
            connection.sendall(_request(host, path, body))
            assert b"200 OK" in rest_of(connection)
        assert place.proxy.app.totals.host_lines(captures=True) == [f"captured: 1 call to {host}"]
        assert place.commits == [(EXACT, {})]
        assert place.proxy.app.totals.captured == {host: 1}
        assert place.proxy.app.totals.rejected_hosts == {}


def test_bytes_that_come_with_the_head_are_passed_to_tls(authority: Authority) -> None:
    with _captured(authority) as place, opened(place) as connection:
        place.provider.reply(usage=USED)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = _client_context(authority).wrap_bio(incoming, outgoing, server_hostname="api.openai.com")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        head = f"CONNECT api.openai.com:443 HTTP/1.1\r\n{authorization()}\r\n".encode()
        connection.sendall(head + outgoing.read())
        line, rest = read_head(connection)
        assert line.startswith("HTTP/1.1 200")
        incoming.write(rest)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65536))
        tls.write(_request("api.openai.com", "/v1/chat/completions", CHAT))
        connection.sendall(outgoing.read())  # with the end of the handshake, so before the server has its connection
        assert connection.recv(1)
        place.arrivals.wait_for("commit")
        assert place.commits == [(EXACT, {})]


def test_a_client_that_does_not_trust_the_certificate_fails_and_is_counted(authority: Authority) -> None:
    with _captured(authority) as place:
        with pytest.raises(ssl.SSLCertVerificationError):
            _connected(place, "api.openai.com", ssl.create_default_context())
        assert place.post().status_code == 200  # the server has processed the alert before this request
        totals = place.proxy.app.totals
        assert totals.untrusted == {"api.openai.com": 1}
        assert totals.document(1, 0)["rejected_hosts"] == {"api.openai.com": 1}
        [line] = totals.host_lines(captures=True)
        assert line == (
            "rejected: 1 connection to api.openai.com: the program trusts no certificate of this run, or needs HTTP/2; "
            "--allow-host api.openai.com passes it uncharged"
        )
        assert len(place.provider.requests) == 1


@pytest.mark.parametrize("sent_before", [0, 1])
def test_a_client_that_does_not_use_http_1_is_counted_unless_another_does(
    authority: Authority, sent_before: int
) -> None:
    with _captured(authority) as place:
        for _ in range(sent_before):
            with _connected(place, "api.openai.com", _client_context(authority)) as connection:
                connection.sendall(_request("api.openai.com", "/v1/chat/completions", CHAT))
                assert b"200 OK" in rest_of(connection)
        with _connected(place, "api.openai.com", _client_context(authority, ["h2"])) as connection:
            assert connection.selected_alpn_protocol() is None
            connection.unwrap()  # the server has seen the end of the connection
        assert place.post().status_code == 200
        assert place.proxy.app.totals.document(1, 0)["rejected_hosts"] == ({} if sent_before else {"api.openai.com": 1})


def test_a_denied_request_reaches_no_provider(authority: Authority) -> None:
    with _captured(authority, budget=cycles.usd_microcents(5000)) as place:
        with _connected(place, "api.openai.com", _client_context(authority)) as connection:
            connection.sendall(_request("api.openai.com", "/v1/chat/completions", CHAT))
            assert b"402 Payment Required" in rest_of(connection)
        assert place.provider.requests == []


def test_a_client_that_leaves_a_captured_stream_pays_what_was_made(authority: Authority) -> None:
    with _captured(authority) as place:
        gate = threading.Event()
        place.provider.reply(usage=USED, text="one two three four", gate=gate, gate_after=3)
        connection = _connected(place, "api.openai.com", _client_context(authority))
        connection.sendall(_request("api.openai.com", "/v1/chat/completions", {**CHAT, "stream": True}))
        assert connection.recv(100)
        connection.close()
        place.arrivals.wait_for("commit")
        gate.set()
        [(amount, metadata)] = place.commits
        assert 0 < amount < EXACT
        assert metadata == {"actual_source": "estimate", "outcome": "closed"}


def test_only_hosts_of_routes_are_captured_and_an_allowed_one_is_not(authority: Authority) -> None:
    allowed = frozenset({"api.openai.com"})
    with _captured(authority, allowed=allowed) as place:
        for host, status in (("api.cohere.com", "403"), ("bedrock-runtime.us-east-1.amazonaws.com", "403")):
            with opened(place) as connection:
                connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\n{authorization()}\r\n".encode())
                assert read_head(connection)[0].split()[1] == status
        with opened(place) as connection:
            connection.sendall(f"CONNECT api.openai.com:1 HTTP/1.1\r\n{authorization()}\r\n".encode())
            assert read_head(connection)[0].split()[1] == "502"
        assert place.proxy.app.totals.allowed_hosts == {"api.openai.com": 1}


def test_the_authority_is_limited_to_hosts_of_routes(authority: Authority) -> None:
    """A certificate for another host does not verify."""
    server, client = socket.socketpair()
    context = authority.context("pypi.org")

    def serve() -> None:
        with server, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(server, server_side=True)

    thread = threading.Thread(target=serve)
    thread.start()
    with client, pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        _client_context(authority).wrap_socket(client, server_hostname="pypi.org")
    thread.join()


def test_the_callers_own_bundle_is_the_base(authority: Authority, tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_text("own roots")
    with ExitStack() as closing:
        files = trust_variables(authority, {"REQUESTS_CA_BUNDLE": str(own)}, closing)
        requests = Path(files["REQUESTS_CA_BUNDLE"]).read_text()
        assert requests == "own roots\n" + authority.certificate.decode()
        assert Path(files["NODE_EXTRA_CA_CERTS"]).read_bytes() == authority.certificate
        assert len(Path(files["SSL_CERT_FILE"]).read_bytes()) > len(authority.certificate)
        assert set(files) == {*BUNDLES, "NODE_EXTRA_CA_CERTS"}
    assert not Path(files["SSL_CERT_FILE"]).parent.exists()
    with pytest.raises(cycles.ConfigurationError, match="SSL_CERT_FILE cannot be read"):
        trust_variables(authority, {"SSL_CERT_FILE": str(tmp_path / "none")}, ExitStack())


def test_a_full_disk_leaves_no_certificates(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, list[Path]()

    def fill(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 2:
            raise OSError("no space")
        return write(path, content)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", fill)
    with (
        pytest.raises(cycles.ConfigurationError, match="cannot write certificates: no space"),
        ExitStack() as closing,
    ):
        trust_variables(authority, {}, closing)
    assert (len(written), list(tmp_path.iterdir())) == (2, [])


def test_each_program_trusts_what_its_own_variable_names(authority: Authority, tmp_path: Path) -> None:
    own, common, extra = tmp_path / "own.pem", tmp_path / "common.pem", tmp_path / "extra"
    own.write_text("own")
    common.write_text("common\n")
    extra.mkdir()
    for name in ("b", "a"):
        (extra / name).write_text(name)
    given = {"CURL_CA_BUNDLE": str(own), "SSL_CERT_FILE": str(common), "NODE_EXTRA_CA_CERTS": str(extra)}
    with ExitStack() as closing:
        files = trust_variables(authority, given, closing)
        bases = {name: Path(file).read_bytes().removesuffix(authority.certificate) for name, file in files.items()}
    named = {"CURL_CA_BUNDLE": b"own\n", "NODE_EXTRA_CA_CERTS": b"a\nb\n"}
    assert bases == dict.fromkeys(BUNDLES, b"common\n") | named


@pytest.mark.parametrize("failing", ["fdopen", "load_cert_chain"])
def test_the_key_of_certificates_is_in_no_file_also_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    authority = Authority()

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os if failing == "fdopen" else ssl.SSLContext, failing, fail)
    with pytest.raises(OSError, match="no space"):
        authority.context("api.openai.com")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert authority.context("api.openai.com") is authority.context("api.openai.com")


@pytest.mark.parametrize(
    ("port", "named", "url"),
    [
        (443, (), "https://api.openai.com/v1/chat/completions"),
        (8443, (), "https://api.openai.com:8443/v1/chat/completions"),
        (8443, ("groq",), "https://api.openai.com:8443/v1/chat/completions"),
        (443, ("openai",), "http://named/v1/chat/completions"),
        (8443, ("openai",), "http://named/v1/chat/completions"),
    ],
)
def test_a_captured_request_is_sent_to_its_host_and_port_unless_the_user_names_an_upstream(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, port: int, named: tuple[str, ...], url: str
) -> None:
    sent: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(str(request.url))
        return httpx.Response(400, json={})

    client = UpstreamClient(transport=httpx.MockTransport(respond))
    monkeypatch.setattr("cycles.proxy._server._upstream_client", lambda *_: client)
    chosen = {"named": frozenset(named), "upstreams": {"openai": "http://named/v1"}}
    settings: dict[str, Any] = {"tunnel": True, "captured_hosts": None, **chosen}
    with (
        proxied(authority=authority, **settings) as place,
        _connected(place, "api.openai.com", _client_context(authority), port) as connection,
    ):
        connection.sendall(_request("api.openai.com", "/v1/chat/completions", CHAT))
        assert b"400 Bad Request" in rest_of(connection)
    assert sent == [url]


def test_a_bundle_of_the_system_without_certificates_is_not_the_base(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, roots = tmp_path / "empty.pem", tmp_path / "roots.pem"
    empty.write_text("# no certificates\n")
    roots.write_bytes(authority.certificate.rstrip(b"\n"))
    monkeypatch.setattr("cycles.proxy._authority._root_files", lambda: [tmp_path / "none", empty, roots])
    with ExitStack() as closing:
        bundle = Path(trust_variables(authority, {}, closing)["SSL_CERT_FILE"]).read_bytes()
    assert bundle == authority.certificate * 2


@processes
def test_programs_with_hard_coded_addresses_are_charged_exactly(provider: FakeProvider) -> None:
    for package in ("openai", "anthropic", "google.genai"):
        pytest.importorskip(package)
    provider.reply(usage=USED, text="four words of text", times=10)
    ran = run_process("run", "--budget", "1USD", "--json", "--capture", *upstreams(provider), *agent("hard_coded"))
    assert ran.status == 0, ran.err
    found = summary(ran)
    claude, gemini = 1000 * 300 + 100 * 1500, 1000 * 30 + 100 * 250
    assert found["spent"]["amount"] == GPT_4O * 4 + claude * 3 + gemini * 3
    assert found["captured"] == {
        "api.openai.com": 4,
        "api.anthropic.com": 3,
        "generativelanguage.googleapis.com": 3,
    }


@processes
def test_no_private_key_is_in_a_file_during_or_after_a_captured_run(provider: FakeProvider, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = (
        "import os, pathlib, sys\n"
        "for root, _, names in os.walk(os.environ['TMPDIR']):\n"
        "    for name in names: print(pathlib.Path(root, name).read_text().count('PRIVATE KEY'), name)\n"
    )
    env = environment(TMPDIR=str(temporary))
    command = ["--capture", *upstreams(provider), "--", sys.executable, "-c", code]
    ran = run_process("run", "--budget", "1USD", *command, env=env)
    assert ran.out.splitlines(), ran.err
    assert all(line.startswith("0 ca-") for line in ran.out.splitlines())
    assert list(temporary.iterdir()) == []


def _without_cryptography(tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    blocked = tmp_path / "blocked" / "cryptography"
    blocked.mkdir(parents=True, exist_ok=True)
    (blocked / "__init__.py").write_text("raise ImportError('it is blocked')")
    env = environment(PYTHONPATH=str(blocked.parent), **more)
    command = [sys.executable, "-m", "cycles", "run", "--budget", "1USD", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)


def test_capture_without_cryptography_exits_2(tmp_path: Path) -> None:
    ran = _without_cryptography(tmp_path, "--capture", "--", "echo", "started")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pip install 'cycles-sdk[capture]'" in ran.stderr


def test_capture_without_the_tunnel_exits_2(run: Cycles) -> None:
    ran = run("run", "--budget", "1USD", "--capture", "--no-tunnel", "--", "echo", "started")
    assert (ran.status, ran.out) == (2, "")
    assert "--capture needs the tunnel" in ran.err


def _named(tmp_path: Path, name: str) -> str:
    """Return a program of that name that prints its arguments and some variables."""
    program = tmp_path / name
    program.write_text('#!/bin/sh\necho "$@"; echo "$SSL_CERT_FILE|$CODEX_CA_CERTIFICATE"\n')
    program.chmod(0o755)
    return str(program)


def test_codex_is_captured_or_gets_its_base_url_as_an_option(tmp_path: Path) -> None:
    codex = _named(tmp_path, "codex")
    ran = run_process("run", "--budget", "1USD", "--", codex, "exec", "hi")
    arguments, bundles = ran.out.splitlines()
    assert arguments == "exec hi"
    assert bundles.count("/cycles-run-") == 2
    plain = _without_cryptography(tmp_path, "--", codex, "exec", "hi")
    arguments, bundles = plain.stdout.splitlines()
    assert arguments.startswith('-c openai_base_url="http://127.0.0.1:')
    assert arguments.endswith('/openai/v1" exec hi')
    assert "shows the secret of this run in the process list" in plain.stderr
    assert "/cycles-run-" not in bundles
    ran = run_process("run", "--budget", "1USD", "--no-agent-settings", "--", codex, "exec", "hi")
    arguments, bundles = ran.out.splitlines()
    assert arguments == "exec hi"
    assert "/cycles-run-" not in bundles


def test_gemini_cli_gets_defaults_that_keep_its_login_by_key(tmp_path: Path) -> None:
    said: list[str] = []
    given = {"GEMINI_API_KEY": "k"}
    found = gemini_environment(["gemini"], given, tmp_path / "agents", said.append)
    file = Path(found["GEMINI_CLI_SYSTEM_DEFAULTS_PATH"])
    assert json.loads(file.read_text()) == {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    assert gemini_environment(["gemini"], {}, tmp_path / "none", said.append) == {}
    mine = {**given, "GEMINI_CLI_SYSTEM_DEFAULTS_PATH": "/mine"}
    assert gemini_environment(["gemini"], mine, tmp_path / "none", said.append) == {}
    assert not (tmp_path / "none").exists()
    tmp_path.chmod(0o777)
    gemini_environment(["gemini"], given, tmp_path / "agents", said.append)
    assert said[-1].startswith("gemini-cli ignores")


@processes
def test_agent_settings_can_be_left_out() -> None:
    env = environment(GEMINI_API_KEY="k")
    for option, count in (([], 1), (["--no-agent-settings"], 0)):
        ran = run_process("run", "--budget", "1USD", *option, "--", "env", env=env)
        assert ran.out.count("GEMINI_CLI_SYSTEM_DEFAULTS_PATH=") == count


def test_a_captured_request_with_a_wrong_key_is_407(authority: Authority) -> None:
    with _captured(authority) as place, opened(place) as connection:
        connection.sendall(f"CONNECT api.openai.com:443 HTTP/1.1\r\n{authorization(KEY + 'x')}\r\n".encode())
        assert read_head(connection)[0].split()[1] == "407"


def test_without_a_key_captured_requests_need_no_loopback_host(authority: Authority) -> None:
    context = _client_context(authority)
    with _captured(authority, key=None) as place, _connected(place, "api.openai.com", context) as connection:
        connection.sendall(_request("api.openai.com", "/v1/chat/completions", CHAT))
        assert b"200 OK" in rest_of(connection)
