"""`cycles reconcile --import`: what is on the bill only is charged once, whoever runs it, and however often."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from datetime import timedelta
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import cycles
from cycles.billing import _compare, _ledger
from cycles.billing._imports import Importer
from cycles.billing._rows import BillRow
from cycles.cli.reconcile import MOST_IMPORT_DAYS
from tests.operators.admin_apis import CENT, AdminApis, Billed, Ledger, ago, today
from tests.operators.kit import ROOT, environment, processes
from tests.operators.test_reconcile import DOLLAR, Reconcile, apis as apis, ledger as ledger, reconcile as reconcile
from tests.support.short import fewer

IMPORT = ("--import", "--yes", "--json")


def listed(ledger: Ledger) -> list[Any]:
    """Return the imports that the server lists, without the claims."""
    rows = ledger.client.reservations(status="COMMITTED", include=("metadata", "committed_metadata"))
    return [row for row in rows if row.action.kind == "llm.imported"]


def test_days_whose_imports_a_server_soon_lists_no_more_are_not_imported(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger
) -> None:
    first = MOST_IMPORT_DAYS
    for until in ((), ("--until", ago(first - 1).isoformat())):
        late = reconcile(*IMPORT, "--since", ago(first + 1).isoformat(), *until)
        assert late.status == 2
        assert f"write {ago(first)} or later" in late.err + late.out
        assert reconcile(*IMPORT, "--since", ago(first).isoformat(), *until).status == 0


def test_a_difference_is_charged_once_and_later_what_the_bill_has_grown_by(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger
) -> None:
    day = ago(2)
    ledger.spend(day, "gpt-4o", "1")
    apis.bill = [Billed(day=day, model="gpt-4o-2024-08-06", amount="4", calls=4)]
    ran = reconcile(*IMPORT)
    assert ran.status == 0
    [done] = ran.document["imports"]
    reservation_id = done.pop("reservation_id")
    assert done == {
        "day": day.isoformat(),
        "model": "gpt-4o",
        "amount": 3 * DOLLAR,
        "charged": 3 * DOLLAR,
        "status": "imported",
    }
    [row] = ran.document["rows"]
    assert (row["imported"], row["difference"], row["ok"], row["causes"]) == (3 * DOLLAR, 0, True, [])
    assert (ran.document["imported"], ran.document["difference"]) == (3 * DOLLAR, 0)
    [charged] = listed(ledger)
    assert charged.reservation_id == reservation_id
    assert (charged.action.kind, charged.action.name) == ("llm.imported", "gpt-4o")
    assert charged.idempotency_key == f"reconcile:openai:{day}:gpt-4o:{DOLLAR}:{3 * DOLLAR}"
    assert charged.metadata == {"provider": "openai", "day": day.isoformat()}
    assert charged.reserved == cycles.usd(0)
    assert ledger.spent == 4 * DOLLAR
    again = reconcile(*IMPORT)
    assert (again.status, again.document["imports"]) == (0, [])
    assert ledger.spent == 4 * DOLLAR
    apis.bill = [Billed(day=day, model="gpt-4o-2024-08-06", amount="4.5", calls=5)]
    [grown] = reconcile(*IMPORT).document["imports"]
    assert (grown["amount"], grown["charged"]) == (50 * CENT, 50 * CENT)
    assert ledger.spent == 450 * CENT
    keys = [row.idempotency_key for row in listed(ledger)]
    assert f"reconcile:openai:{day}:gpt-4o:{4 * DOLLAR}:{50 * CENT}" in keys


def test_the_difference_of_a_subject_is_that_to_its_own_reservations(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger
) -> None:
    ledger.spend(ago(2), "gpt-4o", "1", subject={"agent": "planner"})
    ledger.spend(ago(2), "gpt-4o", "2", subject={"agent": "writer"})
    apis.bill = [Billed(day=ago(2), model="gpt-4o", amount="4", calls=4)]
    [done] = reconcile(*IMPORT, "--subject", "agent=planner").document["imports"]
    assert done["amount"] == 3 * DOLLAR


def test_what_is_never_imported(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    """An edge of a day, a line without a model, what the ledger has more, and what is within the tolerance."""
    ledger.spend(ago(4), "gpt-4o", "1", hours=23.99)
    ledger.spend(ago(2), "gpt-5", "3")
    ledger.spend(ago(1), "o3", "1")
    apis.bill = [
        Billed(day=ago(4), model="gpt-4o", amount="0", calls=0),
        Billed(day=ago(3), model="gpt-4o", amount="1"),
        Billed(day=ago(2), model="gpt-5", amount="1"),
        Billed(day=ago(2), model=None, amount="5", item="Vector storage"),
        Billed(day=ago(1), model="o3", amount="1.0001"),
    ]
    before = ledger.spent
    ran = reconcile(*IMPORT)
    assert (ran.status, ran.document["imports"]) == (4, [])
    assert ledger.spent == before
    assert listed(ledger) == []


def test_a_budget_that_has_less(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.go_to(ago(1))
    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(2))
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="3", calls=3)]
    ran = reconcile(*IMPORT)
    [done] = ran.document["imports"]
    assert (ran.status, done["status"], done["charged"]) == (4, "partly", 2 * DOLLAR)
    [row] = ran.document["rows"]
    assert (row["imported"], row["difference"], row["ok"]) == (2 * DOLLAR, DOLLAR, False)
    for _ in range(2):
        ran = reconcile(*IMPORT)
        [done] = ran.document["imports"]
        assert (ran.status, done["status"], done["charged"], done["reservation_id"]) == (4, "denied", 0, None)
    assert ledger.spent == 2 * DOLLAR
    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(10), spent=2 * DOLLAR)
    ran = reconcile(*IMPORT)
    assert (ran.status, ran.document["imports"][0]["charged"]) == (0, DOLLAR)
    assert ledger.spent == 3 * DOLLAR


@pytest.mark.parametrize("left", [4, 3], ids=["all fit", "one does not"])
def test_every_row_is_compared_again_after_its_import(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, left: int
) -> None:
    ledger.go_to(ago(1))
    ledger.server.ledger.set_budget("tenant:acme", cycles.usd(left))
    models = {"gpt-4o": 1, "gpt-5": 2, "o3": 1}
    apis.bill = [Billed(day=ago(1), model=model, amount=str(cost)) for model, cost in models.items()]
    ran = reconcile(*IMPORT)
    assert ran.status == (0 if left == 4 else 4)
    assert [row["ok"] for row in ran.document["rows"]].count(False) == 4 - left
    assert sum(row["imported"] for row in ran.document["rows"]) == left * DOLLAR
    assert [done["charged"] > 0 for done in ran.document["imports"]].count(True) >= 2
    assert ledger.spent == left * DOLLAR


def test_an_import_is_charged_to_the_subject(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.go_to(ago(1))
    ledger.server.ledger.set_budget("tenant:acme/agent:planner", cycles.usd(5))
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="1")]
    assert reconcile("--subject", "agent=planner", *IMPORT).status == 0
    assert ledger.server.spent("tenant:acme/agent:planner").amount == DOLLAR
    assert reconcile("--subject", "agent=planner", *IMPORT).document["imports"] == []


def test_anthropic_imports_with_its_name(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.go_to(ago(1))
    apis.bill = [Billed(day=ago(1), model="claude-opus-4-20250514", amount="1")]
    assert reconcile(*IMPORT, provider="anthropic").status == 0
    [row] = listed(ledger)
    assert row.metadata == {"provider": "anthropic", "day": ago(1).isoformat()}
    apis.bill = []
    assert reconcile(*IMPORT, provider="openai").document["rows"] == []


def test_an_import_that_lost_its_response_is_charged_once(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0.1")
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="1")]
    ledger.server.faults.drop_response("commit", times=None)
    assert reconcile(*IMPORT).status == 3
    ledger.server.faults.clear()
    assert reconcile(*IMPORT).status == 0
    assert ledger.spent == DOLLAR


def test_text_of_an_import(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="1.5")]
    ran = reconcile("--import", "--yes")
    assert ran.out.splitlines()[:2] == [
        f"{ago(1)}  gpt-4o  $1.5000 of $1.5000 charged: imported",
        "7 days, 1 model: bill $1.5000, ledger $0.0000, imported $1.5000; 0 of 1 row differ by more than 0.1%",
    ]


@processes
def test_two_processes_charge_once(apis: AdminApis, ledger: Ledger) -> None:
    command = [sys.executable, "-m", "cycles", "reconcile", "--provider", "openai", "--upstream", apis.url, *IMPORT]
    for dollars in ("4", "5.5", "7.25"):
        apis.bill = [
            Billed(day=ago(days), model=model, amount=dollars, calls=3) for days in (1, 2) for model in ("gpt-4o", "o3")
        ]
        both = [
            subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        outputs = [process.communicate(timeout=300)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert ledger.spent == 4 * cycles.usd(dollars).amount
        assert all(json.loads(output)["ok"] for output in outputs)


class Gate:
    """Lets two imports take turns at each request, in an order that a test draws; no clock and no sleep."""

    def __init__(self, order: list[bool]) -> None:
        self._order = order
        self._changed = threading.Condition()
        self._running = {0, 1}

    def pass_through(self, which: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._may_go(which), timeout=60)
            if self._order:
                self._order.pop(0)
            self._changed.notify_all()

    def _may_go(self, which: int) -> bool:
        return not self._order or int(self._order[0]) == which or int(self._order[0]) not in self._running

    def leave(self, which: int) -> None:
        with self._changed:
            self._running.discard(which)
            self._changed.notify_all()


class Turns:
    """The client of one of two imports: each of its requests waits for its turn."""

    def __init__(self, client: cycles.Cycles, gate: Gate, which: int) -> None:
        self._client = client
        self._gate = gate
        self._which = which

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._gate.pass_through(self._which)
            return found(*args, **kwargs)

        return call


bills = st.lists(st.integers(0, 500), min_size=1, max_size=4)


@settings(max_examples=fewer(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(growth=bills, later=st.lists(st.integers(0, 200), min_size=4, max_size=4), data=st.data())
def test_two_imports_at_the_same_time_charge_what_the_bill_has(
    growth: list[int], later: list[int], data: st.DataObject
) -> None:
    """One of them may have read a later bill, and their requests come in any order."""
    day, ledger = ago(1), Ledger(days=3)
    ledger.spend(day, "gpt-4o", "0.01")
    billed = CENT
    try:
        for step, more in enumerate(growth):
            billed += more * CENT
            seen = [billed, billed + later[step] * CENT]
            order = data.draw(st.lists(st.booleans(), min_size=0, max_size=40))
            _import_both(ledger, day.isoformat(), seen, order)
            billed = max(seen)
            assert ledger.spent <= billed
            # The next run, alone, charges what is left.
            _import_both(ledger, day.isoformat(), [billed], [])
            assert ledger.spent == billed
        assert ledger.spent >= (sum(growth) + 1) * CENT
    finally:
        ledger.close()


def _import_both(ledger: Ledger, day: str, bills: list[int], order: list[bool]) -> None:
    gate = Gate(order)
    failures: list[BaseException] = []

    def run(which: int, amount: int) -> None:
        try:
            with ledger.server.client(tenant="acme", journal=False) as plain:
                client: Any = Turns(plain, gate, which)
                names = _ledger.Names("openai", frozenset({"gpt-4o"}), {})
                since = ago(1)
                side = _ledger.read(client, names, since, since + timedelta(days=1))
                bill = [BillRow(day=day, model="gpt-4o", amount=Fraction(amount), calls=9)]
                for row in _compare.compare(bill, side, Fraction(0)):
                    if row.may_be_imported:
                        Importer(client, "openai").run(row)
        except BaseException as error:
            failures.append(error)
        finally:
            gate.leave(which)

    if len(bills) == 1:
        gate.leave(1)
    workers = [threading.Thread(target=run, args=(which, amount)) for which, amount in enumerate(bills)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert failures == []


@settings(max_examples=fewer(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["whole", "claimed", "reserved"])), max_size=5))
def test_an_import_that_was_killed_blocks_no_other(steps: list[tuple[int, str]]) -> None:
    """It may end after its claim, or after its reservation."""
    day, ledger = ago(1).isoformat(), Ledger(days=3)
    ledger.go_to(ago(1))
    billed = 0
    try:
        for more, end in [*steps, (1, "whole")]:
            billed += more * CENT
            _import_until(ledger, day, billed, end)
        assert ledger.spent == billed
    finally:
        ledger.close()


class _Killed(BaseException):
    pass


def _import_until(ledger: Ledger, day: str, amount: int, end: str) -> None:
    names = _ledger.Names("openai", frozenset({"gpt-4o"}), {})
    side = _ledger.read(ledger.client, names, ago(1), today())
    bill = [BillRow(day=day, model="gpt-4o", amount=Fraction(amount), calls=9)]
    stops = {"claimed": "release_reservation", "reserved": "commit_reservation"}

    class Dying:
        def __getattr__(self, name: str) -> Any:
            if name == stops.get(end):
                raise _Killed
            return getattr(ledger.client, name)

    dying: Any = Dying()
    for row in _compare.compare(bill, side, Fraction(0)):
        if row.may_be_imported:
            with contextlib.suppress(_Killed):
                Importer(dying, "openai").run(row)


def test_a_process_that_finds_a_claim_imports_what_its_owner_has_claimed() -> None:
    """Else both charge the difference: the key of an import names the sum that its process has read in the ledger."""
    ledger = Ledger(days=3)
    ledger.go_to(ago(1))
    day = ago(1).isoformat()
    names = _ledger.Names("openai", frozenset({"gpt-4o"}), {})

    def run(client: Any, bill: int) -> None:
        bills = [BillRow(day=day, model="gpt-4o", amount=Fraction(bill), calls=9)]
        [row] = _compare.compare(bills, _ledger.read(ledger.client, names, ago(1), today()), Fraction(0))
        Importer(client, "openai").run(row)

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.client, name)

        def release_reservation(self, *arguments: Any, **options: Any) -> Any:
            """Release the claim; before this process continues, a call is charged, and another process imports."""
            released = ledger.client.release_reservation(*arguments, **options)
            ledger.spend(ago(1), "gpt-4o", "0.30")
            run(ledger.client, 150 * CENT)
            return released

    try:
        run(Slow(), 100 * CENT)
        assert ledger.spent == 150 * CENT
    finally:
        ledger.close()


@pytest.mark.parametrize("expired", [1, 2, 3])
def test_an_import_whose_reservation_expired_is_made_again(expired: int) -> None:
    ledger = Ledger(days=3)
    ledger.go_to(ago(1))
    day = ago(1).isoformat()
    try:
        for _ in range(expired):
            _import_until(ledger, day, DOLLAR, "reserved")
            ledger.clock.advance(3_600_000)
        _import_until(ledger, day, DOLLAR, "whole")
        assert ledger.spent == DOLLAR
    finally:
        ledger.close()


def test_an_import_whose_reservation_expires_after_the_ledger_was_read_is_not_counted_as_charged() -> None:
    ledger = Ledger(days=3)
    ledger.go_to(ago(1))
    day = ago(1).isoformat()
    try:
        _import_until(ledger, day, DOLLAR, "reserved")
        side = _ledger.read(ledger.client, _ledger.Names("openai", frozenset({"gpt-4o"}), {}), ago(1), today())
        [row] = _compare.compare(
            [BillRow(day=day, model="gpt-4o", amount=Fraction(DOLLAR), calls=9)], side, Fraction(0)
        )
        ledger.clock.advance(3_600_000)
        [done] = Importer(ledger.client, "openai").run(row)
        assert (done.status, done.charged, row.difference, ledger.spent) == ("denied", 0, DOLLAR, 0)
        [again] = Importer(ledger.client, "openai").run(row)
        assert (again.status, again.charged, row.difference, ledger.spent) == ("imported", DOLLAR, 0, DOLLAR)
    finally:
        ledger.close()


def test_the_day_of_an_import_is_the_one_of_its_metadata(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    """It was made days later, and belongs to the day whose bill it charges."""
    ledger.go_to(ago(1))
    apis.bill = [Billed(day=ago(6), model="gpt-4o", amount="2")]
    assert reconcile(*IMPORT).status == 0
    [row] = reconcile("--json").document["rows"]
    assert (row["day"], row["imported"], row["ledger"]) == (ago(6).isoformat(), 2 * DOLLAR, 0)
    ran = reconcile("--json", "--until", ago(5).isoformat())
    assert (ran.status, ran.document["rows"][0]["imported"]) == (0, 2 * DOLLAR)


class Claimed:
    """A client whose server has claims of other imports, each as the metadata of its reservation."""

    def __init__(self, *claims: Any, charges: int = 10**9) -> None:
        self._claims = list(claims)
        self._charges = charges
        self.committed: list[tuple[str, int]] = []

    def decide(self, amount: cycles.Amount, **_: Any) -> Any:
        return SimpleNamespace(allowed=amount.amount <= self._charges)

    def reserve(self, amount: cycles.Amount, *, metadata: dict[str, Any], **_: Any) -> Any:
        def acquire() -> Any:
            if "claims" in metadata and self._claims:
                raise cycles.ProtocolError("another body", status=409, code="IDEMPOTENCY_MISMATCH")
            return SimpleNamespace(reservation_id="r", detach=lambda: "token")

        return SimpleNamespace(acquire=acquire)

    def release_reservation(self, reservation_id: str, reason: str, *, idempotency_key: str) -> None:
        pass

    def reservations(self, **_: Any) -> Any:
        return iter([SimpleNamespace(metadata=self._claims.pop(0))])

    def commit_reservation(self, reservation_id: str, amount: cycles.Amount, *, idempotency_key: str, **_: Any) -> Any:
        charged = min(amount.amount, self._charges)
        self._charges -= charged
        self.committed.append((idempotency_key.removeprefix("reconcile:openai:2026-11-24:m:"), charged))
        return SimpleNamespace(status="COMMITTED", charged=cycles.Amount(amount.unit, charged))


def row_of(bill: int, ledger: int = 0) -> Any:
    return _compare.Row(day="2026-11-24", model="m", bill=bill, ledger=ledger, bill_calls=1, ledger_calls=0)


@pytest.mark.parametrize(
    ("others", "committed", "left"),
    [
        ([], [("2:8", 8)], 0),
        ([[0, 3]], [("0:3", 3), ("5:5", 5)], 0),
        ([[0, 1], [1, 1], [2, 1], [3, 1]], [("0:1", 1), ("1:1", 1), ("2:1", 1), ("3:1", 1), ("6:4", 4)], 0),
        ([[n, 1] for n in range(6)], [(f"{n}:1", 1) for n in range(5)], 3),  # the next run continues
        ([[0, 8]], [("0:8", 8)], 0),  # as much as this one wants, from a ledger that had less
        ([[0, 9]], [], 8),  # another process has read a later bill
    ],
)
def test_one_run_ends_the_imports_that_others_have_claimed(others: list[Any], committed: list[Any], left: int) -> None:
    row, client = row_of(10, 2), Claimed(*({"claims": claim} for claim in others))
    as_client: Any = client
    found = Importer(as_client, "openai").run(row)
    assert client.committed == committed
    assert [(each.amount, each.charged, each.status) for each in found] == [
        (amount, amount, "imported") for _, amount in committed
    ]
    assert (row.difference, row.imports.done, row.imports.failed) == (left, len(committed), 0)


@pytest.mark.parametrize(
    "metadata",
    [None, {}, *({"claims": claim} for claim in (None, 5, [], [1], [0, 1, 2], [True, 1], ["0", 1], [0, 1.5]))],
)
def test_a_claim_that_no_import_made_is_an_error(metadata: Any) -> None:
    client: Any = Claimed(metadata)
    with pytest.raises(cycles.ProtocolError) as caught:
        Importer(client, "openai").run(row_of(10))
    assert (caught.value.code, client.committed) == ("IDEMPOTENCY_MISMATCH", [])


@pytest.mark.parametrize(
    ("charges", "status", "charged", "counts"),
    [(8, "imported", 8, (1, 0)), (7, "partly", 7, (1, 0)), (0, "denied", 0, (0, 0))],
)
def test_a_row_whose_budget_has_less_is_tried_once(
    charges: int, status: str, charged: int, counts: tuple[int, int]
) -> None:
    row, client = row_of(8), Claimed(charges=charges)
    as_client: Any = client
    [done] = Importer(as_client, "openai").run(row)
    assert (done.status, done.amount, done.charged) == (status, 8, charged)
    assert (row.imports.amount, row.imports.done, row.imports.failed) == (charged, *counts)
    assert len(client.committed) == counts[0]
