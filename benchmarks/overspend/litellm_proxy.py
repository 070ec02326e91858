"""LiteLLM's proxy on a private PostgreSQL: its environment, its processes, and what it has counted.

Its database client, Prisma, downloads a query engine and a schema engine at its first start. No target may do that, so
the query engine comes from npm (`prisma/engine.cjs`), the client is generated from the same schema
(`prisma/prepare.cjs`), and LiteLLM's own migrations are applied by `psql`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.overspend.bank import TENTHS
from benchmarks.overspend.processes import HERE, CellError, free_port, running, wait_for

ENVIRONMENT: Final = "litellm-proxy"
MASTER_KEY: Final = "sk-master"
BATCH_S: Final = 2
"""Seconds between two writes of spend to the database."""
SETTLE_S: Final = 40
_GENERATE: Final = """
import json, sys
from prisma._compat import model_parse
from prisma.generator.generator import Generator
from prisma.generator.models import PythonData
Generator().generate(model_parse(PythonData, json.load(sys.stdin)))
"""


def prepare(folder: Path) -> None:
    """Complete the environment: the engine, the generated client, and a database with LiteLLM's tables.

    Raises:
        OSError: a program is missing.
        subprocess.SubprocessError: one of them failed.
    """
    shutil.copytree(HERE / "prisma", folder / "prisma", dirs_exist_ok=True)
    _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder / "prisma")
    (folder / "prisma" / "engine.cjs").chmod(0o755)
    (packages,) = folder.glob("lib/python3*/site-packages")
    schema = packages / "litellm" / "proxy" / "schema.prisma"
    generator = _run(["node", "prepare.cjs", str(schema), str(packages / "prisma")], cwd=folder / "prisma")
    _run([str(folder / "bin" / "python"), "-c", _GENERATE], given=generator)
    scripts = sorted((packages / "litellm_proxy_extras" / "migrations").glob("*/migration.sql"))
    shutil.rmtree(folder / "database", ignore_errors=True)
    with _data_folder() as data:
        _run([_program("initdb"), "-D", data, "-U", "litellm", "-A", "trust"], user=_user())
        with _database(data, folder) as address:
            _run([_program("psql"), "-q", address], given="\n".join(script.read_text() for script in scripts))
        _run(["cp", "-a", data, str(folder / "database")])


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs, and the virtual key of its program."""

    url: str
    key: str
    team: str

    def spent(self) -> float:
        """Return what it has counted when that has stopped changing, in microcents."""
        until = time.monotonic() + SETTLE_S
        seen: list[float] = []
        while time.monotonic() < until and (len(seen) < 4 or len(set(seen[-3:])) > 1):
            time.sleep(BATCH_S)
            seen.append(self._spent())
        return seen[-1]

    def _spent(self) -> float:
        if self.team:
            found = request(f"{self.url}/team/info?team_id={self.team}")["team_info"]
        else:
            found = request(f"{self.url}/key/info?key={self.key}")["info"]
        return float(round(float(found["spend"]) * 1e8))


@contextlib.contextmanager
def proxy(python: Path, folder: Path, of_bank: str, usd: float, *, is_team: bool) -> Iterator[Proxy]:
    """Start a proxy with a database of its own, and make a key with a budget; or a team, for keys of sub-agents."""
    home = python.parent.parent
    models = [
        {"model_name": name, "litellm_params": {"model": f"{_provider(name)}/{name}", "api_base": base, "api_key": "k"}}
        for name in TENTHS
        for base in [of_bank if _provider(name) == "anthropic" else f"{of_bank}/v1"]
    ]
    settings = {
        "model_list": models,
        "general_settings": {"master_key": MASTER_KEY, "proxy_batch_write_at": BATCH_S},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    config = folder / "litellm.yaml"
    config.write_text(json.dumps(settings))  # which is YAML, too
    port = free_port()
    command = [str(python), "-m", "uvicorn", "litellm.proxy.proxy_server:app", "--host", "127.0.0.1"]
    with _data_folder() as data:
        _run(["cp", "-a", f"{home / 'database'}/.", data])
        with _database(data, folder) as address:
            variables = {
                "DATABASE_URL": address,
                "CONFIG_FILE_PATH": str(config),
                "DISABLE_SCHEMA_UPDATE": "true",
                "PRISMA_QUERY_ENGINE_BINARY": str(home / "prisma" / "engine.cjs"),
                "LITELLM_MASTER_KEY": MASTER_KEY,
            }
            with running([*command, "--port", str(port)], folder, **variables) as process:
                wait_for(port, 200)
                url, budget = f"http://127.0.0.1:{port}", {"max_budget": usd}
                team = request(f"{url}/team/new", budget)["team_id"] if is_team else ""
                yield Proxy(url, request(f"{url}/key/generate", {**budget, "team_id": team or None})["key"], team)
                process.terminate()  # it ends its engine
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)


def request(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request of the administrator."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {MASTER_KEY}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as response:
        value: dict[str, Any] = json.load(response)
        return value


def _provider(model: str) -> str:
    return "anthropic" if model.startswith("claude") else "openai"


@contextlib.contextmanager
def _data_folder() -> Iterator[str]:
    """Yield an empty folder of the user that runs PostgreSQL, which refuses to run as root."""
    with tempfile.TemporaryDirectory(prefix="overspend-pg-") as data:
        if _user() is not None:
            shutil.chown(data, "postgres")
        yield data


@contextlib.contextmanager
def _database(data: str, folder: Path) -> Iterator[str]:
    """Run a private server on loopback, and yield the address of its database."""
    port = free_port()
    command = [_program("postgres"), "-D", data, "-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1"]
    with (folder / "postgres.log").open("a") as log:
        process = subprocess.Popen(command, cwd="/", user=_user(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_ready(port)
            yield f"postgresql://litellm@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(2)  # ends its connections, and all of its processes
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(port: int, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(command, check=False).returncode:
        if time.monotonic() > until:
            raise CellError(f"PostgreSQL is not ready after {seconds} s")
        time.sleep(0.05)


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed: apt-get install postgresql")
    return path


def _user() -> str | None:
    if os.geteuid():
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    raise CellError("PostgreSQL does not run as root, and there is no user postgres")


def _run(command: list[str], *, given: str | None = None, **more: Any) -> str:
    ran = subprocess.run(command, input=given, capture_output=True, text=True, timeout=600, check=False, **more)
    if ran.returncode:
        raise subprocess.SubprocessError(f"{Path(command[0]).name}: {(ran.stderr or ran.stdout).strip()[-200:]}")
    return str(ran.stdout)
