"""The server as a process: its output, its end, and its errors for wrong usage."""

from __future__ import annotations

import importlib
import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded.http import Request

from .process import KEY, ROOT, embedded_process

BUDGETS = ("--budget", "tenant:acme=10USD", "--budget", "tenant:acme/agent:bot=50000TOKENS")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_prints_its_address_and_stops_at_a_signal(number: signal.Signals) -> None:
    with embedded_process(*BUDGETS) as (process, url):
        assert process.stdout is not None
        tenant, paste = process.stdout.readline(), process.stdout.readline()
        key = tenant.removeprefix("tenant acme: ").strip()
        assert paste == f"export CYCLES_BASE_URL={url} CYCLES_API_KEY={key} CYCLES_TENANT=acme\n"
        with cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal=False) as client:
            client.record(cycles.usd("2.5"), action=("kind", "name"))
            balances = {str(item.remaining) for item in client.balances()}
        assert balances == {"$7.50", "50000 tokens"}
        with httpx.Client() as idle:  # an idle connection does not delay the stop
            assert idle.get(f"{url}/v1/balances").status_code == 401
            process.send_signal(number)
            out, errors = process.communicate(timeout=300)
    assert (process.returncode, out, errors) == (0, "", "")


def test_a_given_key_works_and_the_ledger_survives_a_restart(tmp_path: Path) -> None:
    arguments = (*BUDGETS, "--api-key", f"{KEY}=acme", "--db", str(tmp_path / "ledger.db"))
    for spent in ("$9.00", "$8.00"):  # the budget of the command line does not replace the stored one
        with embedded_process(*arguments) as (process, url):
            assert process.stdout is not None
            assert process.stdout.readline() == f"tenant acme: {KEY}\n"
            with cycles.Cycles(base_url=url, api_key=KEY, tenant="acme", journal=False) as client:
                client.record(cycles.usd(1), action=("kind", "name"))
                assert spent in {str(item.remaining) for item in client.balances()}
            process.terminate()
            assert process.wait(timeout=300) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the ledger has no budget; add one with --budget tenant:acme=10USD"),
        (["--budget", "tenant:acme"], "--budget has no amount: tenant:acme; write it like tenant:acme=10USD"),
        (["--budget", "acme=10USD"], "'acme' is not level:value"),
        (["--budget", "tenant:acme=ten"], "cannot read an amount from 'ten'"),
        ([*BUDGETS, "--api-key", "x"], "--api-key has no key or no tenant; write it like KEY=TENANT"),
        ([*BUDGETS, "--db", "/nowhere/ledger.db"], "cannot open the ledger /nowhere/ledger.db"),
    ],
)
def test_wrong_usage_prints_one_line_that_says_what_to_do(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cycles.embedded.__main__ import main

    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its signal handlers
    assert main([*arguments, "--port", "0"]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert message in errors
    assert re.fullmatch(r"error: [^\n]+\n", errors)


SEED = "11" * 32


@pytest.mark.parametrize(
    ("arguments", "place", "answers"),
    [
        ((), ("127.0.0.1", 7878), (500, 404, 404)),
        (("--host", "::1", "--port", "65535"), ("::1", 65535), (500, 404, 404)),
        (("--port", "0", "--admin-api-key", "adm"), ("127.0.0.1", 0), (200, 404, 404)),
        (("--evidence-key", SEED), ("127.0.0.1", 7878), (500, 200, 404)),
        (("--protocol", "0.1.26"), ("127.0.0.1", 7878), (500, 404, 200)),
        (("--db", "ledger.db"), ("127.0.0.1", 7878), (500, 404, 404)),
    ],
)
def test_the_command_prints_its_keys_and_then_waits_for_a_signal(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    place: tuple[str, int],
    answers: tuple[int, int, int],
) -> None:
    main = importlib.import_module("cycles.embedded.__main__")
    seen: list[Any] = []
    written = io.BytesIO()

    class Stop:
        def wait(self) -> None:
            seen.append(written.getvalue().decode())  # all of it has left the buffer of the process

    @contextmanager
    def stop_signal() -> Iterator[Stop]:
        yield Stop()

    @contextmanager
    def listen(server: cycles.EmbeddedServer, host: str, port: int) -> Iterator[str]:
        seen.append((host, port))
        admin = {"x-admin-api-key": "adm"}
        for path, headers in (
            ("/v1/reservations?tenant=acme", admin),
            ("/v1/.well-known/cycles-jwks.json", {}),
            ("/v1/action-kinds", {"x-cycles-api-key": "k"}),
        ):
            response, _ = server.handle(Request(method="GET", target=path, headers=headers))
            seen.append(response and response.status)
        yield "http://here"
        seen.append("closed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    monkeypatch.setattr(main, "stop_signal", stop_signal)
    monkeypatch.setattr(cycles.EmbeddedServer, "listen", listen)
    assert main.main(["--budget", "tenant:acme=1USD", "--api-key", "k=acme", *arguments]) == 0
    text = "Cycles embedded server, for development and tests: http://here\ntenant acme: k\n"
    text += "export CYCLES_BASE_URL=http://here CYCLES_API_KEY=k CYCLES_TENANT=acme\n"
    assert seen == [place, *answers, text, "closed"]
    assert (tmp_path / "ledger.db").exists() is ("--db" in arguments)


@pytest.mark.parametrize("port", ["65536", "-1", "x", ""])
def test_a_port_that_does_not_exist_is_named(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    from cycles.embedded.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main(["--port", port])
    errors = capsys.readouterr().err
    wrong = (
        f"python -m cycles.embedded: error: argument --port: port must be 0 to 65535: {port}; pass 0 for any free port"
    )
    assert errors.splitlines()[-1] == wrong


def test_the_help_names_each_option_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cycles.embedded.__main__ import main

    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert " A Cycles server for development and tests. Production runs on the Cycles server. options: " in text
    assert text[text.rindex("--budget") :].split(" --") == [
        "--budget SCOPE=AMOUNT budget of a scope, like tenant:acme=10USD or tenant:acme/agent:bot=50000TOKENS; "
        "may be repeated",
        "api-key KEY=TENANT an API key and its tenant; may be repeated",
        "admin-api-key KEY the operator's key for list, get, release and webhooks",
        "evidence-key HEX seed of an Ed25519 key, 64 hex digits: sign evidence of decisions",
        "protocol {0.1.25,0.1.26} version of the protocol (default: 0.1.25)",
        "db FILE keep the ledger in this SQLite file (default: in memory)",
        "host HOST address to listen on (default: 127.0.0.1)",
        "port PORT port, 0 for any (default: 7878)",
    ]


def test_without_uvicorn_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['uvicorn'] = None; import cycles\n"
        "server = cycles.EmbeddedServer({'tenant:acme': cycles.usd(1)})\n"
        "assert server.client().decide(cycles.usd(1), action=('k', 'n')).allowed\n"
        "try:\n    server.listen()\n"
        "except cycles.ConfigurationError as wrong:\n    print(wrong)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'cycles-sdk[embedded]'" in done.stdout
