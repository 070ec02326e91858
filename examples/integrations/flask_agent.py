"""A Flask service with an agent under the budget of each customer: a streamed answer, and a denial as 402.

The model is fake and the server is embedded, so it needs no key and no network: `python flask_agent.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

import cycles
from cycles.integrations.wsgi import SubjectMiddleware


def fake_model(prompt: str) -> Iterator[str]:
    """Answer with ten words."""
    for word in f"Budgets keep agents that answer {prompt!r} from spending everything".split():
        yield word + " "


def application(client: cycles.Cycles) -> Flask:
    """Return the service."""
    app = Flask("service")

    @app.post("/ask")
    def ask() -> Response:
        prompt = request.form["prompt"]
        guard = client.reserve(cycles.tokens(20), action=("llm.completion", "fake")).acquire()

        def answer() -> Iterator[str]:
            with guard:
                for word in fake_model(prompt):
                    guard.spend(cycles.tokens(1))
                    yield word

        return Response(answer(), mimetype="text/plain")

    @app.errorhandler(cycles.ReservationDeniedError)
    def denied(error: cycles.ReservationDeniedError) -> tuple[dict[str, Any], int]:
        return {"code": error.code}, 402

    app.wsgi_app = SubjectMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, lambda environ: {"workspace": environ.get("HTTP_X_CUSTOMER")}
    )
    return app


def main() -> None:
    budgets = {"tenant:acme": cycles.tokens(1_000), "tenant:acme/workspace:small": cycles.tokens(30)}
    with cycles.Cycles.embedded(budgets=budgets) as client:
        http = application(client).test_client()
        for number in range(1, 4):
            response = http.post("/ask", data={"prompt": "why?"}, headers={"X-Customer": "small"})
            print(f"request {number}: {response.status_code} {response.text.strip()}")
        [balance] = [each for each in client.balances(subject={"workspace": "small"}) if "small" in each.scope]
        print(f"spent: {balance.spent} of {balance.allocated}")


if __name__ == "__main__":
    main()
