"""An MCP server under a budget: each tool call is reserved, charged, or denied.

The client is in the same process and the server of budgets is embedded, so it needs no network:
`python fastmcp_server.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastmcp import Client, FastMCP

import cycles
from cycles.integrations.fastmcp import CyclesMiddleware

mcp: Any = FastMCP("Search")


@mcp.tool
def search(query: str) -> str:
    """Search the web."""
    guard = cycles.current_guard()
    if guard is not None:
        guard.spend(cycles.tokens(80))
    return f"three pages about {query}"


async def main() -> None:
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.tokens(200)}) as client:
        mcp.add_middleware(CyclesMiddleware(client, tool_budget={"search": cycles.tokens(100)}))
        async with Client(mcp) as connected:
            for number in range(1, 4):
                result = await connected.call_tool("search", {"query": "budgets"}, raise_on_error=False)
                [balance] = client.balances()
                print(f"run {number}: {result.content[0].text} ({balance.spent} of {balance.allocated} spent)")


if __name__ == "__main__":
    asyncio.run(main())
