"""A FastAPI service with an agent under the budget of each customer: streamed answers, denials as problem details.

The model is fake and the server is embedded, so it needs no key and no network: `python fastapi_agent.py`.
"""

# No postponed annotations: FastAPI resolves those of endpoints in the module, and these are local.

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

import cycles
from cycles.integrations.fastapi import Guarded, SubjectMiddleware, lifespan, problem_details


async def fake_model(prompt: str) -> AsyncIterator[str]:
    """Answer with ten words."""
    for word in f"Budgets keep agents that answer {prompt!r} from spending everything".split():
        await asyncio.sleep(0)
        yield word + " "


def application(client: cycles.Cycles) -> FastAPI:
    """Return the service."""
    app = FastAPI(lifespan=lifespan(client))
    app.add_middleware(SubjectMiddleware, headers={"X-Customer": "workspace"}, required=["workspace"])
    app.add_exception_handler(cycles.CyclesError, problem_details)

    @app.post("/ask")
    async def ask(
        prompt: str, guard: Annotated[cycles.AsyncGuard, Depends(Guarded(cycles.tokens(20), client=client))]
    ) -> StreamingResponse:
        async def answer() -> AsyncIterator[str]:
            async for word in fake_model(prompt):
                guard.spend(cycles.tokens(1))
                yield word

        return StreamingResponse(answer(), media_type="text/plain")

    return app


async def main() -> None:
    budgets = {"tenant:acme": cycles.tokens(1_000), "tenant:acme/workspace:small": cycles.tokens(30)}
    client = cycles.Cycles.embedded(budgets=budgets)
    app = application(client)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")
    async with app.router.lifespan_context(app), http:
        for number in range(1, 4):
            response = await http.post("/ask", params={"prompt": "why?"}, headers={"X-Customer": "small"})
            print(f"request {number}: {response.status_code} {response.text.strip()}")
        [balance] = [each for each in client.balances(subject={"workspace": "small"}) if "small" in each.scope]
        print(f"spent: {balance.spent} of {balance.allocated}")


if __name__ == "__main__":
    asyncio.run(main())
