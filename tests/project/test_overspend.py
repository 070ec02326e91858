"""The overspend comparison: the bank bills what was calculated by hand, and a figure of ours that gets worse fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.overspend import __main__ as command, environments, page
from benchmarks.overspend.bank import Bank, Tokens, cost, plan_of
from benchmarks.overspend.cases import CASES, USD
from benchmarks.overspend.cell import Cell, figures
from benchmarks.overspend.tools import TOOLS

DAY = {"delay_s": 0, "gap_s": 0}


@pytest.mark.parametrize(
    ("model", "tokens", "by_hand"),
    [
        ("gpt-4o", Tokens(1_000, 5_000), 1_000 * 250 + 5_000 * 1_000),
        ("gpt-4o-mini", Tokens(1_000, 5_000, cached=200), 800 * 15 + 200 * 7.5 + 5_000 * 60),
        ("gpt-5", Tokens(2_000, 3_000, cached=1_000, reasoning=2_000), 1_000 * 125 + 1_000 * 12.5 + 3_000 * 1_000),
        (
            "claude-sonnet-4-5",
            Tokens(4_500, 2_000, cached=2_000, cache_write=1_000, cache_write_1h=500),
            1_000 * 300 + 2_000 * 30 + 1_000 * 375 + 500 * 600 + 2_000 * 1_500,
        ),
        ("acme-large-v1", Tokens(300, 400), 300 * 250 + 400 * 1_000),
    ],
)
def test_the_bill_is_what_was_calculated_by_hand(model: str, tokens: Tokens, by_hand: float) -> None:
    assert cost(model, tokens) == by_hand * 10


class Desk:
    """A bank on a socket, and a client of it."""

    def __init__(self, bank: Bank, port: int) -> None:
        self.bank, self.port = bank, port

    async def send(self, path: str, body: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps(body).encode()
        writer.write(f"POST {path} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        return reader, writer

    async def whole(self, path: str, body: Any) -> tuple[int, Any]:
        """Return status and body; the status 0 is a connection that ended before a response."""
        reader, writer = await self.send(path, body)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.decode().lower().partition("content-length: ")[2].split()[0])
            return int(head.split()[1]), json.loads(await reader.readexactly(length))
        except asyncio.IncompleteReadError:
            return 0, None
        finally:
            await closed(writer)

    @property
    def microcents(self) -> float:
        return self.bank.bill / 10


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def serve(test: Any, plan: dict[str, Any]) -> None:
    """Run a test with a bank that has a plan."""

    async def run() -> None:
        bank = Bank()
        bank.set(plan_of({**DAY, **plan}))
        server = await asyncio.start_server(bank.serve, "127.0.0.1", 0)
        async with server:
            await test(Desk(bank, server.sockets[0].getsockname()[1]))

    asyncio.run(run())


def body(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [], **more}


def test_every_api_reports_the_tokens_that_are_billed() -> None:
    async def test(desk: Desk) -> None:
        _, chat = await desk.whole("/v1/chat/completions", body(max_tokens=700))
        assert (chat["usage"]["prompt_tokens"], chat["usage"]["completion_tokens"]) == (1_000, 700)
        assert desk.microcents == 1_000 * 250 + 700 * 1_000
        _, response = await desk.whole("/v1/responses", body(max_output_tokens=10))
        assert response["usage"]["output_tokens"] == 10
        _, message = await desk.whole("/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 9_000})
        usage = message["usage"]
        assert usage["input_tokens"] == 1_000 * 1 - 300 - 200 - 100
        assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100}
        claude = 400 * 300 + 300 * 30 + 200 * 375 + 100 * 600 + 5_000 * 1_500
        assert desk.microcents == 950_000 + 250_000 + 10_000 + claude
        assert desk.bank.made == 3

    tokens = {"": {}, "claude-sonnet-4-5": {"cached": 300, "cache_write": 200, "cache_write_1h": 100}}
    serve(test, {"tokens": tokens})


def test_a_lost_response_is_billed_and_an_error_is_not() -> None:
    async def test(desk: Desk) -> None:
        ended = [(await desk.whole("/v1/chat/completions", body()))[0] for _ in range(4)]
        assert ended == [500, 0, 200, 500]
        assert (desk.bank.made, desk.microcents) == (2, 2 * 5_250_000)
        status, _ = await desk.whole("/v1/chat/completions", body(model="gpt-4o-mini"))
        assert (status, desk.bank.made) == (500, 2)

    serve(test, {"sequence": ["500", "lost", "ok"], "failing": ["gpt-4o-mini"]})


def test_a_response_is_billed_when_it_is_made_also_if_its_client_is_gone() -> None:
    async def test(desk: Desk) -> None:
        _, writer = await desk.send("/v1/chat/completions", body())
        await writer.drain()
        await closed(writer)
        while desk.bank.made == 0:
            await asyncio.sleep(0)
        assert desk.microcents == 5_250_000

    serve(test, {})


def test_a_stream_is_billed_by_its_events_and_ends_with_its_client() -> None:
    async def test(desk: Desk) -> None:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        reader, writer = await desk.send("/v1/chat/completions", body(**options))
        text = (await reader.read()).decode()
        await closed(writer)
        assert text.count(" word") == 5_000
        assert '"completion_tokens": 5000' in text
        assert desk.microcents == 5_250_000

    serve(test, {})


def test_a_stream_that_is_left_costs_what_was_sent() -> None:
    async def test(desk: Desk) -> None:
        reader, writer = await desk.send("/v1/chat/completions", body(stream=True))
        for _ in range(4):
            await reader.readuntil(b"\n\n" if _ else b"\r\n\r\n")
        await closed(writer)
        while desk.bank.made == 0:
            await asyncio.sleep(0)
        events = (desk.microcents - 1_000 * 250) / (250 * 1_000)
        assert events == int(events)
        assert 3 <= events < 20

    serve(test, {"gap_s": 0.01})


@pytest.mark.parametrize(
    ("case", "bill", "counted", "made", "got", "expected"),
    [
        ("parallel", 19 * 5_250_000, 19 * 5_250_000, 19, 19, (0, 0, 0, 0)),
        ("parallel", 64 * 5_250_000, 64 * 5_250_000, 64, 19, (236_000_000, 0, 0, 45)),
        ("parallel", 15 * 5_250_000, 15 * 5_250_000, 15, 15, (0, 0, 4, 0)),
        ("lost", 34 * 5_250_000, 96_500_000, 34, 17, (78_500_000, 82_000_000, 0, 0)),
        ("lost", 8 * 5_250_000, 8 * 5_250_000, 8, 4, (0, 0, 5, 0)),
        ("left", 16_800_000, 25_100_000, 15, 15, (0, -8_300_000, 49, 0)),
        ("tokens", 67_900_000, None, 10, 10, (0, None, 0, 0)),
    ],
)
def test_the_figures_of_a_cell(
    case: str, bill: int, counted: int | None, made: int, got: int, expected: tuple[Any, ...]
) -> None:
    cell = figures(CASES[case], bill, counted, made, got)
    assert (cell.overspend, cell.lost, cell.denied, cell.discarded) == expected


def test_the_calls_that_fit_are_those_of_the_prices() -> None:
    for name, price in {
        "parallel": 5_250_000,
        "lost": 2 * 5_250_000,
        "largeseq": 437_500,
        "nolimit": 10_250_000,
    }.items():
        assert CASES[name].wanted == USD // price
    for name, price in {"large": 437_500, "left": 250_000 + 3 * 250_000}.items():
        assert CASES[name].wanted * price <= USD


KEPT = {"G": {"parallel": {"overspend": 0, "lost": 0, "denied": 0, "discarded": 0}}}
ZEROS = {"overspend": 0, "denied": 0, "discarded": 0}
GOOD = Cell(bill=99_750_000, counted=99_750_000, lost=0)


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"overspend": 5_000_000}, "overspend is 5000000, it was at most 0"),
        ({"lost": 1_000}, "lost is 1000, it was at most 0"),
        ({"lost": None}, "lost is None, it was at most 0"),
        ({"denied": 4}, "denied is 4, it was at most 0"),
        ({"discarded": 1}, "discarded is 1, it was at most 0"),
        ({"note": "ended after 300 s"}, "no figures: ended after 300 s"),
    ],
)
def test_a_cell_of_ours_that_gets_worse_fails_the_run(
    planted: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(KEPT))
    monkeypatch.setattr(command, "KEPT", kept)
    monkeypatch.setattr(environments, "made", lambda names: {"cycles": Path("python")})
    cell = GOOD
    monkeypatch.setattr(command, "measure", lambda *given: cell)
    assert command.main(["--tools", "G", "--cases", "parallel"]) == 0
    cell = Cell(**{**vars(GOOD), **planted})
    assert command.main(["--tools", "G", "--cases", "parallel"]) == 1
    assert f"G parallel: {said}" in capsys.readouterr().err


def test_an_improvement_and_the_cells_of_others_do_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    better = Cell(**{**vars(GOOD), "lost": -500})
    assert command.worse(KEPT, {"G": {"parallel": better}, "N": {"parallel": Cell(overspend=2 * USD)}}) == []
    assert command.worse(KEPT, {"C": {"parallel": GOOD}}) == []


def test_a_tool_that_cannot_be_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "cannot be installed: no network"
    monkeypatch.setattr(environments, "made", lambda names: {"cycles": why, "shekel": Path("python")})
    monkeypatch.setattr(command, "measure", pytest.fail)
    assert command.main(["--tools", "S", "--cases", "parallel"]) == 0
    assert capsys.readouterr().out.count(why) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tools", "G,Q"], "unknown tool Q: use N, G, C"),
        (["--cases", "parallel,slow"], "unknown case slow: use parallel, streams"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_every_column_of_this_project_has_kept_figures() -> None:
    kept = json.loads(command.KEPT.read_text())
    ours = {key for key, tool in TOOLS.items() if tool.is_ours}
    assert set(kept) == ours
    for key in ours:
        assert set(kept[key]) == {case for case in CASES if case not in TOOLS[key].without}
        for case, limits in kept[key].items():
            assert set(limits) == {"overspend", "lost", "denied", "discarded"}, (key, case)


@pytest.mark.parametrize("key", TOOLS)
def test_every_tool_has_pinned_versions_and_an_adapter(key: str) -> None:
    tool, folder = TOOLS[key], command.RESULTS.parent
    lines = (folder / "requirements" / f"{tool.environment}.txt").read_text().split()
    assert [line for line in lines if "==" not in line] == []
    assert (folder / "adapters" / f"{tool.adapter}.py").exists()


def test_each_cell_is_saved_before_the_next_one_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results.json"
    cells = iter([GOOD])

    def measure(*given: Any) -> Cell:
        for cell in cells:
            return cell
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setattr(environments, "made", lambda names: {"cycles": Path("python")})
    monkeypatch.setattr(command, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        command.main(["--tools", "G", "--cases", "parallel,streams", "--write"])
    (saved,) = json.loads(results.read_text())["G"].items()
    assert saved == ("parallel", {"bill": GOOD.bill, "counted": GOOD.bill, "lost": 0, "commit": page.commit()} | ZEROS)


def test_the_page_says_at_which_commit_a_column_of_this_project_was_measured() -> None:
    new, old = Cell(bill=1, commit="abc"), Cell(bill=1)
    text = page.notes({"G": {"parallel": new, "streams": old}, "C": {"parallel": new}, "S": {"parallel": new}})
    assert "- Measured at abc: G `parallel`; C.\n" in text
    assert "- Measured at an earlier commit: G `streams`.\n" in text


def test_a_cell_is_written_as_the_page_says() -> None:
    assert page.text_of(GOOD) == ".998="
    assert page.text_of(Cell(bill=178_500_000, counted=96_500_000, lost=82_000_000, denied=1)) == "1.785:.965 -1"
    assert page.text_of(Cell(bill=336_000_000)) == "3.36"
    assert page.text_of(Cell(bill=0, counted=0, lost=0, denied=19)) == "0= -19"
    assert page.text_of(Cell(note="-")) == "-"


def test_the_page_has_the_figures_that_were_saved(tmp_path: Path) -> None:
    results, written = tmp_path / "results.json", tmp_path / "overspend.md"
    written.write_text(command.PAGE.read_text())
    cells = {
        "G": {"parallel": GOOD},
        "Y": {"parallel": Cell(bill=336_000_000, counted=0, lost=336_000_000, discarded=64)},
    }
    page.save(results, cells)
    page.save(results, {"G": {"streams": GOOD}})
    page.write(written, results)
    text = written.read_text()
    assert "| `parallel` | .998= | 3.36:0 |" in text
    assert "| `streams` | .998= |" in text
    assert "Discarded in `parallel`: Y 64." in text
    assert text.startswith(command.PAGE.read_text().partition(page.MARK)[0])


def test_the_page_of_the_project_is_generated_from_its_figures(tmp_path: Path) -> None:
    written = tmp_path / "overspend.md"
    written.write_text(command.PAGE.read_text())
    page.write(written, command.RESULTS)
    assert written.read_text() == command.PAGE.read_text(), "run make overspend WRITE=1"
