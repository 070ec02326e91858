"""An RQ job under a budget, with a worker in this process. The model is fake and the Cycles server is embedded.

It needs a Redis server, by default at redis://127.0.0.1:6379/0: `python rq_agent.py [URL]`.
"""

from __future__ import annotations

import sys

from redis import Redis
from rq import Queue, SimpleWorker

import cycles
from cycles.integrations.rq import guarded

server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(100)})
client = server.client(tenant="acme", journal=False)


def fake_model(doc: str) -> str:
    """Summarize."""
    return doc[:12]


@guarded(client, estimate=lambda doc: cycles.tokens(len(doc)), actual=lambda summary: cycles.tokens(len(summary)))
def summarize(doc: str) -> str:
    """Return the summary of a document."""
    return fake_model(doc)


def main() -> None:
    import rq_agent  # workers cannot run functions of the module __main__

    connection = Redis.from_url(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379/0")
    queue = Queue("agents", connection=connection)
    jobs = [queue.enqueue(rq_agent.summarize, f"The long text of document {number}") for number in range(2)]
    SimpleWorker([queue], connection=connection).work(burst=True, logging_level="WARNING")
    for job in jobs:
        print(f"summary: {job.return_value(refresh=True)}")
    print(f"spent: {rq_agent.server.ledger.balance('tenant:acme', unit='TOKENS').spent}")


if __name__ == "__main__":
    main()
