"""`cycles pending`, `cycles journal`, `cycles flush`, and the same commands without the extra."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import decode, encode, file_name
from cycles._journal.files.record_files import RecordFiles
from cycles._journal.operators.inspect_store import StoreView, files_of
from cycles.journal import __main__ as module, _commands, inspect
from tests.operators.conftest import Cycles
from tests.operators.journals import OTHER_SERVER, a_record, fill, folder, journal, lines, snapshot
from tests.operators.kit import AS_PROCESSES, ROOT, Ran, run_process
from tests.support.waiting import until

MEMBERS = {
    "id",
    "state",
    "reservation_id",
    "base_url",
    "mode",
    "amount",
    "recorded_at_ms",
    "not_before_ms",
    "path",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(os.environ["CYCLES_JOURNAL_DIR"])


@pytest.fixture
def url(configured: cycles.EmbeddedServer) -> str:
    return os.environ["CYCLES_BASE_URL"]


@pytest.fixture(params=["cycles journal", "python -m cycles.journal"])
def run_journal(request: pytest.FixtureRequest, run: Cycles) -> Any:
    """Run a command on the journal, in both of its forms."""
    if request.param == "cycles journal":
        return lambda *arguments: run("journal", *arguments)
    if AS_PROCESSES:
        return lambda *arguments: run_process(*arguments, module="cycles.journal")
    return request.getfixturevalue("run_module_here")


@pytest.fixture
def run_module_here(capsys: pytest.CaptureFixture[str]) -> Cycles:
    """Run ``cycles.journal`` in this process."""

    def run_module(*arguments: str) -> Ran:
        capsys.readouterr()
        try:
            status = module.main(arguments)
        except SystemExit as wrong:
            status = int(wrong.code or 0)
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run_module


@pytest.fixture(params=["cycles journal", "python -m cycles.journal"])
def run_journal_here(request: pytest.FixtureRequest, run_here: Cycles, run_module_here: Cycles) -> Cycles:
    """Run a command on the journal in this process, in both of its forms."""
    if request.param == "cycles journal":
        return lambda *arguments: run_here("journal", *arguments)
    return run_module_here


def ids(ran: Ran) -> dict[str | None, str]:
    return {record["reservation_id"]: record["state"] for record in ran.document["records"]}


def test_pending_lists_the_records_of_all_servers_and_needs_no_settings(run: Cycles, root: Path) -> None:
    assert run("pending").status == 0
    assert run("pending", "--json").document == {"records": []}
    assert not root.exists()
    fill(root, "http://127.0.0.1:1")
    ran = run("pending", "--json")
    assert ran.status == 4
    assert ids(ran) == {
        "rsv-pending": "pending",
        "rsv-deferred": "deferred",
        "rsv-other": "pending",
        "rsv-broken": "quarantined",
        "rsv-unfinished": "unfinished",
    }
    assert all(set(record) == MEMBERS for record in ran.document["records"])
    [broken] = [record for record in ran.document["records"] if record["state"] == "quarantined"]
    assert (broken["amount"], broken["mode"]) == (None, None)
    [pending] = [record for record in ran.document["records"] if record["reservation_id"] == "rsv-pending"]
    assert pending["amount"] == {"unit": "USD_MICROCENTS", "amount": 3_000_000}
    assert Path(pending["path"]).name == f"v2-{pending['id']}.json"
    shown = run("pending").out
    assert "rsv-pending" in shown
    assert "$0.03" in shown


def test_list_show_and_export(run_journal: Cycles, root: Path, run: Cycles) -> None:
    fill(root, "http://127.0.0.1:1")
    listed = run_journal("list", "--json")
    assert listed.status == 0
    assert listed.document == run("pending", "--json").document
    rejected = run_journal("list", "--rejected", "--json")
    assert ids(rejected) == {"rsv-rejected": "rejected", "rsv-perhaps": "rejected"}
    assert "BUDGET_EXCEEDED" in run_journal("list", "--rejected").out
    shown = run_journal("show", "rsv-rejected", "--json").document
    assert shown["record"]["commit_body"]["idempotency_key"] == "key-rsv-rejected"
    identity = shown["id"]
    for other in (identity, identity[:12], Path(shown["path"]).name, shown["path"]):
        assert run_journal("show", other, "--json").document == shown
    assert "amount: $0.03" in run_journal("show", identity).out
    exported = lines(run_journal("export").out)
    assert len(exported) == 7
    assert shown in exported


def test_looking_changes_no_byte_name_or_time(run_journal: Cycles, run: Cycles, root: Path, url: str) -> None:
    fill(root, url)
    before = snapshot(root)
    for arguments in (("list",), ("list", "--rejected"), ("show", "rsv-pending"), ("export",)):
        assert run_journal(*arguments).status == 0
    for status, command in (
        (4, "pending"),
        (0, "balances --tree"),
        (0, "reservations"),
        (0, "spend"),
        (0, "check 1USD --action a/b"),
        (1, "reservation rsv-pending"),
        (1, "release rsv-pending --yes"),
        (1, "extend rsv-pending 1000 --yes"),
        (4, "doctor"),
        (0, "top --once"),
        (0, "docs"),
    ):
        assert run(*command.split()).status == status, command
    assert len(inspect()) == 7
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nonsense"], "there is no record 'nonsense'"),
        (["retry", "rsv-rejected", "--yes"], "pass --as-event to send its amount as an event"),
        (["retry", "--as-event", "--yes"], "--as-event takes the id of a rejected record"),
        (["retry", "rsv-pending", "--as-event", "--yes"], "--as-event takes the id of a rejected record"),
        (["retry", "rsv-other", "--yes"], f"this record belongs to {OTHER_SERVER}"),
        (["retry", "rsv-broken", "--yes"], "this record cannot be settled"),
        (["retry", "rsv-unfinished", "--yes"], "its writer has not finished it"),
        (["retry"], "there is no terminal for a prompt; pass --yes"),
        (["discard", "rsv-pending"], "there is no terminal for a prompt; pass --yes"),
        (["discard"], "ID"),
        (["move", "/nonexistent/x", "/nonexistent/y"], "/nonexistent/x is not a directory"),
        (["move", "~no-such-user/x", "/nonexistent/y"], "no home directory is known for ~no-such-user/x; write the"),
        (["move", ".", "~no-such-user/y"], "no home directory is known for ~no-such-user/y; write the"),
        (["move", "", "/nonexistent/y"], "'' names no directory; write its path, or . for this one"),
        (["move", ".", "file:"], "'file:' names no directory; write its path, or . for this one"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_changes_nothing(
    run_journal: Cycles, root: Path, url: str, arguments: list[str], message: str
) -> None:
    fill(root, url)
    before = snapshot(root)
    ran = run_journal(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert snapshot(root) == before


def reserved(server: cycles.EmbeddedServer, count: int = 1) -> list[str]:
    client = server.client(tenant="acme", journal=False)
    made = [
        client.reserve(cycles.usd("0.05"), action=("llm.completion", "gpt-4o")).acquire().detach() for _ in range(count)
    ]
    found = [row.reservation_id for row in client.reservations(status="ACTIVE")]
    assert len(found) == len(made)
    client.close()
    return found


def test_flush_settles_the_records_of_the_configured_server(
    run: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer
) -> None:
    for reservation_id in reserved(configured, 2):
        journal(root, url).save(a_record(url, reservation_id))
    journal(root, OTHER_SERVER).save(a_record(OTHER_SERVER, "rsv-other"))
    ran = run("flush", "--json")
    assert (ran.status, ran.document) == (0, {"settled": 2, "pending": 0, "quarantined": 0})
    spent = configured.ledger.balance("tenant:acme", unit="USD_MICROCENTS").spent
    assert spent == cycles.usd("0.06")
    assert ids(run("pending", "--json")) == {"rsv-other": "pending"}


@pytest.mark.skipif(AS_PROCESSES, reason="the flush is held up in this process")
def test_flush_counts_what_its_client_has_settled_since_its_start(
    run: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [settled, damaged] = reserved(configured, 2)
    for reservation_id in (settled, damaged):
        journal(root, url).save(a_record(url, reservation_id))
    (folder(root, url) / file_name(damaged)).write_bytes(b"{")
    flush = cycles.Cycles.flush

    def flush_late(client: cycles.Cycles, timeout: float) -> cycles.FlushReport:
        until(lambda: not client.pending())
        return flush(client, timeout)

    monkeypatch.setattr(cycles.Cycles, "flush", flush_late)
    ran = run("flush", "--json")
    assert (ran.status, ran.document) == (4, {"settled": 1, "pending": 0, "quarantined": 1})


def test_flush_exits_4_if_something_is_left(run: Cycles, root: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = "http://127.0.0.1:9"
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0")  # the wait when the command closes its client
    journal(root, gone).save(a_record(gone, "rsv-1"))
    flush = cycles.Cycles.flush

    def flush_after_the_scan(client: cycles.Cycles, timeout: float) -> cycles.FlushReport:
        until(client.pending)
        return flush(client, timeout)

    monkeypatch.setattr(cycles.Cycles, "flush", flush_after_the_scan)
    ran = run("flush", "--json", "--timeout", "0.1", "--base-url", gone)
    assert (ran.status, ran.document) == (4, {"settled": 0, "pending": 1, "quarantined": 0})
    assert run("flush", "--timeout", "x").status == 2


@pytest.mark.skipif(AS_PROCESSES, reason="the listing is held up in this process")
def test_flush_exits_4_if_the_journal_was_not_read_to_the_end(
    run: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, names = threading.Event(), RecordFiles.names

    def later(store: Any) -> list[str]:
        gate.wait()
        return names(store)

    monkeypatch.setattr(RecordFiles, "names", later)
    monkeypatch.setattr("cycles._drivers.runtime.THREADS_END_S", 0.01)
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0")
    ran = run("flush", "--json", "--timeout", "0.01")
    assert (ran.status, ran.document) == (4, {"settled": 0, "pending": 0, "quarantined": 0, "scan_finished": False})
    ran = run("flush", "--timeout", "0.01")
    assert ran.status == 4
    assert "0 settled, 0 pending" in ran.out
    assert "not read to the end" in ran.out
    gate.set()


def test_retry_settles_one_record_and_a_quarantined_one(
    run_journal: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer
) -> None:
    [reservation_id] = reserved(configured)
    journal(root, url).save(a_record(url, reservation_id))
    name = file_name(reservation_id)
    place = folder(root, url)
    (place / name).rename(place / f"{name}.x.quarantined")
    ran = run_journal("retry", reservation_id, "--yes", "--json")
    assert (ran.status, ran.document) == (0, {"settled": 1, "pending": 0, "quarantined": 0})
    assert list(place.iterdir()) == []


def test_a_rejected_amount_is_sent_as_its_event_once(
    run_journal: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer
) -> None:
    journal(root, url).reject(a_record(url, "rsv-gone"), "may_be_charged")
    ran = run_journal("retry", "rsv-gone", "--as-event", "--yes", "--json")
    assert (ran.status, ran.document) == (0, {"settled": 1, "pending": 0, "quarantined": 0})
    assert configured.ledger.balance("tenant:acme", unit="USD_MICROCENTS").spent == cycles.usd("0.03")
    [kept] = inspect()
    assert kept.state == "rejected"
    assert kept.settled_at_ms
    assert "may_be_charged (settled by hand)" in run_journal("list", "--rejected").out
    again = run_journal("retry", "rsv-gone", "--as-event", "--yes")
    assert again.status == 2
    assert "settled by hand already" in again.err


def test_a_rejected_amount_that_is_rejected_again_exits_1(
    run_journal: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer
) -> None:
    configured.ledger.set_budget("tenant:acme", cycles.usd(1), status="FROZEN")
    journal(root, url).reject(a_record(url, "rsv-gone"), "BUDGET_EXCEEDED")
    ran = run_journal("retry", "rsv-gone", "--as-event", "--yes")
    assert ran.status == 1
    assert "the server rejected the amount: BUDGET_FROZEN" in ran.err
    [kept] = inspect()
    assert (kept.state, kept.reason, kept.settled_at_ms) == ("rejected", "BUDGET_FROZEN", None)


@pytest.mark.skipif(AS_PROCESSES, reason="the time of a flush is set in this process")
def test_a_rejected_amount_whose_event_gets_no_response_is_pending_and_not_settled_by_hand(
    run_journal_here: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_commands, "_FLUSH_S", 0.01)
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0")
    configured.faults.refuse("event", times=None)
    journal(root, url).reject(a_record(url, "rsv-gone"), "BUDGET_EXCEEDED")
    ran = run_journal_here("retry", "rsv-gone", "--as-event", "--yes")
    assert ran.status == 4, ran
    assert [(entry.state, entry.mode, entry.settled_at_ms) for entry in inspect()] == [("pending", "event", None)]


def test_a_retry_of_a_pending_record_says_nothing_of_an_amount_that_was_rejected_before(
    run_journal: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer
) -> None:
    [reservation_id] = reserved(configured)
    own = journal(root, url)
    own.reject(a_record(url, reservation_id, cents=4), "BUDGET_EXCEEDED")
    own.save(a_record(url, reservation_id))
    own.close()
    [pending] = [entry.path for entry in inspect() if entry.state == "pending"]
    ran = run_journal("retry", pending, "--yes", "--json")
    assert (ran.status, ran.document) == (0, {"settled": 1, "pending": 0, "quarantined": 0}), ran.err
    assert [entry.state for entry in inspect()] == ["rejected"]


def test_a_record_that_was_rejected_again_meanwhile_is_not_marked_as_settled(root: Path) -> None:
    journal(root, OTHER_SERVER).reject(a_record(OTHER_SERVER, "rsv-gone"), "BUDGET_EXCEEDED")
    [before] = inspect()
    journal(root, OTHER_SERVER).reject(a_record(OTHER_SERVER, "rsv-gone"), "BUDGET_FROZEN")
    place = folder(root, OTHER_SERVER)
    view = StoreView(files_of(place.parent, place.name), str(place))
    view.mark_settled(before)
    [after] = inspect()
    assert (after.reason, after.settled_at_ms) == ("BUDGET_FROZEN", None)
    record = after.decoded()
    assert record is not None
    view.put_rejected_back(record)
    journal(root, OTHER_SERVER).delete(record)  # it was settled
    view.mark_settled(after)
    [settled] = inspect()
    assert settled.settled_at_ms is not None
    journal(root, OTHER_SERVER).remove_settled(settled.settled_at_ms + 30 * 86_400_000)
    assert inspect() == [settled]
    journal(root, OTHER_SERVER).remove_settled(settled.settled_at_ms + 30 * 86_400_000 + 1)
    assert inspect() == []


def test_a_record_is_put_back_only_if_none_of_its_reservation_is_pending(
    run_journal: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer
) -> None:
    own = journal(root, url)
    own.reject(a_record(url, "rsv-gone"), "BUDGET_EXCEEDED")
    own.save(a_record(url, "rsv-gone", cents=4))
    own.close()
    before = snapshot(root)
    [rejected] = [entry.path for entry in inspect() if entry.state == "rejected"]
    ran = run_journal("retry", rejected, "--as-event", "--yes")
    assert (ran.status, "pending; list the journal again" in ran.err) == (2, True), ran
    assert {path: content for path, (content, _) in snapshot(root).items()} == {
        path: content for path, (content, _) in before.items()
    }


def test_discard_keeps_the_file_and_no_client_settles_it(
    run_journal: Cycles, run: Cycles, root: Path, url: str
) -> None:
    fill(root, url)
    before = inspect()
    ran = run_journal("discard", "rsv-pending", "--yes", "--json")
    assert ran.status == 0
    kept = Path(ran.document["path"])
    assert kept.name == f"{file_name('rsv-pending')}.discarded"
    assert ran.document["record"]["reservation_id"] == "rsv-pending"
    assert len(inspect()) == len(before) - 1
    run_journal("discard", "rsv-rejected", "-y")
    run("flush", "--timeout", "0.1")
    assert kept.exists()
    assert "rsv-rejected" not in run_journal("list", "--rejected").out


def test_move_moves_all_records_and_leaves_what_has_another_content(
    run_journal: Cycles, root: Path, url: str, tmp_path: Path
) -> None:
    fill(root, url)
    target = tmp_path / "target"
    before = {(entry.id, entry.state) for entry in inspect() if entry.state != "unfinished"}
    ran = run_journal("move", str(root), str(target), "--json")
    assert (ran.status, ran.document) == (4, {"moved": 6, "left": 1})
    assert {(entry.id, entry.state) for entry in inspect(target)} == before
    assert [entry.state for entry in inspect()] == ["unfinished"]
    journal(root, url).save(a_record(url, "rsv-pending", cents=4))
    assert run_journal("move", str(root), str(target), "--json").document == {"moved": 0, "left": 2}


@pytest.mark.parametrize(
    ("reply", "settled"),
    [
        *((reply, True) for reply in ("y\n", "Y\n", " yes \n", "YES\n")),
        *((reply, False) for reply in ("n\n", "", "\n", "yikes\n", "yes no\n", "ye\n", "not y\n")),
    ],
)
def test_a_terminal_gets_a_prompt(
    run_journal_here: Cycles, root: Path, url: str, monkeypatch: pytest.MonkeyPatch, reply: str, settled: bool
) -> None:
    class Terminal:
        isatty = staticmethod(lambda: True)
        readline: Callable[[], str] = staticmethod(lambda: reply)

    fill(root, url)
    monkeypatch.setattr(sys, "stdin", Terminal())
    ran = run_journal_here("discard", "rsv-pending")
    assert ran.status == (0 if settled else 130)
    assert "never settle $0.03 of rsv-pending? [y/N] " in ran.err
    assert ("rsv-pending" in {entry.reservation_id for entry in inspect()}) is not settled


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (("retry",), "settle what is pending for "),
        (("retry", "rsv-pending"), "settle $0.03 of rsv-pending now, with all that is pending there?"),
        (("retry", "rsv-set-aside"), "settle $0.03 of rsv-set-aside now, with all that is pending there?"),
        (("retry", "rsv-rejected", "--as-event"), "send $0.03 of rsv-rejected as an event?"),
        (
            ("retry", "rsv-perhaps", "--as-event"),
            "send $0.03 of rsv-perhaps as an event; it may be charged already, and is charged twice then?",
        ),
        (("discard", "rsv-pending"), "never settle $0.03 of rsv-pending?"),
        (("discard", "rsv-free"), "never settle $0.00 of rsv-free?"),
        (("discard", "rsv-rejected"), "never settle $0.03 of rsv-rejected?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.skipif(AS_PROCESSES, reason="the terminal is that of this process")
def test_a_prompt_that_is_declined_changes_nothing_and_sends_nothing(
    run_journal_here: Cycles,
    root: Path,
    url: str,
    configured: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    question: str,
) -> None:
    class Terminal:
        isatty = staticmethod(lambda: True)
        readline: Callable[[], str] = staticmethod(lambda: "n\n")

    fill(root, url)
    own = journal(root, url)
    own.save(a_record(url, "rsv-free", cents=0))
    own.save(a_record(url, "rsv-set-aside"))
    own.close()
    kept = folder(root, url) / file_name("rsv-set-aside")
    kept.rename(kept.with_name(f"{kept.name}.x.quarantined"))
    before = snapshot(root)
    monkeypatch.setattr(sys, "stdin", Terminal())
    ran = run_journal_here(*arguments)
    assert (ran.status, ran.out) == (130, "")
    assert question in ran.err
    assert ran.err.splitlines()[-1].endswith("nothing was changed")
    assert snapshot(root) == before
    assert not configured.requests


def test_the_rejected_amount_of_another_principal_is_not_sent(
    run_journal: Cycles, root: Path, url: str, configured: cycles.EmbeddedServer
) -> None:
    own = journal(root, OTHER_SERVER)
    own.reject(a_record(OTHER_SERVER, "rsv-theirs"), "BUDGET_EXCEEDED")
    own.close()
    before = snapshot(root)
    ran = run_journal("retry", "rsv-theirs", "--as-event", "--yes")
    assert (ran.status, ran.out) == (2, "")
    assert f"this record belongs to {OTHER_SERVER}" in ran.err
    assert snapshot(root) == before
    assert not configured.requests


def test_an_id_of_several_records_selects_none_of_them(run_journal: Cycles, root: Path, url: str) -> None:
    own = journal(root, url)
    own.reject(a_record(url, "rsv-gone"), "BUDGET_EXCEEDED")
    own.save(a_record(url, "rsv-gone", cents=4))
    own.close()
    before, paths = snapshot(root), [entry.path for entry in inspect()]
    for arguments in (("show", "rsv-gone"), ("discard", "rsv-gone", "--yes"), ("retry", "rsv-gone", "--yes")):
        ran = run_journal(*arguments)
        assert (ran.status, ran.out) == (2, "")
        assert "2 records match 'rsv-gone'; pass a path: " in ran.err
        assert [path in ran.err for path in paths] == [True, True]
    assert snapshot(root) == before


def test_what_is_shown_of_a_record_in_each_state(run_journal: Cycles, root: Path, url: str) -> None:
    fill(root, url)
    own = journal(root, url)
    own.save(a_record(url, "rsv-free", cents=0))
    own.close()
    shown = {name: run_journal("show", f"rsv-{name}").out.splitlines() for name in ("free", "rejected", "broken")}
    assert [line for line in shown["free"] if line.startswith("amount:")] == ["amount: $0.00"]
    assert [line for line in shown["rejected"] if line.startswith("reason:")] == ["reason: BUDGET_EXCEEDED"]
    [reason] = [line for line in shown["broken"] if line.startswith("reason:")]
    assert "version" in reason
    assert not [line for line in shown["broken"] if line.startswith("amount:")]
    assert [line for line in shown["free"] if line.startswith("record.commit_body:")]


@pytest.mark.skipif(AS_PROCESSES, reason="the output is that of this process")
def test_a_reader_that_leaves_is_no_error(
    run_module_here: Cycles, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, OTHER_SERVER)

    class Left(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def fileno(self) -> int:
            return descriptor

    with (tmp_path / "out").open("w") as file, monkeypatch.context() as own:
        descriptor = file.fileno()
        own.setattr(sys, "stdout", Left())
        statuses = [module.main(arguments) for arguments in (["list"], ["export"], ["show", "rsv-pending"])]
        assert os.fstat(descriptor).st_rdev == Path(os.devnull).stat().st_rdev  # what is left to print is discarded
    assert statuses == [0, 0, 0]


def test_the_module_needs_no_extra(root: Path) -> None:
    program = (
        "import sys; sys.modules['click'] = sys.modules['rich'] = None; "
        "from cycles.journal.__main__ import main; sys.exit(main(['list', '--json']))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (0, '{"records": []}\n'), ran.stderr


def test_a_request_of_a_killed_process_is_listed_as_sent_and_can_be_discarded(
    run_here: Cycles, root: Path, url: str
) -> None:
    own = journal(root, url)
    log = own.spend_log()
    for name in ("rsv-sent", "rsv-other"):
        slot = log.open_slot()
        assert slot is not None
        assert slot.write(encode(a_record(url, name, cents=7, sent=True)))
    (live,) = root.glob("*/spend-*.log")
    dead = live.with_name("spend-of-a-killed-process.log")
    dead.write_bytes(live.read_bytes())
    log.close()
    listed = run_here("pending", "--json")
    records = json.loads(listed.out)["records"]
    assert listed.status == 4
    assert [(each["state"], each["path"]) for each in records] == [("sent", str(dead))] * 2
    assert "7" in run_here("journal", "show", "rsv-sent").out
    discarded = run_here("journal", "discard", "rsv-sent", "--yes", "--json")
    assert discarded.status == 0
    kept = Path(json.loads(discarded.out)["path"])
    assert (kept.name, decode(kept.read_bytes()).sent) == (f"{file_name('rsv-sent')}.discarded", True)
    left = json.loads(run_here("journal", "list", "--json").out)["records"]
    assert [each["reservation_id"] for each in left] == ["rsv-other"]
