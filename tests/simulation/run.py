"""Run seeds in separate processes, and print what they found."""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
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
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import define, evolve

from cycles._journal.files.bounded import CALLS
from tests.simulation import threads
from tests.simulation.byte_codes import FEATURES as TRACED
from tests.simulation.hub import SimulationStuckError
from tests.simulation.simulated_run import SimulatedRun
from tests.simulation.swarm import Swarm, table
from tests.simulation.uses_pool import POOL_KINDS

WORKERS: Final = min(os.cpu_count() or 1, 8)
TRACE_LINES: Final = 60  # of the end of a trace, in the report of a failing run
BATCH: Final = 20  # seeds of one forked process: a fork costs as much as a seed
WARM_UP_SEEDS: Final = range(8)
SHARED_MEMORY: Final = Path("/dev/shm")  # the journals of a run need no real disk
_perf_counter: Final = time.perf_counter

_kept: Final[list[object]] = []  # every run of this process


@define
class Result:
    """What was found in one run.

    Attributes:
        seed: The seed.
        problems: What does not hold.
        trace: What happened, in order.
        steps: How often a thread or a timer ran.
        ops: How many guards were used.
        rejected: How many guards have an amount in `rejected/` that the ledger does not have.
        exempt: How many amounts may be missing because a disk failed.
        lost: How many amounts a restore of the ledger lost after a client saw them confirmed.
        pooled: Whether pools or queued commits were used.
        on: The features that were on.
        mattered: Those that changed what happened.
    """

    seed: int
    problems: list[str]
    trace: list[str]
    steps: int
    ops: int
    rejected: int
    exempt: int
    lost: int
    pooled: bool
    on: Sequence[str] = ()
    mattered: Sequence[str] = ()


def run_seed(seed: int, *, swarms: bool = True) -> Result:
    """Run one seed and return what was found."""
    folder = Path(tempfile.mkdtemp(prefix="cycles-sim-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
    log = logging.getLogger("cycles")
    level = log.level
    log.setLevel(logging.CRITICAL)
    collects = gc.isenabled()
    gc.disable()  # a collection at a random moment would make two runs of a seed differ
    CALLS._hanging.clear()  # calls of processes of earlier seeds, which never return
    try:
        simulated = SimulatedRun(seed, folder, swarms=swarms)
        _kept.append(simulated)
        with warnings.catch_warnings(), threads.installed(simulated.hub):
            warnings.simplefilter("ignore")
            try:
                simulated.run()
            except SimulationStuckError as error:
                simulated.problems.append(str(error))
        hub, ops = simulated.hub, simulated.ops
        pooled = any(op.kind in POOL_KINDS for op in ops)
        counts = simulated.rejected, simulated.exempt, simulated.lost
        features = simulated.swarm.on, simulated.swarm.mattered
        return Result(seed, simulated.problems, hub.log, hub.steps, len(ops), *counts, pooled, *features)
    finally:
        if collects:
            gc.enable()
        log.setLevel(level)
        shutil.rmtree(folder, ignore_errors=True)


def warm_up() -> None:
    """Import what a run needs and fill its caches, so that the forked processes do not do it again.

    A replay does the same, so that each run of a seed starts from the same state.
    """
    for seed in WARM_UP_SEEDS:
        run_seed(seed, swarms=False)
    gc.collect()
    gc.freeze()  # forked processes then copy no page because of a reference count of the collector


def run_isolated(seed: int, *, swarms: bool = True) -> Result:
    """Run one seed in a forked process, so that nothing of it reaches the next one."""
    return run_batch([seed], swarms=swarms)[0]


def run_batch(seeds: Sequence[int], *, swarms: bool = True) -> list[Result]:
    """Run a few seeds in one forked process. Nothing is freed between them, so no finalizer of one acts in the next."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        gc.disable()  # not between the runs either
        results = []
        for seed in seeds:
            try:
                # What is cached changes the number of their byte codes.
                if swarms and len(seeds) > 1 and any(name in Swarm(seed) for name in TRACED):
                    results += run_batch([seed])
                    continue
                results.append(run_seed(seed, swarms=swarms))
            except BaseException:
                results.append(Result(seed, [traceback.format_exc()], [], 0, 0, 0, 0, 0, False))
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:  # the time of `--minutes` was over
            pickle.dump(results, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    if not content:
        return [Result(seed, ["the process of the run died"], [], 0, 0, 0, 0, 0, False) for seed in seeds]
    found: list[Result] = pickle.loads(content)
    return found


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
    parser.add_argument("--seed", type=int, nargs="+", help="run one seed or a few, and print their traces")
    parser.add_argument("--without-swarms", action="store_true", help="repeat seeds from before swarms")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--workers", type=int, default=WORKERS, help="how many processes run at the same time")
    options = parser.parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of strings is a part of what a seed decides
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.run", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    if options.seed is not None:
        return _replay(options.seed, swarms=not options.without_swarms)
    return _many(options.first, options.seeds, options.minutes, options.workers)


def _replay(seeds: Sequence[int], *, swarms: bool) -> int:
    warm_up()
    failed = 0
    for result in (run_isolated(seed, swarms=swarms) for seed in seeds):
        failed += bool(result.problems)
        print("\n".join(result.trace))
        print(report(result) or f"seed {result.seed} passed: {result.ops} guards, {result.steps} steps")
    return 1 if failed else 0


def _batches(first: int, count: int) -> list[range]:
    return [range(start, min(start + BATCH, first + count)) for start in range(first, first + count, BATCH)]


def _many(first: int, count: int, minutes: float | None, workers: int) -> int:
    began, failed, ops, rejected, exempt, lost, pooled, done = _perf_counter(), 0, 0, 0, 0, 0, 0, 0
    warm_up()
    results: list[Result] = []
    with multiprocessing.get_context("fork").Pool(workers) as pool, contextlib.suppress(KeyboardInterrupt):
        for result in itertools.chain.from_iterable(pool.imap(run_batch, _batches(first, count))):
            results.append(evolve(result, trace=[]))
            done, ops, pooled = done + 1, ops + result.ops, pooled + result.pooled
            rejected, exempt, lost = rejected + result.rejected, exempt + result.exempt, lost + result.lost
            if (printed := report(result)) is not None:
                failed += 1
                print(printed, flush=True)
            if minutes is not None and _perf_counter() - began > minutes * 60:
                break
    print(table(results))
    rate = done / (_perf_counter() - began)
    print(
        f"{done} seeds ({pooled} with pools or queued commits), {ops} guards, {rejected} amounts rejected, "
        f"{lost} lost in a restore of the ledger, {exempt} exempt (failed disk), {failed} failed, {rate:.1f} seeds/s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
