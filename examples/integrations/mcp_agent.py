"""An agent that asks `cycles mcp` for budget before each search: the third one is denied.

The searches are fake and the server is embedded, so it needs no key and no network: `python mcp_agent.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client

import cycles

ACTION = "tool.call/web_search"


async def call(session: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool of the budget server."""
    result = await session.call_tool(tool, arguments)
    return json.loads(result.content[0].text)  # type: ignore[union-attr]


async def research(session: Client) -> None:
    """Search until the budget is used up."""
    for topic in ("leases", "ledgers", "budgets"):
        allowed = await call(session, "budget_reserve", estimate="0.02USD", action=ACTION)
        if not allowed["allowed"]:
            print(f"{topic}: not searched, {allowed['reason']}")
            continue
        cost = "0.015USD"  # the search would happen here
        await call(session, "budget_commit", id=allowed["id"], actual=cost)
        print(f"{topic}: searched for {cost}")
    print(f"left: {(await call(session, 'budget_left'))['USD']}")


async def main() -> None:
    with cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd("0.04")}) as server, server.listen() as url:
        environment = {**os.environ, "CYCLES_BASE_URL": url, "CYCLES_API_KEY": server.api_key, "CYCLES_TENANT": "acme"}
        arguments = ["-m", "cycles", "mcp", "--subject", "agent=researcher"]
        process = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
        async with Client(stdio_client(process)) as session:
            await research(session)


if __name__ == "__main__":
    asyncio.run(main())
