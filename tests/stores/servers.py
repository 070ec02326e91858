"""Start a private redis-server, PostgreSQL and PgBouncer on loopback, run the tests of the stores, stop them.

`python -m tests.stores.servers` does all of it; `make test-stores` calls it. Debian packages that are missing are
installed, with three tries. It fails if they cannot be installed: a store that was not tested is no pass.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.support.waiting import until

TRIES: Final = 3
START_S: Final = 120.0
REDIS: Final = "TEST_STORES_REDIS"
POSTGRES: Final = "TEST_STORES_POSTGRES"
PGBOUNCER: Final = "TEST_STORES_PGBOUNCER"
PASSWORD: Final = "secret-of-the-store"
_PACKAGES: Final = {"redis-server": "redis-server", "initdb": "postgresql", "pgbouncer": "pgbouncer"}


def program(name: str) -> str | None:
    """Return the path of a program, also of PostgreSQL's, which Debian does not put on the path."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian puts pgbouncer
    return shutil.which(name, path=path)


def install() -> None:
    """Install the Debian packages that are missing.

    Raises:
        SystemExit: they cannot be installed.
    """
    missing = [package for name, package in _PACKAGES.items() if program(name) is None]
    if not missing:
        return
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    for number in range(1, TRIES + 1):
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            subprocess.run([*root, "apt-get", "update", "-qq"], check=True)
            subprocess.run([*root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)
        if all(program(name) for name in _PACKAGES):
            return
        print(f"test-stores: {', '.join(missing)} cannot be installed, try {number} of {TRIES}", file=sys.stderr)
        time.sleep(5)
    raise SystemExit(f"test-stores: install {', '.join(missing)} and run it again")


def free_port() -> int:
    """Return a port of loopback that is free now."""
    while True:
        port = random.randrange(10_000, 30_000)  # the system gives none of these to the connections of other programs
        with contextlib.suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return port


def _wait_for(port: int, process: subprocess.Popen[bytes], what: str) -> None:
    def accepts() -> bool:
        if process.poll() is not None:
            raise SystemExit(f"test-stores: {what} ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    until(accepts, START_S, step_s=0.05, what=lambda: f"(the start of {what})")


def start_redis(folder: Path, port: int, *more: str) -> subprocess.Popen[bytes]:
    """Start a Redis with an append-only file in `folder`, and wait until it accepts connections."""
    server = program("redis-server")
    assert server is not None
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    process = subprocess.Popen([server, *options, "--requirepass", PASSWORD, *more], stdout=subprocess.DEVNULL)
    _wait_for(port, process, "redis-server")
    return process


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a private Redis and yield its URL."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process = start_redis(Path(folder), port)
        try:
            yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def _as_user() -> list[str]:
    """Return the words that run a command as another user: PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    return ["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups"]


def _run(words: Sequence[str], folder: Path) -> None:
    found = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"test-stores: {words[0]} failed: {found.stderr.strip()}")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run a private PostgreSQL and yield its URL."""
    user = _as_user()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        data, password = folder / "data", folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        initdb, server = program("initdb"), program("postgres")
        assert initdb is not None
        assert server is not None
        _run(
            [*user, initdb, "-D", str(data), "-U", "cycles", "-A", "scram-sha-256", "--pwfile", str(password)],
            folder,
        )
        port = free_port()
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        words = [*user, server, "-D", str(data), *(word for each in settings for word in ("-c", each))]
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, process, "postgres")
            is_ready = [program("pg_isready") or "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            # It accepts connections before it accepts queries.
            until(lambda: subprocess.run(is_ready).returncode == 0, START_S, step_s=0.05)
            yield f"postgresql://cycles:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # SIGTERM would wait until all clients have left
            process.wait()


@contextlib.contextmanager
def pgbouncer(postgres_url: str) -> Iterator[str]:
    """Run a private PgBouncer in transaction mode, with two connections to the database, and yield its URL."""
    parts = urlsplit(postgres_url)
    server = program("pgbouncer")
    assert server is not None
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o777)
        users, settings = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{parts.username}" "{PASSWORD}"\n')
        settings.write_text(
            f"""[databases]
* = host=127.0.0.1 port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
max_prepared_statements = 0
"""
        )
        process = subprocess.Popen([*_as_user(), server, "-q", str(settings)], cwd=folder, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, process, "pgbouncer")
            yield parts._replace(netloc=f"{parts.username}:{PASSWORD}@127.0.0.1:{port}").geturl()
        finally:
            process.kill()
            process.wait()


def are_installed() -> bool:
    """Return whether the programs of all servers are installed, and the packages that connect to them."""
    return all(program(name) for name in _PACKAGES) and all(find_spec(name) for name in ("redis", "psycopg"))


@contextlib.contextmanager
def running() -> Iterator[dict[str, str]]:
    """Run all servers, and yield the environment variables with their URLs."""
    with redis() as redis_url, postgres() as postgres_url, pgbouncer(postgres_url) as pgbouncer_url:
        yield {REDIS: redis_url, POSTGRES: postgres_url, PGBOUNCER: pgbouncer_url}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pytest on the tests of the stores with all servers. Return its exit status."""
    install()
    given = list(sys.argv[1:] if arguments is None else arguments) or ["-q", "tests/stores"]
    with running() as urls:
        command = [sys.executable, "-m", "pytest", "-p", "no:xdist", *given]
        return subprocess.run(command, env=os.environ | urls).returncode


if __name__ == "__main__":
    sys.exit(main())
