"""One worker of a fleet: it reserves, works, and commits, until it is stopped.

Everything comes from the environment: CYCLES_BASE_URL, CYCLES_API_KEY, CYCLES_TENANT, and CYCLES_JOURNAL_URL for the
store that the fleet shares. On stdout it prints `spent N` before a commit, and `kept N` when the amount is settled or
saved. After `kept` the worker and its disk may be lost: another worker settles the amount.
"""

from __future__ import annotations

import random
import signal
import threading
import time

import cycles

THREADS = 4
ESTIMATE = cycles.tokens(100)

stopping = threading.Event()
printing = threading.Lock()


def say(word: str, amount: int) -> None:
    with printing:
        print(word, amount, flush=True)


def work(client: cycles.Cycles) -> None:
    while not stopping.is_set():
        try:
            guard = client.reserve(ESTIMATE, action=("llm.completion", "demo")).acquire()
        except (cycles.TransportError, cycles.ProtocolError):
            time.sleep(0.1)  # no server, no work
            continue
        time.sleep(random.uniform(0.01, 0.05))  # the work itself
        amount = random.randint(1, 100)
        say("spent", amount)
        guard.commit(cycles.tokens(amount))
        say("kept", amount)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with cycles.Cycles(flush_timeout=10.0) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
