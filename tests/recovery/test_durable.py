"""Recovery profile, durable: processes die, keys change, files break, and each amount is charged exactly once."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._journal.records import Records
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, TENANT, Setup, end_of, journal_files, records_in

UNAVAILABLE = 503


def sent(world: Setup) -> list[str]:
    return [seen.operation for seen in world.server.settling()]


def one_key(world: Setup) -> bool:
    return len({seen.key for seen in world.server.settling()}) == 1


def without_check(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as a writer leaves it that adds no check."""
    return {name: value for name, value in record.items() if name != "check"}


@pytest.mark.parametrize("answered", [False, True], ids=["on its way", "done, answer on its way"])
@pytest.mark.parametrize("commit", ["commit", "commit_async"])
def test_cr_durable_001_killed_with_the_first_commit_in_flight(world: Setup, commit: str, answered: bool) -> None:
    if not answered:
        world.server.faults.refuse("commit")
    world.killed_at("commit", (commit, 42), answered=answered)
    assert world.server.charged == (42 if answered else 0)
    first = world.server.settling()[0]
    assert [record["commit_body"] for record in first.journal] == [first.body]  # on disk before it was sent
    assert world.recover() == {"settled": 1, "pending": 0, "quarantined": 0}
    assert sent(world) == ["commit", "commit"]
    assert one_key(world)
    assert world.server.charged == 42
    assert world.leftovers == []


@pytest.mark.parametrize("answered", [False, True], ids=["on its way", "done, answer on its way"])
def test_cr_durable_002_killed_with_the_event_of_an_expired_commit_in_flight(
    manual_world: Setup, answered: bool
) -> None:
    world = manual_world
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    world.server.clock.advance(3_600_000)
    if not answered:
        world.server.faults.refuse("event")
    world.killed_at("event", ("flush", PATIENCE_S), answered=answered)
    event = world.server.settling()[-1]
    assert [record["mode"] for record in event.journal] == ["event"]  # on disk before it was sent
    assert event.journal[0]["event_fallback_body"] == event.body
    assert world.recover()["settled"] == 1
    assert sent(world) == ["commit", "commit", "event", "event"]
    assert one_key(world)
    assert world.server.charged == 42
    assert world.leftovers == []


def test_cr_durable_003_a_restart_respects_the_time_a_429_gave(world: Setup) -> None:
    throttled = {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}
    world.server.faults.status("commit", 429, body=throttled, headers={"Retry-After": "600"})
    before = time.time() * 1000
    assert world.run(("commit", 42), ("die",)).killed
    (path,) = journal_files(world.root)
    record = json.loads(path.read_bytes())
    assert before + 600_000 <= record["not_before_ms"] <= time.time() * 1000 + 600_000
    # Restarted before the time is up: not tried, kept, and the flush does not wait in vain.
    assert world.recover(timeout_s=20.0) == {"settled": 0, "pending": 1, "quarantined": 0}
    assert sent(world) == ["commit"]
    # Restarted shortly before the time is up: tried then, and not a moment earlier.
    not_before_ms = int(time.time() * 1000) + 700
    path.write_text(json.dumps({**without_check(record), "not_before_ms": not_before_ms}))
    arrived: list[float] = []
    world.server.on_arrival = lambda seen: arrived.append(time.time() * 1000)
    assert world.recover()["settled"] == 1
    assert arrived[0] >= not_before_ms
    assert sent(world) == ["commit", "commit"]
    assert one_key(world)
    assert world.leftovers == []


def test_cr_durable_004_a_rotated_key_finds_the_records_of_its_tenant(world: Setup) -> None:
    world.server.ledger.set_api_key("cyc_old_key", tenant=TENANT)
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42), api_key="cyc_old_key")
    for path in journal_files(world.root):
        assert b"cyc_old_key" not in path.read_bytes()
        assert "cyc_old_key" not in str(path)
    world.server.ledger.set_api_key("cyc_old_key", tenant=TENANT, status="REVOKED")
    world.server.ledger.set_api_key("cyc_new_key", tenant=TENANT)
    assert world.recover(api_key="cyc_new_key")["settled"] == 1
    assert [seen.api_key for seen in world.server.settling()] == ["cyc_old_key", "cyc_new_key"]
    assert one_key(world)
    assert world.server.charged == 42
    assert world.leftovers == []


def test_a_revoked_key_keeps_the_record_until_a_good_one_comes(world: Setup) -> None:
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    assert world.recover(timeout_s=20.0, api_key="cyc_unknown")["pending"] == 1
    assert world.leftovers != []
    assert world.recover()["settled"] == 1
    assert world.server.charged == 42


def test_without_a_tenant_the_key_is_the_principal(world: Setup) -> None:
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit_subject", 42), tenant=None)
    world.server.ledger.set_api_key("cyc_other_key", tenant=TENANT)
    assert world.recover(tenant=None, api_key="cyc_other_key")["settled"] == 0
    assert world.recover(tenant=None)["settled"] == 1


