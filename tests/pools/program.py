"""Programs that use a pool in their own process; tests kill, stop or fork them. The first argument is JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from typing import Any

import cycles
from cycles._journal.files import bounded

ACTION = ("llm.completion", "small-model")
T = cycles.tokens


def say(word: object) -> None:
    print(word, flush=True)


def spend_for_ever(client: cycles.Cycles) -> None:
    """Say after each commit how many have returned; killed by the test."""
    pool = client.pool(T(100_000), action=ACTION, chunk=T(25_000))
    count = 0
    while True:
        with pool.reserve(T(2)) as guard:
            guard.commit(T(1))
        count += 1
        os.pwrite(1, str(count).encode().ljust(20), 0)


def spend_and_wait(client: cycles.Cycles) -> None:
    """Spend 7 of a chunk, leave one guard live with known spend, and wait for the end of the input."""
    pool = client.pool(T(400), action=ACTION)
    with pool.reserve(T(10)) as guard:
        guard.commit(T(7))
    live = pool.reserve(T(10)).acquire()
    live.spend(T(3))
    say("ready")
    sys.stdin.read()
    say("continued")
    with pool.reserve(T(10)) as guard:
        guard.commit(T(5))
    live.commit(T(3))
    client.close()
    say("closed")


def outlive_the_chunk(client: cycles.Cycles) -> None:
    """Spend 3 before the pool is closed and 2 after that, by two guards that outlive their chunk, and wait."""
    pool = client.pool(T(400), action=ACTION)
    before, after, released = (pool.reserve(T(10)).acquire() for _ in range(3))
    before.spend(T(3))
    released.spend(T(4))
    pool.close()
    after.spend(T(2))
    released.release()
    say("ready")
    sys.stdin.read()
    before.commit()
    after.commit(T(1))
    client.close()
    say("closed")


def exit_with_live_guards(client: cycles.Cycles) -> None:
    """Leave the interpreter without closing anything."""
    pool = client.pool(T(400), action=ACTION)
    with pool.reserve(T(10)) as guard:
        guard.commit(T(7))
    KEPT.append(pool.reserve(T(10)).acquire())
    KEPT[-1].spend(T(3))
    KEPT.append(pool.reserve(T(10)).acquire())


KEPT: list[Any] = []


def fork(client: cycles.Cycles) -> None:
    """Use the pool in a parent and in its child."""
    pool = client.pool(T(400), action=ACTION)
    guard = pool.reserve(T(10)).acquire()
    child = os.fork()
    if child == 0:
        try:
            guard.commit(T(1))
        except cycles.InvalidRequestError:
            say("inert")
        with pool.reserve(T(10)) as own:
            own.commit(T(5))
        say(own.reservation_id != guard.reservation_id)
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    guard.commit(T(7))
    client.close()


def fork_while_threads_use_it(client: cycles.Cycles) -> None:
    """Fork often while four threads use the pool; every child uses it too."""
    pool = client.pool(T(40_000), action=ACTION)
    with pool.reserve(T(2)) as first:
        first.commit(T(1))
    pool.flush()  # a fork in the middle of a first import is tested elsewhere
    ended = threading.Event()

    ends = threading.Semaphore(0)

    def work() -> None:
        while not ended.is_set():
            with pool.reserve(T(2)) as guard:
                guard.commit(T(1))
            ends.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        for _ in range(20):
            ends.acquire()
        child = os.fork()
        if child == 0:
            with pool.reserve(T(2)) as guard:
                guard.commit(T(1))
            pool.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    ended.set()
    for thread in threads:
        thread.join()
    spent = pool.stats().spent.amount
    client.close()
    say(spent + 5)


def main() -> None:
    warnings.simplefilter("ignore")
    vars(bounded)["DEADLINE_S"] = 60.0  # a thread may need seconds to start on a busy machine
    orders = json.loads(sys.argv[1])
    program = globals()[orders.pop("program")]
    program(cycles.Cycles(**orders))


if __name__ == "__main__":
    main()
