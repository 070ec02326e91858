"""Run seeds in processes of their own, and print what they found."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import pickle
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Final

from attrs import define

from tests.simulation import threads
from tests.simulation.hub import SimulationStuckError
from tests.simulation.world import World

WORKERS: Final = min(os.cpu_count() or 1, 8)
TRACE_LINES: Final = 60  # of the end of a trace, in the report of a failing run
SHARED_MEMORY: Final = Path("/dev/shm")  # the journals of a run need no real disk
_perf_counter: Final = time.perf_counter


@define
class Result:
    """What was found in one run."""

    seed: int
    problems: list[str]
    trace: list[str]
    steps: int
    ops: int
    exempt: int


def run_seed(seed: int) -> Result:
    """Run one seed and return what was found."""
    folder = Path(tempfile.mkdtemp(prefix="cycles-sim-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
    log = logging.getLogger("cycles")
    level = log.level
    log.setLevel(logging.CRITICAL)
    gc.disable()  # a collection at a random moment would make two runs of a seed differ
    try:
        world = World(seed, folder)
        with warnings.catch_warnings(), threads.installed(world.hub):
            warnings.simplefilter("ignore")
            try:
                world.run()
            except SimulationStuckError as error:
                world.problems.append(str(error))
        return Result(seed, world.problems, world.hub.log, world.hub.steps, len(world.ops), world.exempt)
    finally:
        gc.enable()
        log.setLevel(level)
        shutil.rmtree(folder, ignore_errors=True)


def run_isolated(seed: int) -> Result:
    """Run one seed in a forked process, so that nothing of it reaches the next one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            content = pickle.dumps(run_seed(seed))
        except BaseException:
            content = pickle.dumps(Result(seed, [traceback.format_exc()], [], 0, 0, 0))
        with os.fdopen(writer, "wb") as file:
            file.write(content)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    if not content:
        return Result(seed, ["the process of the run died"], [], 0, 0, 0)
    result: Result = pickle.loads(content)
    return result


def report(result: Result) -> str | None:
    """Return what a failing run prints: what was found, the end of the trace, and how to replay it."""
    if not result.problems:
        return None
    trace = result.trace if len(result.trace) <= TRACE_LINES else ["  ...", *result.trace[-TRACE_LINES:]]
    lines = [f"seed {result.seed} failed:", *(f"  {problem}" for problem in result.problems), "what happened:", *trace]
    return "\n".join([*lines, f"replay: make simulate SEED={result.seed}"])


def main(arguments: list[str] | None = None) -> int:
    """Run many seeds, or one with its trace. Return the exit status: 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run one seed and print its trace")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    options = parser.parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of strings is a part of what a seed decides
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.run", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    if options.seed is not None:
        return _replay(options.seed)
    return _many(options.first, options.seeds, options.minutes)


def _replay(seed: int) -> int:
    result = run_isolated(seed)
    print("\n".join(result.trace))
    print(report(result) or f"seed {seed} passed: {result.ops} guards, {result.steps} steps")
    return 1 if result.problems else 0


def _many(first: int, count: int, minutes: float | None) -> int:
    began, failed, ops, exempt, done = _perf_counter(), 0, 0, 0, 0
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        for result in pool.imap(run_isolated, range(first, first + count)):
            done, ops, exempt = done + 1, ops + result.ops, exempt + result.exempt
            if (printed := report(result)) is not None:
                failed += 1
                print(printed, flush=True)
            if minutes is not None and _perf_counter() - began > minutes * 60:
                break
    rate = done / (_perf_counter() - began)
    print(f"{done} seeds, {ops} guards, {exempt} amounts exempt, {failed} failed, {rate:.1f} seeds/s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
