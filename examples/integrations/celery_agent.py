"""A Celery task under a budget: each attempt is paid once. Broker, worker, model and server are in this process.

It needs no key and no network: `python celery_agent.py`.
"""

from __future__ import annotations

from celery import Celery
from celery.contrib.testing.worker import start_worker

import cycles
from cycles.integrations.celery import close_with_worker, guarded

server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(100)})
client = server.client(tenant="acme", journal=False)
app = Celery("agents", broker="memory://", backend="cache+memory://")
close_with_worker(client)


def fake_model(doc: str) -> str:
    """Summarize."""
    return doc[:12]


@app.task(acks_late=True)
@guarded(client, estimate=lambda doc: cycles.tokens(len(doc)), actual=lambda summary: cycles.tokens(len(summary)))
def summarize(doc: str) -> str:
    """Return the summary of a document."""
    return fake_model(doc)


def main() -> None:
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
        for number in range(2):
            print(f"summary: {summarize.delay(f'The long text of document {number}').get(timeout=20)}")
    print(f"spent: {server.ledger.balance('tenant:acme', unit='TOKENS').spent}")


if __name__ == "__main__":
    main()
