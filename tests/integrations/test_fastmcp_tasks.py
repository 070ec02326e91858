"""Background tasks of a real FastMCP server, with an in-memory queue. They need the extra ``fastmcp[tasks]``."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger

pytest.importorskip("docket", reason="the background tasks of FastMCP are not installed: pip install 'fastmcp[tasks]'")

from fastmcp import Client, FastMCP

from cycles.integrations.fastmcp import CyclesMiddleware

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]


async def started(connected: Any, tool: str) -> Any:
    """Start a task."""
    if importlib.util.find_spec("fastmcp_tasks") is None:  # FastMCP 3
        return await connected.call_tool(tool, {}, task=True)
    return await importlib.import_module("fastmcp_tasks").call_tool_task(connected, tool, {})


async def test_a_task_is_charged_once_by_its_own_guard(
    client: cycles.Cycles, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMCP_DOCKET_URL", "memory://")

    @client.guarded(cycles.tokens(7), action=("tool.call", "work"))
    async def work() -> str:
        return "done"

    async def report() -> str:
        return await work()

    mcp: Any = FastMCP("tools")
    mcp.tool(report, task=True)
    if hasattr(mcp, "add_extension"):
        mcp.add_extension(importlib.import_module("fastmcp_tasks").TasksExtension())
    mcp.add_middleware(CyclesMiddleware(client, tool_budget=cycles.tokens(5)))
    async with Client(mcp) as connected:
        task = await started(connected, "report")
        result = await asyncio.wait_for(task.result(), 60)
    assert result.data == "done"
    assert [(row.action.name, row.status) for row in ledger.rows()] == [("report", "RELEASED"), ("work", "COMMITTED")]
    assert ledger.spent() == 7
