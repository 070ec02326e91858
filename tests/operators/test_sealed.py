"""Sealed commands: what they reach and what they do not, in both modes, and where no mode is possible."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.proxy._seal import CannotSealError, filter_program
from cycles.testing import FakeProvider
from tests.operators.kit import ROOT, Ran, environment, processes, run_process
from tests.operators.running import GPT_4O, USED, agent, summary, upstreams
from tests.operators.terminal import in_terminal
from tests.operators.test_doctor_tls import certificate
from tests.operators.tunnels import echo, listening

pytestmark = [
    processes,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux can seal a program"),
]
MODES = {"namespace": [], "landlock": ["no-namespaces"]}
"""How the world is confined in which each mode is the first that is possible."""


def _command(mode: str, *arguments: str) -> list[str]:
    confined = [[sys.executable, "-m", "tests.operators.confined", how] for how in MODES.get(mode, [mode])]
    return [*chain(*confined), sys.executable, "-m", "cycles", "run", *arguments]


def _run(mode: str, *arguments: str, stdin: str = "", **options: Any) -> Ran:
    command = _command(mode, *arguments)
    ran = subprocess.run(
        command, capture_output=True, input=stdin, text=True, timeout=120, cwd=ROOT, env=environment(), **options
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def _sealed(mode: str, *arguments: str, **options: Any) -> Ran:
    return _run(mode, "--budget", "1USD", "--sealed", *arguments, **options)


def _python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", code]


@pytest.mark.parametrize("mode", MODES)
def test_a_sealed_program_is_charged_exactly(provider: FakeProvider, mode: str) -> None:
    pytest.importorskip("openai")
    provider.reply(usage=USED, times=4)
    ran = _sealed(mode, "--json", *upstreams(provider), *agent("openai"))
    assert ran.status == 0, ran.err
    found = summary(ran)
    assert (found["calls"], found["spent"]["amount"], found["sealed"]) == (4, GPT_4O * 4, mode)


def test_a_privileged_program_is_sealed_without_a_user_namespace(provider: FakeProvider) -> None:
    """A container may deny user namespaces and give its user CAP_SYS_ADMIN."""
    pytest.importorskip("openai")
    provider.reply(usage=USED, times=4)
    ran = _sealed("no-user-namespaces", "--json", *upstreams(provider), *agent("openai"))
    assert ran.status == 0, ran.err
    found = summary(ran)
    assert (found["calls"], found["spent"]["amount"], found["sealed"]) == (4, GPT_4O * 4, "namespace")
    code = (
        "import os, socket\n"
        "try: os.unshare(0x10000000)\n"
        "except OSError: print('no user namespaces')\n"
        "except AttributeError: print('no user namespaces')\n"
        "try: socket.create_connection(('192.0.2.1', 443), 5)\n"
        "except OSError: print('closed')\n"
    )
    assert _sealed("no-user-namespaces", *_python(code)).out == "no user namespaces\nclosed\n"


@pytest.mark.parametrize("mode", MODES)
def test_the_user_stdin_and_exit_status_are_kept(mode: str) -> None:
    code = "import os, sys; print(os.getuid(), os.getgid(), sys.stdin.read()); sys.exit(7)"
    ran = _sealed(mode, *_python(code), stdin="hello")
    assert (ran.status, ran.out) == (7, f"{os.getuid()} {os.getgid()} hello\n"), ran.err


@pytest.mark.parametrize("mode", MODES)
def test_a_program_that_is_missing_or_not_executable_is_127_or_126(mode: str) -> None:
    missing = _sealed(mode, "--json", "--", "/no/such/program")
    assert (missing.status, summary(missing)["exit"]) == (127, 127)
    assert "command not found: /no/such/program" in _sealed(mode, "--", "/no/such/program").err
    assert _sealed(mode, "--", "/").status == 126
    assert _sealed(mode, "--", "sh", "-c", "kill -9 $$").status == 137


@pytest.mark.parametrize("mode", MODES)
def test_servers_of_the_machine_are_hidden_but_for_shared_ports(mode: str) -> None:
    code = (
        "import socket, sys\n"
        "for port in sys.argv[1:]:\n"
        "    try:\n"
        "        with socket.create_connection(('127.0.0.1', int(port)), 5) as near:\n"
        "            near.sendall(b'x'); print(near.recv(1))\n"
        "    except OSError as error: print(type(error).__name__)\n"
    )
    with listening(echo) as hidden, listening(echo) as shared:
        ran = _sealed(mode, "--share-port", str(shared), *_python(code), str(hidden), str(shared))
        assert ran.out.splitlines()[0] in ("ConnectionRefusedError", "PermissionError"), ran.err
        assert ran.out.splitlines()[1] == "b'x'"


@pytest.mark.parametrize("mode", MODES)
def test_other_ways_out_are_closed(mode: str) -> None:
    code = (
        "import ctypes, socket\n"
        "def tried(what, attempt):\n"
        "    try: attempt(); print(what, 'open')\n"
        "    except OSError: print(what, 'closed')\n"
        "def udp():\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b'x', ('192.0.2.1', 53))\n"
        "def tcp():\n"
        "    with socket.socket() as s: s.settimeout(5); s.connect(('192.0.2.1', 443))\n"
        "def mptcp():\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as s:\n"
        "        s.settimeout(5); s.connect(('192.0.2.1', 1))\n"
        "def fastopen():\n"
        "    with socket.socket() as s: s.sendto(b'x', 0x20000000, ('192.0.2.1', 443))\n"
        "def raw():\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as s: s.sendto(b'x' * 8, ('192.0.2.1', 0))\n"
        "for name in ('udp', 'tcp', 'mptcp', 'fastopen', 'raw'): tried(name, globals()[name])\n"
        "socket.socket(socket.AF_UNIX).close()\n"
    )
    ran = _sealed(mode, *_python(code))
    assert ran.status == 0, ran.err
    assert ran.out.split() == [word for name in ("udp", "tcp", "mptcp", "fastopen", "raw") for word in (name, "closed")]


def test_a_sealed_program_reaches_its_own_servers() -> None:
    code = (
        "import socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "near = socket.create_connection(listener.getsockname())\n"
        "print('reached')"
    )
    assert _sealed("namespace", *_python(code)).out == "reached\n"
    ran = _sealed("landlock", *_python(code))
    assert "reached" not in ran.out
    assert "under Landlock the command cannot reach its own servers by TCP" in ran.err


@pytest.mark.parametrize("mode", MODES)
def test_the_ledger_of_the_run_and_a_configured_one_are_reached(
    provider: FakeProvider, configured: cycles.EmbeddedServer, mode: str
) -> None:
    ran = _sealed(mode, "--embedded", *upstreams(provider), *agent("reserving"))
    assert ran.status == 0, ran.err
    assert "1 reservation came from the command itself" in ran.err
    ran = _run(mode, "--sealed", *upstreams(provider), *agent("reserving"))
    assert ran.status == 0, ran.err
    assert configured.spent("tenant:acme", "USD_MICROCENTS").amount == 500_000


@pytest.mark.parametrize("mode", MODES)
def test_a_program_that_ignores_the_proxy_reaches_nothing(mode: str) -> None:
    code = (
        "import urllib.request\n"
        "opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
        "try: opener.open('https://api.openai.com', timeout=10)\n"
        "except OSError as error: print('stopped')\n"
        "try: urllib.request.urlopen('https://api.openai.com', timeout=10)\n"
        "except OSError as error: print(error)\n"
    )
    ran = _sealed(mode, *_python(code))
    assert ran.out.splitlines()[0] == "stopped"
    assert "403 Cycles rejected a connection to api.openai.com" in ran.out


@pytest.mark.parametrize("mode", MODES)
def test_signals_reach_a_sealed_program_once(mode: str) -> None:
    command = _command(mode, "--budget", "1USD", "--sealed", *agent("signals"))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert out == "INT 0 TERM 1\n", err
    assert process.returncode == 5


@pytest.mark.parametrize("mode", MODES)
def test_a_sealed_program_has_the_terminal(mode: str) -> None:
    """It is in the foreground, may open the terminal, sees its size, and Ctrl-C reaches it once."""
    code = (
        "import os, signal, sys, time\n"
        "def interrupted(*_): print('interrupted', flush=True); os._exit(7)\n"
        "signal.signal(signal.SIGINT, interrupted)\n"
        "with open('/dev/tty', 'w') as tty: print('tty', os.get_terminal_size(tty.fileno()).columns, file=tty)\n"
        "print('ready', os.isatty(0), os.tcgetpgrp(0) == os.getpgrp(), input(), flush=True)\n"
        "signal.pause()\n"
    )
    command = _command(mode, "--budget", "1USD", "--sealed", *_python(code))
    with in_terminal(command=command) as terminal:
        terminal.read_until("tty 80")
        terminal.type("typed\n")
        terminal.read_until("ready True True typed")
        terminal.type("\x03")
        assert terminal.wait() == 7
        assert terminal.text.count("interrupted") == 1


@pytest.mark.parametrize("landlock", [[], ["no-namespaces"]], ids=MODES)
def test_a_ledger_elsewhere_is_reached_over_tls(
    configured: cycles.EmbeddedServer, provider: FakeProvider, tmp_path: Path, landlock: list[str]
) -> None:
    """Its certificate names its host, so the command must reach it under that name."""
    pytest.importorskip("cryptography")
    host = "ledger.example"
    pem = certificate(tmp_path, days=30, host=host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    ledger = int(os.environ["CYCLES_BASE_URL"].rpartition(":")[2])

    def front(connection: socket.socket) -> None:
        with (
            context.wrap_socket(connection, server_side=True) as near,
            socket.create_connection(("127.0.0.1", ledger)) as far,
        ):
            threading.Thread(target=_copy, args=(far, near), daemon=True).start()
            _copy(near, far)

    with listening(front) as port:
        how = [[sys.executable, "-m", "tests.operators.confined", each] for each in [f"host={host}", *landlock]]
        command = [*chain(*how), sys.executable, "-m", "cycles", "run", "--sealed", "--json", *upstreams(provider)]
        ran = subprocess.run(
            [*command, *agent("reserving")],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env=environment() | {"CYCLES_BASE_URL": f"https://{host}:{port}", "SSL_CERT_FILE": str(pem)},
        )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stderr.splitlines()[-1])["sealed"] == ("landlock" if landlock else "namespace")
    assert configured.spent("tenant:acme", "USD_MICROCENTS").amount == 500_000


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def test_a_run_inside_a_sealed_run_is_charged_once(provider: FakeProvider) -> None:
    pytest.importorskip("openai")
    provider.reply(usage=USED, times=4)
    inside = ["--", sys.executable, "-m", "cycles", "run", "--json", "--budget", "0.5USD", "--sealed", *agent("openai")]
    ran = _sealed("namespace", "--json", *upstreams(provider), *inside)
    assert ran.status == 0, ran.err
    of_inner, of_outer = (json.loads(line) for line in ran.err.splitlines())
    assert of_inner["spent"] == of_outer["spent"] == {"unit": "USD_MICROCENTS", "amount": GPT_4O * 4}
    assert of_inner["sealed"] == of_outer["sealed"] == "namespace"


def test_a_sealed_program_may_capture(provider: FakeProvider) -> None:
    for package in ("openai", "anthropic", "google.genai"):
        pytest.importorskip(package)
    provider.reply(usage=USED, times=10)
    ran = _sealed("namespace", "--capture", "--json", *upstreams(provider), *agent("hard_coded"))
    assert ran.status == 0, ran.err
    assert summary(ran)["captured"]["api.openai.com"] == 4


def test_where_no_mode_is_possible_nothing_is_started_and_it_exits_3(tmp_path: Path) -> None:
    ran = _sealed("nothing", "--", "touch", str(tmp_path / "started"))
    assert ran.status == 3
    assert ran.out == ""
    assert ran.err.strip() == (
        "error: --sealed is not possible here: user namespaces are denied (ENOSPC), Landlock is not in this kernel; "
        "leave --sealed out"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_shared_port_below_1024_is_possible_with_a_namespace_only() -> None:
    assert _sealed("namespace", "--share-port", "80", "--", "true").status == 0
    ran = _sealed("landlock", "--share-port", "80", "--", "echo", "started")
    assert (ran.status, ran.out) == (2, "")
    assert "--share-port 80 is below 1024" in ran.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sealed", "--share-port", "0"], "is not an integer from 1 to 65535"),
        (["--sealed", "--share-port", "70000"], "is not an integer from 1 to 65535"),
        (["--sealed", "--share-port", "x"], "share-port"),
        (["--share-port", "5432"], "--share-port needs --sealed"),
    ],
)
def test_wrong_ports_exit_2(arguments: list[str], says: str) -> None:
    ran = run_process("run", "--budget", "1USD", *arguments, "--", "echo", "started")
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err


def test_a_filter_exists_for_two_processors() -> None:
    assert len(filter_program("x86_64")) == len(filter_program("aarch64"))
    with pytest.raises(CannotSealError, match="the processor riscv64"):
        filter_program("riscv64")


def test_no_server_listens_for_a_moment_on_another_address() -> None:
    """The socket of the namespace is the only way in: its address is loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
    ran = _sealed("namespace", "--", "cat", "/proc/net/tcp")
    addresses = {line.split()[1].partition(":")[0] for line in ran.out.splitlines()[1:]}
    assert addresses == {"0100007F"}