def test_cr_durable_005_broken_and_unknown_records_are_quarantined_and_the_others_replay(world: Setup) -> None:
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    (valid,) = journal_files(world.root)
    broken = valid.with_name("v2-" + "0" * 64 + ".json")
    unknown = valid.with_name("v2-" + "1" * 64 + ".json")
    broken.write_bytes(valid.read_bytes()[:-20])
    unknown.write_text(json.dumps({**json.loads(valid.read_bytes()), "version": 99}))
    kept = {broken.read_bytes(), unknown.read_bytes()}
    ended = world.run(("flush", PATIENCE_S))
    assert ended.done == [{"settled": 1, "pending": 0, "quarantined": 2}]
    assert ended.answer is not None
    assert ended.answer["events"].count("JournalProblem") == 2
    assert sent(world) == ["commit", "commit"]
    assert {path.read_bytes() for path in journal_files(world.root)} == kept
    assert not [name for name in world.leftovers if name.endswith(".json")]
    assert world.server.charged == 42


def test_cr_durable_006_two_workers_replay_one_record_at_the_same_time(world: Setup) -> None:
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    with socket.create_server(("127.0.0.1", 0)) as meeting:
        meeting.settimeout(PATIENCE_S)
        port = meeting.getsockname()[1]
        workers = [world.start(("flush", PATIENCE_S), meet=port) for _ in range(2)]
        ready = [meeting.accept()[0] for _ in workers]  # both have the record in hand, and have sent nothing
        for starter in ready:
            starter.close()
    assert [end_of(worker).done[0]["pending"] for worker in workers] == [0, 0]
    assert sent(world) == ["commit"] * 3
    assert one_key(world)
    assert world.server.charged == 42
    assert world.leftovers == []


def test_cr_durable_007_a_record_under_a_legacy_name_is_settled(world: Setup) -> None:
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    (path,) = journal_files(world.root)
    path.rename(path.with_name("some_old_name.json"))
    assert world.recover()["settled"] == 1
    assert world.server.charged == 42
    assert world.leftovers == []


def test_cr_durable_007_ids_that_look_alike_never_share_a_file(world: Setup) -> None:
    """A record is identified by its exact id: a look-alike's legacy file is neither overwritten nor removed."""
    world.server.faults.refuse("commit", times=2)
    world.killed_at("commit", ("commit", 42))
    (path,) = journal_files(world.root)
    record = json.loads(path.read_bytes())
    two_days_ms = 2 * 86_400_000  # older than a lost reservation may be to become an event
    look_alike = {
        **without_check(record),
        "reservation_id": record["reservation_id"].upper() + "x",
        "recorded_at_ms": record["recorded_at_ms"] - two_days_ms,
    }
    legacy = path.with_name("legacy.json")
    legacy.write_text(json.dumps(look_alike))
    # The ledger does not know the look-alike: its amount is kept. The other one is settled, not mixed up.
    assert world.recover()["settled"] == 1
    assert world.server.charged == 42
    assert world.leftovers == []
    assert world.rejected == [("may_be_charged", 42)]


def test_an_event_without_a_reservation_survives_too(world: Setup) -> None:
    world.server.faults.refuse("event")
    world.killed_at("event", ("record", 42))
    first = world.server.settling()[0]
    assert [record["reservation_id"] for record in first.journal] == [f"event:{first.key}"]
    assert world.recover()["settled"] == 1
    assert sent(world) == ["event", "event"]
    assert one_key(world)
    assert world.server.charged == 42
    assert world.leftovers == []


def test_a_record_of_a_sibling_sdk_is_settled(world: Setup, tmp_path: Path) -> None:
    """Spaces, no event body, an unknown member, and a name in another scheme: what a team that moves over has."""
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    (path,) = journal_files(world.root)
    theirs = {**without_check(json.loads(path.read_bytes())), "event_fallback_body": None, "written_by": "another SDK"}
    path.write_text(json.dumps(theirs, indent=2))
    assert world.recover()["settled"] == 1
    assert world.server.charged == 42
    assert records_in(world.root) == []


def test_an_expired_record_without_an_event_stays_in_the_journal(manual_world: Setup) -> None:
    """Another SDK's record may lack it; there is nothing to send any more, and nothing is thrown away."""
    world = manual_world
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    (path,) = journal_files(world.root)
    path.write_text(json.dumps({**without_check(json.loads(path.read_bytes())), "event_fallback_body": None}))
    world.server.clock.advance(3_600_000)
    assert world.recover(timeout_s=20.0)["pending"] == 1
    assert [record["commit_body"]["actual"]["amount"] for record in records_in(world.root)] == [42]


def test_a_record_that_cannot_be_sent_is_quarantined_and_delays_no_other(world: Setup) -> None:
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42))
    (path,) = journal_files(world.root)
    poison = {**json.loads(path.read_bytes()), "reservation_id": ".."}
    path.with_name("poison.json").write_text(json.dumps(poison))
    assert world.recover() == {"settled": 1, "pending": 0, "quarantined": 1}
    assert world.server.charged == 42


def test_an_event_that_is_interrupted_before_it_is_saved_is_saved_before_it_is_sent(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Records, "put", interrupted)
    with world.client() as client:
        with pytest.raises(KeyboardInterrupt):
            client.record(cycles.tokens(42), action=ACTION)
        assert client.flush(PATIENCE_S).pending == 0
    (seen,) = world.server.settling()
    assert [record["event_fallback_body"] for record in seen.journal] == [seen.body]
    assert (world.server.charged, world.leftovers) == (42, [])
