"""The tables below `docs/protocol/` state what the client does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import cycles

PAGES: Final = Path(__file__).parents[2] / "docs" / "protocol"
ACTION: Final = ("llm.completion", "small-model")
UNKNOWN: Final = {"4xx": 418, "5xx": 503}


class Code(NamedTuple):
    """A row of the table of error codes."""

    code: str
    status: int
    exception: type[cycles.CyclesError]
    ends_a_settlement: bool
    becomes_an_event: bool
    stops_a_heartbeat: bool


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = (PAGES / page).read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def codes() -> Iterator[Code]:
    for code, status, exception, settlement, heartbeat in table("responses.md", "Error responses"):
        name = re.findall(r"`(\w+Error)`", exception)[-1]
        yield Code(
            code.strip("`") if code.startswith("`") else "A_NEWER_CODE",
            UNKNOWN.get(status) or int(status),
            getattr(cycles, name),
            settlement == "yes",
            "becomes an event" in settlement,
            heartbeat.partition(":")[0] in ("yes", "permanently"),
        )


@pytest.fixture
def server() -> cycles.EmbeddedServer:
    return cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(1000)})


@pytest.fixture
def client(server: cycles.EmbeddedServer) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme") as client:
        yield client


def error_body(code: str) -> dict[str, str]:
    return {"error": code, "message": "as the test says", "request_id": "r1"}


def test_the_table_of_codes_lists_every_code_of_the_protocol() -> None:
    from cycles_client import protocol

    listed = {row.code for row in codes()} - {"A_NEWER_CODE"}
    added = {"ACTION_QUOTA_EXCEEDED", "ACTION_KIND_DENIED", "ACTION_KIND_NOT_ALLOWED"}  # by protocol 0.1.26
    assert listed == set(protocol.SCHEMAS["ErrorCode"]["enum"]) | added


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.code}-{row.status}") for row in codes()])
class TestTheTableOfCodes:
    def test_names_the_exception(self, row: Code, server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
        server.faults.status("decide", row.status, body=error_body(row.code), times=2)
        with pytest.raises(cycles.ProtocolError) as caught:
            client.decide(cycles.tokens(1), action=ACTION)
        assert type(caught.value) is row.exception
        assert caught.value.retryable is (row.status == 429 or row.status >= 500)
        assert not (caught.value.retryable and row.stops_a_heartbeat)

    def test_says_what_ends_a_settlement(self, row: Code, server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
        guard = client.reserve(cycles.tokens(10), action=ACTION).acquire()
        server.faults.status("commit", row.status, body=error_body(row.code))
        if row.ends_a_settlement:
            with pytest.raises(row.exception):
                guard.commit(cycles.tokens(7))
            assert guard.state == "rejected"
        elif row.becomes_an_event:
            assert guard.commit(cycles.tokens(7)).status == "recorded_as_event"
        else:
            assert guard.commit(cycles.tokens(7)).status == "pending"
            client.flush()
            assert server.spent("tenant:acme", unit="TOKENS") == cycles.tokens(7)
