"""What all commands share: settings, errors, exit statuses, escaping."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cycles
from cycles._version import INSTALL_COMMAND, PROTOCOL_VERSION, install_extra
from cycles.cli._app import COMMANDS
from cycles.cli._frame import status_of
from cycles.cli._output import printable
from cycles_client.protocol import SPEC_VERSION
from tests.operators.conftest import Cycles
from tests.operators.kit import ROOT, processes, run_process


def test_settings_come_from_options_then_the_profile_then_the_environment(
    configured: cycles.EmbeddedServer, run: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["CYCLES_BASE_URL"]
    monkeypatch.setenv("CYCLES_BASE_URL", "http://127.0.0.1:1")
    profiles = tmp_path / "xdg_config_home" / "cycles-sdk" / "config.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(
        f'[work]\nbase_url = "{url}"\nqueue_timeout = 5\n[wrong]\nbase_url = "http://127.0.0.1:2"\nnonsense = 1\n'
    )
    assert run("balances", "--profile", "work").status == 0
    with monkeypatch.context() as hurried:
        hurried.setenv("CYCLES_TIMEOUT", "0.2")  # no server responds there, and a read is repeated until then
        assert run("balances").status == 3
        assert run("--profile", "work", "balances", "--base-url", "http://127.0.0.1:1").status == 3
    unknown = run("balances", "--profile", "other")
    assert unknown.status == 2
    assert "there is no profile 'other'" in unknown.err
    assert "(it has: work, wrong)" in unknown.err
    wrong = run("balances", "--profile", "wrong")
    assert wrong.status == 2
    assert "nonsense is not a setting" in wrong.err


@pytest.mark.parametrize("arguments", [("--json", "pending"), ("pending", "--json"), ("--json", "journal", "list")])
def test_json_may_stand_before_the_command(
    configured: cycles.EmbeddedServer, run: Cycles, arguments: tuple[str, ...]
) -> None:
    assert run(*arguments).document == {"records": []}


def test_an_error_response_exits_1_and_is_a_document(
    configured: cycles.EmbeddedServer, run: Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_API_KEY", "cyc_live_wrong")
    ran = run("balances", "--json")
    assert ran.status == 1
    assert ran.document["error"] == "UNAUTHORIZED"
    assert ran.document["request_id"]
    ran = run("balances")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert "cyc_live_wrong" not in ran.err


def test_no_response_exits_3(configured: cycles.EmbeddedServer, run: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_TIMEOUT", "0.2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        ran = run("balances", "--json", "--base-url", url)
    assert ran.status == 3
    assert ran.document["error"] == "TRANSPORT_ERROR"
    assert status_of(cycles.ServerError("down", status=503)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Commands:"),
        (["nonsense"], "no such command 'nonsense'"),
        (["nonsens", "--", "--json"], "no such command 'nonsens'"),
        (["rum"], "no such command 'rum'; did you mean run?"),
        (["runs", "delte"], "no such command 'delte'; did you mean delete?"),
        (
            ["journal"],
            "there is no command: write cycles journal COMMAND, which is one of discard, export",
        ),
        (["evidence"], "error: there is no command: write cycles evidence verify\n"),
        (["reservations", "--limit", "ten"], "'ten' is not an integer of 1 or more"),
        (["extend", "r", "0"], "0 is not an integer from 1 to 86400000"),
        (["top", "--interval", "nan"], "'nan' is not a number from 0.1 to 3600"),
        (["balances", "--nonsense"], "no such option"),
        (["balances", "--subject", "acme"], "'acme' is not KEY=VALUE; write it like agent=planner"),
        (["balances", "--subject", "team=x"], "'team' is not a level of a subject; use tenant, workspace"),
        (["balances", "--base-url", "ftp://x"], "write it like https://host:7878"),
        (["balances"], "no server address"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_to_type(run: Cycles, arguments: list[str], message: str) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json"], "write cycles COMMAND, which is one of dev, doctor, run"),
        (["--json", "rum"], "no such command 'rum'; did you mean run?"),
        (["evidence", "--json"], "there is no command: write cycles evidence verify"),
        (["balances", "--json", "--nonsense"], "no such option"),
        (["balances", "--json"], "no server address"),
        (["release", "ID", "--json"], "no server address"),
        (["runs", "delete", "none", "--yes", "--json"], "there is no kept run none"),
        (["run", "--json", "--budget", "0USD", "--", "true"], "is not above zero"),
        (["run", "--json", "--", "true"], "there is no budget"),
        (["docs", "nonsense", "--json"], "there is no page"),
    ],
)
def test_wrong_usage_is_a_document_with_json(run: Cycles, arguments: list[str], message: str) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.err) == (2, "")
    assert ran.document["error"] == "WRONG_USAGE"
    assert message in ran.document["message"]


def test_json_of_the_command_behind_two_dashes_is_not_that_of_cycles(run: Cycles) -> None:
    ran = run("run", "--budget", "0USD", "--", "tool", "--json")
    assert (ran.status, ran.out) == (2, "")
    assert "is not above zero" in ran.err


def test_without_the_extra_json_is_a_document_too() -> None:
    program = "import sys; sys.modules['click'] = None; from cycles.cli import main; sys.exit(main(['--json', 'top']))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (2, "")
    assert json.loads(ran.stdout)["message"] == f"click is not installed: run {INSTALL_COMMAND}"


def test_the_versions(run: Cycles) -> None:
    ran = run("--version")
    assert (ran.status, ran.err) == (0, "")
    assert f"cycles {cycles.__version__}, protocol {PROTOCOL_VERSION}, " in ran.out
    assert SPEC_VERSION.startswith(f"{PROTOCOL_VERSION}.")


def test_the_import_rule_names_every_command() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [rule] = [each for each in settings["tool"]["importlinter"]["contracts"] if each["id"] == "commands"]
    assert sorted(rule["modules"]) == sorted(module for module, _ in COMMANDS.values())


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b[31m\r\n\u202eb\x9b\udc80") == "a\\x1b[31m\\r\\n\\u202eb\\x9b\\udc80"
    assert printable("gr\u00fc\u00df") == "gr\u00fc\u00df"


def test_text_of_the_server_is_no_markup(
    server: cycles.EmbeddedServer, run: Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ledger.set_budget("tenant:acme/agent:[bold]x", cycles.usd(1))
    with server.listen() as url:
        for name, value in (("BASE_URL", url), ("API_KEY", server.api_key), ("TENANT", "acme")):
            monkeypatch.setenv(f"CYCLES_{name}", value)
        assert "agent:[bold]x" in run("balances", "--tree").out


def test_control_characters_of_an_error_response_are_escaped(configured: cycles.EmbeddedServer, run: Cycles) -> None:
    body = {"error": "FORBIDDEN", "message": "a\x1b]0;b\x07\n[red]c", "request_id": "r\x1b"}
    configured.faults.status("balances", 403, body=body, times=None)
    ran = run("balances")
    assert (ran.status, ran.out) == (1, "")
    assert "\x1b" not in ran.err
    assert "\x07" not in ran.err
    assert len(ran.err.splitlines()) == 1
    assert "[red]c" in ran.err
    assert "\x1b" not in run("balances", "--json").out


def test_without_the_extra_one_line_names_it() -> None:
    program = "import sys; sys.modules['click'] = None; from cycles.cli import main; sys.exit(main([]))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"error: click is not installed: run {INSTALL_COMMAND}\n"


@pytest.mark.parametrize("command", [["run", "--budget", "1USD", "--", "true"], ["proxy", "--budget", "1USD"]])
def test_without_a_package_of_the_proxy_one_line_names_the_same_command(command: list[str]) -> None:
    program = (
        "import importlib.util, sys; found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'starlette' else found(name, *more)\n"
        f"from cycles.cli import main; sys.exit(main({command!r}))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"error: starlette is not installed: run {INSTALL_COMMAND}\n"


def test_every_page_and_every_message_installs_from_where_the_package_is() -> None:
    installs = INSTALL_COMMAND.partition("[")[0]
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = [
        (page, found) for page in pages for found in re.findall(r"`?pip install '[^`\n]*\[", page.read_text("utf-8"))
    ]
    assert len(named) > 15
    other = [(page, text) for page, text in named if installs not in text and page.name != "tutorial.md"]
    assert other == []
    assert install_extra("run").startswith(INSTALL_COMMAND)
    assert install_extra("otel").startswith(INSTALL_COMMAND.replace("[run]", "[otel]"))
    written = [path for path in (ROOT / "cycles").rglob("*.py") if "pip install" in path.read_text("utf-8")]
    # `spec` needs the tools of a developer
    assert {path.name for path in written} == {"_version.py", "spec.py"}


@pytest.mark.parametrize("page", ["README", "docs/command-line", "docs/dashboard", "docs/run-under-a-budget"])
def test_the_pages_of_the_command_name_it_too(page: str) -> None:
    assert INSTALL_COMMAND in (ROOT / f"{page}.md").read_text("utf-8")


def test_one_extra_has_what_all_commands_need_and_proxy_is_its_alias() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert extras["proxy"] == ["cycles-sdk[run]"]
    assert {"cycles-sdk[cli,embedded,prices]", "starlette>=0.40"} == set(extras["run"])


@processes
def test_a_closed_pipe_ends_a_command_without_a_traceback(configured: cycles.EmbeddedServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cycles", "balances", "--json", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0
        assert process.stderr.read() == b""


@processes
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["docs"], ["docs", "--json"], ["--version"]])
def test_output_that_cannot_be_written_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cycles", *arguments]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert ran.returncode == 1
    assert ran.stderr == (
        "error: the output cannot be written: No space left on device; free some space, or send it elsewhere\n"
    )


@processes
def test_click_makes_the_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CYCLES_COMPLETE", "zsh_source")
    ran = run_process()
    assert ran.status == 0, ran.err
    assert "#compdef cycles" in ran.out


@processes
def test_output_that_is_no_terminal_has_no_escape_sequence(configured: cycles.EmbeddedServer) -> None:
    ran = run_process("balances", "--tree")
    assert ran.status == 0, ran.err
    assert "tenant:acme" in ran.out
    assert "\x1b" not in ran.out + ran.err
