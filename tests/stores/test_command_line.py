"""The commands on the journal as processes, on files, a real Redis and a real PostgreSQL; and what is wrong usage."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

import cycles
from tests.stores.servers import PASSWORD, POSTGRES, REDIS
from tests.support import warm

PLACES = ["files", REDIS, POSTGRES]
FORMS = {"cycles": ["-m", "cycles", "journal"], "python -m cycles.journal": ["-m", "cycles.journal"]}


@frozen
class Ran:
    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.out)["records"]
        return found


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({f"tenant:t{secrets.token_hex(4)}": cycles.tokens(1_000)}) as server:
        yield server


@pytest.fixture
def address(server: cycles.EmbeddedServer) -> Iterator[str]:
    with server.listen() as url:
        yield url


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """The URL of a store; empty for files."""
    url = "" if request.param == "files" else os.environ.get(request.param)
    if url is None:
        pytest.skip(f"{request.param} is not set: make test-stores starts the server")
    return url


@pytest.fixture
def environment(server: cycles.EmbeddedServer, address: str, tmp_path: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CYCLES_")},
        "CYCLES_BASE_URL": address,
        "CYCLES_API_KEY": server.api_key,
        "CYCLES_TENANT": server.tenant,
        "CYCLES_JOURNAL_DIR": str(tmp_path / "files"),
    }


def run(environment: dict[str, str], option: str, module: str, *arguments: str) -> Ran:
    """Run `python -m MODULE ARGUMENTS` as a process."""
    assert option == "-m"
    done = warm.run(module, *arguments, environment=environment)
    return Ran(done.returncode, done.stdout, done.stderr)


def leave_pending(server: cycles.EmbeddedServer, address: str, url: str, folder: str) -> str:
    """Leave one commit pending, as a worker that ends while the server does not respond. Returns its reservation."""
    server.faults.refuse("commit", times=None)
    store = {"journal_store": url} if url else {}
    with server.client(base_url=address, journal_dir=folder, flush_timeout=0.0, **store) as client:
        guard = client.reserve(cycles.tokens(5), action=("a", "b")).acquire()
        assert guard.commit(cycles.tokens(3)).status == "pending"
        reservation = guard.reservation_id
    return str(reservation)


def spent(server: cycles.EmbeddedServer) -> int:
    return server.spent(f"tenant:{server.tenant}").amount


@pytest.mark.parametrize("form", FORMS)
def test_a_record_is_looked_at_and_settled(
    server: cycles.EmbeddedServer, address: str, environment: dict[str, str], place: str, form: str
) -> None:
    reservation = leave_pending(server, address, place, environment["CYCLES_JOURNAL_DIR"])
    environment |= {"CYCLES_JOURNAL_URL": place} if place else {}
    journal = FORMS[form]
    listed = run(environment, *journal, "list", "--json")
    assert (listed.status, [each["reservation_id"] for each in listed.records]) == (0, [reservation])
    record_id = listed.records[0]["id"]
    assert run(environment, *journal, "show", record_id[:12]).out.splitlines()[0] == f"id: {record_id}"
    exported = run(environment, *journal, "export")
    assert json.loads(exported.out)["record"]["reservation_id"] == reservation
    pending = run(environment, "-m", "cycles", "pending")
    assert (pending.status, reservation in pending.out) == (4, True)
    assert run(environment, *journal, "list", "--rejected", "--json").records == []
    assert run(environment, *journal, "retry", record_id).status == 2  # without a terminal and without --yes
    assert run(environment, *journal, "retry", record_id, "--as-event", "--yes").status == 2  # it is not rejected
    server.faults.clear()
    assert spent(server) == 0
    retried = run(environment, *journal, "retry", record_id, "--yes")
    assert (retried.status, retried.out) == (0, "1 settled, 0 pending\n"), retried.err
    assert spent(server) == 3
    pending = run(environment, "-m", "cycles", "pending")
    assert (pending.status, pending.out) == (0, "nothing is pending\n")
    shown = "".join(each.out + each.err for each in (listed, exported, pending, retried))
    assert PASSWORD not in shown
    assert server.api_key not in shown


def test_a_rejected_record_is_sent_as_an_event_and_a_discarded_one_never(
    server: cycles.EmbeddedServer, address: str, environment: dict[str, str], place: str
) -> None:
    scope, budget = f"tenant:{server.tenant}", cycles.tokens(1_000)
    server.ledger.set_budget(scope, budget, status="FROZEN")
    store = {"journal_store": place} if place else {}
    with (
        server.client(base_url=address, journal_dir=environment["CYCLES_JOURNAL_DIR"], **store) as client,
        pytest.raises(cycles.ReservationDeniedError),
    ):
        client.record(cycles.tokens(3), action=("a", "b"), idempotency_key="k1")
    environment |= {"CYCLES_JOURNAL_URL": place} if place else {}
    (rejected,) = run(environment, "-m", "cycles.journal", "list", "--rejected", "--json").records
    assert (rejected["reservation_id"], rejected["reason"]) == ("event:k1", "BUDGET_FROZEN")
    assert run(environment, "-m", "cycles.journal", "retry", rejected["id"], "--yes").status == 2
    again = run(environment, "-m", "cycles.journal", "retry", rejected["id"], "--as-event", "--yes")
    assert (again.status, spent(server)) == (1, 0), again.err
    server.ledger.set_budget(scope, budget, status="ACTIVE")
    sent = run(environment, "-m", "cycles.journal", "retry", rejected["id"], "--as-event", "--yes")
    assert (sent.status, spent(server)) == (0, 3), sent.err
    assert "(settled by hand)" in run(environment, "-m", "cycles.journal", "list", "--rejected").out
    leave_pending(server, address, place, environment["CYCLES_JOURNAL_DIR"])
    server.faults.clear()
    (left,) = run(environment, "-m", "cycles.journal", "list", "--json").records
    assert run(environment, "-m", "cycles.journal", "discard", left["id"], "--yes").status == 0
    assert run(environment, "-m", "cycles", "flush").status == 0
    assert spent(server) == 3


@pytest.mark.parametrize("url", [REDIS, POSTGRES])
def test_records_are_moved_and_settled_where_they_are(
    server: cycles.EmbeddedServer, address: str, environment: dict[str, str], url: str, tmp_path: Path
) -> None:
    store = os.environ.get(url)
    if store is None:
        pytest.skip(f"{url} is not set: make test-stores starts the server")
    leave_pending(server, address, "", environment["CYCLES_JOURNAL_DIR"])
    (before,) = tmp_path.glob("files/*/v2-*.json")
    content = before.read_bytes()
    there = run(environment, "-m", "cycles.journal", "move", environment["CYCLES_JOURNAL_DIR"], store)
    assert (there.status, "1 moved to" in there.out, PASSWORD in there.out + there.err) == (0, True, False), there
    assert not before.exists()
    back = run(environment, "-m", "cycles.journal", "move", store, (tmp_path / "other").as_uri())
    assert (back.status, "1 moved to" in back.out) == (0, True), back
    (after,) = tmp_path.glob("other/*/v2-*.json")
    assert (after.name, after.read_bytes()) == (before.name, content)
    server.faults.clear()
    environment["CYCLES_JOURNAL_URL"] = (tmp_path / "other").as_uri()
    assert len(run(environment, "-m", "cycles.journal", "list", "--json").records) == 1
    assert run(environment, "-m", "cycles.journal", "retry", "--yes").status == 0
    assert spent(server) == 3


HIDDEN = "hidden-word"
NOWHERE = {
    "redis": f"redis://:{HIDDEN}@127.0.0.1:1/0",
    "postgres": f"postgresql://u:{HIDDEN}@127.0.0.1:1/x",
}
WRONG: list[tuple[list[str], str, str]] = [
    (["show", "1234567"], "", "there is no record '1234567'"),
    (["show"], "", "ID"),
    (["no-such-command"], "", "no-such-command"),
    (["discard", "1234567", "--yes"], "", "there is no record '1234567'"),
    (["retry", "--as-event", "--yes"], "", "--as-event takes the id of a rejected record"),
    (["move", "/no/such/directory", NOWHERE["redis"]], "", "/no/such/directory is not a directory"),
    (["move", ".", f"ftp://u:{HIDDEN}@host/x"], "", "unknown scheme: 'ftp'"),
    (["move", ".", NOWHERE["redis"]], "", "Redis failed"),
    (["move", ".", NOWHERE["postgres"]], "", "no connection to PostgreSQL"),
    (["move", NOWHERE["redis"], "."], "", "Redis failed"),
    (["move", "redis://:hidden-word@127.0.0.1/no-number", "."], "", "is not a Redis URL"),
    (["list"], f"ftp://u:{HIDDEN}@host/x", "CYCLES_JOURNAL_URL is not the URL of a store"),
    (["list"], NOWHERE["redis"], "Redis failed"),
    (["export"], NOWHERE["postgres"], "no connection to PostgreSQL"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("words", "store", "message"), WRONG)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    environment: dict[str, str], tmp_path: Path, form: str, words: list[str], store: str, message: str
) -> None:
    pytest.importorskip("redis")
    pytest.importorskip("psycopg")
    environment |= {"CYCLES_JOURNAL_URL": store} if store else {}
    (tmp_path / "empty").mkdir()
    ran = run(environment, *FORMS[form], *(str(tmp_path / "empty") if word == "." else word for word in words))
    assert (ran.status, message in ran.err) == (2, True), ran
    assert "hidden-word" not in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_a_store_whose_owner_is_not_configured_is_named(environment: dict[str, str]) -> None:
    """Otherwise `nothing is pending` would be false."""
    environment |= {"CYCLES_JOURNAL_URL": NOWHERE["redis"], "CYCLES_BASE_URL": ""}
    ran = run(environment, "-m", "cycles.journal", "list")
    assert (ran.status, ran.out) == (0, "no unsettled record\n")
    assert "the records in redis://[hidden]@127.0.0.1:1/0 are not shown: set CYCLES_BASE_URL" in ran.err


@pytest.mark.parametrize(("place", "more"), [(REDIS, "?replicas=0"), (POSTGRES, "?create=false")], indirect=["place"])
def test_a_move_into_the_same_store_under_another_url_deletes_nothing(
    server: cycles.EmbeddedServer, address: str, environment: dict[str, str], place: str, more: str
) -> None:
    leave_pending(server, address, place, environment["CYCLES_JOURNAL_DIR"])
    ran = run(environment, "-m", "cycles.journal", "move", place, place + more)
    assert (ran.status, "both places are the same" in ran.err, PASSWORD in ran.err) == (2, True, False), ran
    environment["CYCLES_JOURNAL_URL"] = place
    assert len(run(environment, "-m", "cycles.journal", "list", "--json").records) == 1
