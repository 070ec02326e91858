"""Questions and tasks of a real FastMCP server: the call that only asks or starts is released, the work is charged."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger

pytest.importorskip("fastmcp", reason="fastmcp is not installed: run make test-integrations")
pytest.importorskip("mcp_types", reason="this version of FastMCP has neither questions nor extensions")

from fastmcp import Client, Context, FastMCP
from fastmcp.server.extensions import ServerExtension
from pydantic import BaseModel

from cycles.integrations.fastmcp import CyclesMiddleware

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

TOKENS = cycles.tokens
types: Any = importlib.import_module("mcp_types")


class Task(BaseModel):
    """What an extension sends instead of a result: the work runs later."""

    result_type: str = "task"
    task_id: str = "t1"


def question(text: str) -> Any:
    schema = {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]}
    params = types.ElicitRequestFormParams(message=text, requested_schema=schema)
    return types.InputRequiredResult(input_requests={"city": types.ElicitRequest(params=params)})


def asking_server(client: cycles.Cycles, asked: list[bool]) -> Any:
    """Return a server whose tool asks the client before it works."""
    mcp: Any = FastMCP("tools")

    async def weather(ctx: Context) -> Any:
        asked.append(ctx.input_responses is None)
        return question("Which city?") if ctx.input_responses is None else "sunny"

    mcp.tool(weather, output_schema=None)
    mcp.add_middleware(CyclesMiddleware(client, tool_budget=TOKENS(5)))
    return mcp


async def test_a_question_is_released_and_the_answered_call_is_charged(client: cycles.Cycles, ledger: Ledger) -> None:
    asked: list[bool] = []

    async def answer(message: str, response_type: Any, params: Any, context: Any) -> Any:
        return {"value": "Oslo"}

    async with Client(asking_server(client, asked), elicitation_handler=answer) as connected:
        result = await connected.call_tool("weather", {})
    assert result.content[0].text == "sunny"
    assert asked == [True, False]
    assert [row.status for row in ledger.rows()] == ["RELEASED", "COMMITTED"]
    assert ledger.spent() == 5


async def test_a_call_that_becomes_a_task_is_released_and_its_work_is_guarded_inside(
    client: cycles.Cycles, ledger: Ledger
) -> None:
    later: list[Any] = []

    class Tasks(ServerExtension):
        identifier = "io.example/tasks"

        async def intercept_tool_call(self, params: Any, context: Any, call_next: Any) -> Any:
            later.append(params.name)
            return Task()

    @client.guarded(TOKENS(7), action=("tool.call", "report"))
    async def report() -> str:
        return "written"

    mcp: Any = FastMCP("tools")
    mcp.tool(report)
    mcp.add_extension(Tasks())
    mcp.add_middleware(CyclesMiddleware(client, tool_budget=TOKENS(5)))
    async with Client(mcp) as connected:
        with pytest.raises(Exception, match="invalid result"):  # the client has not negotiated the extension
            await connected.call_tool("report", {})
    assert later == ["report"]
    assert [row.status for row in ledger.rows()] == ["RELEASED"]
    assert await report() == "written"
    assert ledger.spent() == 7
