"""`examples/fleet/compose.yaml`: each service runs what `make demo-fleet` runs, with settings that exist.

Containers cannot be started in the tests. The commands are run as processes instead.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import cycles
from tests.stores import servers
from tests.stores.servers import REDIS

FLEET = Path(__file__).parents[2] / "examples" / "fleet"
SERVICES: dict[str, Any] = yaml.safe_load((FLEET / "compose.yaml").read_text("utf-8"))["services"]
MAPPED = re.compile(r"\$\{(\w+):\?[^}]+\}")


def test_each_service_starts_after_one_that_exists() -> None:
    assert set(SERVICES) == {"redis", "server", "worker"}
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
    assert SERVICES["worker"]["deploy"]["replicas"] == 4


def test_the_variables_that_a_user_must_set_are_in_the_comment() -> None:
    text = (FLEET / "compose.yaml").read_text("utf-8")
    assert set(MAPPED.findall(text)) == set(re.findall(r"(CYCLES_\w+)=\.\.\.", text))


def test_the_worker_is_the_one_of_the_demo_and_reads_the_folder_that_is_mounted() -> None:
    worker = SERVICES["worker"]
    source, target, mode = worker["volumes"][0].split(":")
    assert ((FLEET / source).resolve() / "pyproject.toml").is_file()
    assert (target, mode) == (worker["working_dir"], "ro")
    shell, flag, script = shlex.split(worker["command"])
    assert (shell, flag) == ("sh", "-c")
    install, run = script.split(" && ")
    assert install == f"pip install --quiet '{target}[redis]'"
    words = shlex.split(run)
    assert words[:2] == ["exec", "python"]  # so that the worker gets the signal of `docker compose stop`
    assert (FLEET / source / words[2]).resolve() == FLEET / "worker.py"


def test_the_settings_of_the_worker_make_a_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    environment = {name: MAPPED.sub("acme", value) for name, value in SERVICES["worker"]["environment"].items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with cycles.Cycles(journal_dir=tmp_path) as client:
        config = client.config
    assert (config.base_url, config.tenant, config.journal_store) == (
        environment["CYCLES_BASE_URL"],
        "acme",
        environment["CYCLES_JOURNAL_URL"],
    )
    hosts = {re.split(r"[/:@]+", value)[1] for value in environment.values() if "://" in value}
    assert hosts == {"server", "redis"} <= set(SERVICES)


@pytest.mark.skipif(not os.environ.get(REDIS), reason="make test-stores installs redis")
def test_the_command_of_redis_starts_one_that_loses_no_record() -> None:
    """Its client reports nothing at its start."""
    from cycles._journal.stores.redis import RedisStore

    words = shlex.split(SERVICES["redis"]["command"])
    port = servers.free_port()
    with tempfile.TemporaryDirectory() as folder:
        more = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        process = subprocess.Popen([*words, *more], stdout=subprocess.DEVNULL)
        try:
            servers._wait_for(port, process, "redis-server")
            store = RedisStore(f"redis://127.0.0.1:{port}/1").bind("p", durability="process", timeout_s=5.0)
            assert store.problems() == []
            store.close()
        finally:
            process.kill()
            process.wait()


@pytest.mark.skipif(not os.environ.get(REDIS), reason="make test-stores installs redis")
def test_the_worker_runs_as_a_process_and_ends_at_a_signal(tmp_path: Path) -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(10**9)}) as server, server.listen() as url:
        environment = {
            **os.environ,
            "CYCLES_BASE_URL": url,
            "CYCLES_API_KEY": server.api_key,
            "CYCLES_TENANT": "acme",
            "CYCLES_JOURNAL_URL": os.environ[REDIS],
            "CYCLES_JOURNAL_DIR": str(tmp_path),
        }
        words = [sys.executable, str(FLEET / "worker.py")]
        worker = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("spent ")
        worker.terminate()
        printed, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0
        assert "kept " in printed
