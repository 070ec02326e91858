"""The examples of other clients for this protocol run unchanged against `cycles dev --fake`: `make test-family`.

Each example runs as its README says, in an empty folder. It must end with 0, and the ledger must have what it spent.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from tests.support.waiting import until

SOURCES: Final = Path(os.environ.get("FAMILY_SOURCES", "none")).resolve()
PORT: Final = 7878
"""The examples have this port of the reference server in their text."""
KEYS: Final = {"acme": "your-api-key", "acme-corp": "cyc_corp"}
"""Tenants and keys of the examples. The second key is chosen here: its examples read a variable."""
EXAMPLES: Final = sorted(path for path in SOURCES.glob("*/examples/*.py") if "fastapi" not in path.name)
FASTAPI: Final = next(SOURCES.glob("*/examples/fastapi_integration.py"), None)
TOOLS_ALONE: Final = ("tenant_budget_agent.py", "tool_cost_fn.py")
"""They guard tools, not models, and the fake provider's models call no tool."""
OWN_FAULTS: Final = {"decorator_usage.py": "its estimate is a function that does not take the arguments of the call"}

pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="`make test-family` installs the clients")


class _Dev(NamedTuple):
    environment: dict[str, str]
    url: str

    def spent(self) -> int:
        """Return the microcents that all tenants together have spent."""
        sums = [self._balances(tenant, key) for tenant, key in KEYS.items()]
        return sum(balance["spent"]["amount"] for balances in sums for balance in balances)

    def _balances(self, tenant: str, key: str) -> list[Any]:
        response = httpx.get(f"{self.url}/v1/balances", params={"tenant": tenant}, headers={"X-Cycles-API-Key": key})
        return [balance for balance in response.json()["balances"] if balance["scope"] == f"tenant:{tenant}"]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Dev]:
    """`cycles dev --fake` as the pages say, with the variables that it prints."""
    command = [str(Path(sys.executable).with_name("cycles")), "dev", "--fake", "--port", str(PORT)]
    for tenant, key in KEYS.items():
        command += ["--budget", f"tenant:{tenant}=10USD", "--api-key", f"{key}={tenant}"]
    folder = tmp_path_factory.mktemp("dev")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        variables: dict[str, str] = {}
        try:
            for line in server.stdout:
                if line.startswith("export "):
                    variables |= dict(word.split("=", 1) for word in shlex.split(line)[1:])
                if {"CYCLES_BASE_URL", "OPENAI_BASE_URL"} <= set(variables):
                    break
            assert variables["CYCLES_BASE_URL"] == f"http://127.0.0.1:{PORT}", "cycles dev did not start"
            # The exporter of the OpenAI Agents SDK sends traces to OpenAI, and retries for a minute without a network.
            yield _Dev({**os.environ, **variables, "OPENAI_AGENTS_DISABLE_TRACING": "1"}, variables["CYCLES_BASE_URL"])
        finally:
            server.terminate()


def _environment(dev: _Dev, example: Path) -> dict[str, str]:
    """Return the variables for an example, with the key of its tenant."""
    return {**dev.environment, "CYCLES_API_KEY": KEYS["acme-corp" if "openai_agents" in str(example) else "acme"]}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_an_example_runs_unchanged(example: Path, dev: _Dev, tmp_path: Path) -> None:
    if example.name in OWN_FAULTS:
        pytest.skip(f"fails before it sends a request: {OWN_FAULTS[example.name]}")
    before = dev.spent()
    command = [sys.executable, str(example)]
    done = subprocess.run(
        command, cwd=tmp_path, env=_environment(dev, example), capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (dev.spent() == before) if example.name in TOOLS_ALONE else (dev.spent() > before)


def _responds(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.timeout(180)
def test_the_example_of_a_service_runs_unchanged(dev: _Dev, tmp_path: Path) -> None:
    assert FASTAPI is not None
    before, service = dev.spent(), "http://127.0.0.1:8000"
    with subprocess.Popen([sys.executable, FASTAPI], cwd=tmp_path, env=_environment(dev, FASTAPI)) as process:
        try:
            until(lambda: _responds(f"{service}/health"))
            chat = httpx.get(
                f"{service}/chat", params={"prompt": "Why is the sky blue?"}, headers={"X-Tenant-ID": "acme"}
            )
            assert chat.status_code == 200, chat.text
            (balance, *_) = httpx.get(f"{service}/budget/acme").json()["balances"]
            assert balance["scope"] == "tenant:acme"
        finally:
            process.terminate()
    assert dev.spent() > before


def test_every_example_is_run() -> None:
    names = {path.name for path in EXAMPLES}
    assert len(EXAMPLES) >= 13
    assert {*TOOLS_ALONE, *OWN_FAULTS} <= names
