"""A Dramatiq actor under a budget: each attempt is paid once, and a denied message waits until there is budget.

Broker, model and server are in memory, so it needs no key and no network: `python dramatiq_agent.py`.
"""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.stub import StubBroker

import cycles
from cycles.integrations.dramatiq import guarded, install


def fake_model(doc: str) -> str:
    """Summarize."""
    return doc[:12]


def main() -> None:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(30)})
    broker = StubBroker()
    install(broker)
    with server.client(tenant="acme", journal=False) as client:

        @dramatiq.actor(broker=broker)
        @guarded(client, estimate=lambda doc: cycles.tokens(len(doc)), denied_delay_s=0.2, max_denials=5)
        def summarize(doc: str) -> None:
            print(f"summary: {fake_model(doc)}")

        def fund(event: object) -> None:
            if type(event).__name__ == "Denied":
                print("denied: the message waits, and an operator adds budget")
                server.ledger.fund("tenant:acme", cycles.tokens(100))

        client.on_event(fund)
        for number in range(2):
            summarize.send(f"The long text of document {number}")
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=10)
        worker.start()
        broker.join(summarize.queue_name, timeout=20_000)
        worker.stop()
        print(f"spent: {server.ledger.balance('tenant:acme', unit='TOKENS').spent}")
    server.close()


if __name__ == "__main__":
    main()
