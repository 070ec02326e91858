"""The steps of a reserve and of an attach in their order: requests, approval, owner, heartbeat, reports and cleanup."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.messages.outcome import Outcome, Success
from cycles._core.results import ReservationCreateResponse, ReservationDetail
from cycles._core.settlement.record import Record, file_name
from cycles._flows.io import CleanUp, run
from cycles._flows.reserve import clean_up_create, create_call, open_lease
from cycles._flows.transfer import attach, deserialize, found, serialize
from tests.support.scripted_io import (
    LOST,
    SCOPE,
    UNSENT,
    ScriptedIo,
    allowed,
    extended,
    rejected,
    request_of,
    success,
    tokens,
)

Act = Callable[[ScriptedIo], Coroutine[Any, Any, Any]]
STOP = KeyboardInterrupt()


class Case:
    def __init__(self, *responses: Outcome | BaseException, act: Act | None = None, **script: Any) -> None:
        self.request = script.pop("request", {})
        self.unfinished = script.pop("unfinished", ())
        self.act = act or self.reserve
        self.script = responses, script

    async def reserve(self, io: ScriptedIo) -> str:
        guard = await open_lease(io.io, request_of(**self.request), io.take)
        return f"{guard.state} {guard.reservation_id or guard.unreachable_detail}"

    def run(self) -> ScriptedIo:
        responses, script = self.script
        io = ScriptedIo(responses, **script)
        io.unfinished = frozenset(map(file_name, self.unfinished))
        io.run(self.act(io))
        return io


def denied(**changes: Any) -> Outcome:
    return success(**{"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "expires_at_ms": 1, **changes})


def detail(status: str, **changes: Any) -> Success:
    body: dict[str, Any] = {
        "reservation_id": "r1",
        "status": status,
        "idempotency_key": "mine",
        "reserved": tokens(100),
    }
    body |= {"created_at_ms": 1, "expires_at_ms": 2, "scope_path": SCOPE, "affected_scopes": [SCOPE]}
    return success(**body, subject={"tenant": "acme"}, action={"kind": "test", "name": "work"}, **changes)


def cleaning(io: ScriptedIo) -> Coroutine[Any, Any, Any]:
    async def clean_up() -> str:
        return type(await clean_up_create(io.io, create_call(request_of(), "key-1", io.give()))).__name__

    return clean_up()


def attaching(spend: int | None = None, *, is_held: bool = True, shadow: bool = False) -> Act:
    async def act(io: ScriptedIo) -> str:
        guard = ScriptedIo().guard(shadow=shadow)
        if spend is not None:
            guard.spend(cycles.tokens(spend))
        guard.usage.add(tokens_input=3, custom={"pages": 2})
        serialized = deserialize(serialize(guard), None, None)
        if not is_held:
            serialized = evolve(serialized, created=None)
        if shadow:  # also if a server names a reservation in the response to a dry run
            serialized = evolve(serialized, created=ReservationCreateResponse.read(allowed().body))
        attached = await attach(io.io, serialized, io.take)
        is_following = guard.attached is attached
        return f"{attached.state} {attached.known} {attached.usage.tokens_input} {is_following}"

    return act


MINE: dict[str, Any] = {"idempotency_key": "mine"}
ALLOWS = {"on_unavailable": "allow"}
WAITS = {"wait": 10.0}
TOO_MUCH = rejected(409, "BUDGET_EXCEEDED")
LIMITED = rejected(429, "LIMIT_EXCEEDED", retry_after_ms=3_000)
NO_ID = allowed(reservation_id=None)
OBSERVED = success(decision="DENY", reason_code="BUDGET_EXCEEDED", affected_scopes=[SCOPE])
PENDING = {"r1": Record(reservation_id="r1", base_url="http://x", commit_body={"actual": tokens(42)})}
CASES: dict[str, tuple[Case, str]] = {
    "allowed": (
        Case(allowed()),
        """
        ensure journal > approve > send reserve > take > schedule 49000 > report Reserved > trace of active
        guard opens > return active r1
        """,
    ),
    "allowed with caps": (
        Case(allowed(decision="ALLOW_WITH_CAPS")),
        """
        ensure journal > approve > send reserve > take > schedule 49000 > report Reserved > trace of active
        guard opens > return active r1
        """,
    ),
    "allowed, and the kind is deprecated": (
        Case(evolve(allowed(), replacement_kind="new")),
        """
        ensure journal > approve > send reserve > report ActionKindDeprecated > take > schedule 49000 >
        report Reserved > trace of active guard opens > return active r1
        """,
    ),
    "a decision to deny": (
        Case(denied()),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: BudgetExceededError
        > raise BudgetExceededError
        """,
    ),
    "a decision to deny that its caller reports": (
        Case(denied(), request={"reports_denial": False}),
        """
        ensure journal > approve > send reserve > trace without a guard: BudgetExceededError > raise
        BudgetExceededError
        """,
    ),
    "denied": (
        Case(TOO_MUCH),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: BudgetExceededError
        > raise BudgetExceededError
        """,
    ),
    "denied, with allow": (
        Case(TOO_MUCH, request=ALLOWS),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: BudgetExceededError
        > raise BudgetExceededError
        """,
    ),
    "a rate limit, with allow": (
        Case(LIMITED, request=ALLOWS),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: RateLimitedError >
        raise RateLimitedError
        """,
    ),
    "an unknown decision": (
        Case(denied(decision="MAYBE")),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: BudgetExceededError
        > raise BudgetExceededError
        """,
    ),
    "an unknown decision that has reserved": (
        Case(allowed(decision="MAYBE"), success(status="RELEASED", released=tokens(100))),
        """
        ensure journal > approve > send reserve > send release > report Released > report Denied > trace
        without a guard: ReservationDeniedError > raise ReservationDeniedError
        """,
    ),
    "an unknown decision, and the release fails": (
        Case(allowed(decision="MAYBE"), LOST),
        """
        ensure journal > approve > send reserve > send release > report ReleaseFailed > queue Release later
        > report Denied > trace without a guard: ReservationDeniedError > raise ReservationDeniedError
        """,
    ),
    "no response at first": (
        Case(LOST, allowed()),
        """
        ensure journal > approve > send reserve > send reserve > take > schedule 49000 > report Reserved >
        trace of active guard opens > return active r1
        """,
    ),
    "no response": (
        Case(LOST, LOST),
        """
        ensure journal > approve > send reserve > send reserve > queue CleanUp later > trace without a
        guard: TransportError > raise TransportError
        """,
    ),
    "no response and no repetition": (
        Case(LOST, request={"max_retries": 0}),
        """
        ensure journal > approve > send reserve > queue CleanUp later > trace without a guard:
        TransportError > raise TransportError
        """,
    ),
    "no response, twice repeated": (
        Case(LOST, LOST, allowed(), request={"max_retries": 2}),
        """
        ensure journal > approve > send reserve > send reserve > wait 0.1 s > send reserve > take > schedule
        49000 > report Reserved > trace of active guard opens > return active r1
        """,
    ),
    "no response, then denied": (
        Case(LOST, TOO_MUCH),
        """
        ensure journal > approve > send reserve > send reserve > report Denied > queue CleanUp later > trace
        without a guard: BudgetExceededError > raise BudgetExceededError
        """,
    ),
    "no response, then a decision to deny": (
        Case(LOST, denied()),
        """
        ensure journal > approve > send reserve > send reserve > report Denied > trace without a guard:
        BudgetExceededError > raise BudgetExceededError
        """,
    ),
    "no response, then no connection": (
        Case(LOST, UNSENT),
        """
        ensure journal > approve > send reserve > send reserve > queue CleanUp later > trace without a
        guard: TransportError > raise TransportError
        """,
    ),
    "no connection": (
        Case(UNSENT, UNSENT),
        """
        ensure journal > approve > send reserve > send reserve > trace without a guard: TransportError >
        raise TransportError
        """,
    ),
    "no response, with a key": (
        Case(LOST, LOST, request=MINE),
        """
        ensure journal > approve > unsettled > send reserve > send reserve > trace without a guard:
        TransportError > raise TransportError
        """,
    ),
    "no response, with allow": (
        Case(LOST, LOST, request=ALLOWS),
        """
        ensure journal > approve > send reserve > send reserve > queue CleanUp later > report Unreserved >
        trace of unreserved guard opens > return unreserved timed out
        """,
    ),
    "no response, with allow and a key": (
        Case(LOST, LOST, request=ALLOWS | MINE),
        """
        ensure journal > approve > unsettled > send reserve > send reserve > queue CleanUp later > report
        Unreserved > trace of unreserved guard opens > return unreserved timed out
        """,
    ),
    "no connection, with allow": (
        Case(UNSENT, UNSENT, request=ALLOWS),
        """
        ensure journal > approve > send reserve > send reserve > report Unreserved > trace of unreserved
        guard opens > return unreserved refused
        """,
    ),
    "no response to a chunk, with allow": (
        Case(LOST, LOST, request=ALLOWS | {"is_chunk": True}),
        """
        ensure journal > approve > send reserve > send reserve > queue CleanUp later > trace of unreserved
        guard opens > return unreserved timed out
        """,
    ),
    "allowed without an id": (
        Case(NO_ID, NO_ID),
        """
        ensure journal > approve > send reserve > send reserve > queue CleanUp later > trace without a
        guard: AmbiguousResponseError > raise AmbiguousResponseError
        """,
    ),
    "allowed without an id at first": (
        Case(NO_ID, allowed()),
        """
        ensure journal > approve > send reserve > send reserve > take > schedule 49000 > report Reserved >
        trace of active guard opens > return active r1
        """,
    ),
    "allowed with caps, and without an id at first": (
        Case(allowed(reservation_id=None, decision="ALLOW_WITH_CAPS"), allowed()),
        """
        ensure journal > approve > send reserve > send reserve > take > schedule 49000 > report Reserved >
        trace of active guard opens > return active r1
        """,
    ),
    "only observed": (
        Case(OBSERVED),
        """
        ensure journal > approve > send reserve > trace without a guard: ObservedReservationError > raise
        ObservedReservationError
        """,
    ),
    "only observed, and runs": (
        Case(OBSERVED, request={"on_observed": "run"}),
        """
        ensure journal > approve > send reserve > trace of observed guard opens > return observed None
        """,
    ),
    "only observed, as requested": (
        Case(OBSERVED, request={"observe": True}),
        """
        ensure journal > approve > send reserve > trace of observed guard opens > return observed None
        """,
    ),
    "waits for budget": (
        Case(TOO_MUCH, TOO_MUCH, allowed(), request=WAITS),
        """
        ensure journal > approve > send reserve > wait 0.25 s > send reserve > wait 0.5 s > send reserve >
        take > schedule 49000 > report Reserved > trace of active guard opens > return active r1
        """,
    ),
    "waits for a decision": (
        Case(denied(), allowed(), request=WAITS),
        """
        ensure journal > approve > send reserve > wait 0.25 s > send reserve > take > schedule 49000 >
        report Reserved > trace of active guard opens > return active r1
        """,
    ),
    "waits for a decision, with a key": (
        Case(denied(), allowed(), request=WAITS | MINE),
        """
        ensure journal > approve > unsettled > send reserve > wait 0.25 s > send reserve > pending r1 > take
        > schedule 49000 > report Reserved > trace of active guard opens > return active r1
        """,
    ),
    "waits as long as the server says": (
        Case(LIMITED, allowed(), request=WAITS),
        """
        ensure journal > approve > send reserve > wait 3 s > send reserve > take > schedule 49000 > report
        Reserved > trace of active guard opens > return active r1
        """,
    ),
    "waits not for so long": (
        Case(LIMITED, request={"wait": 2.9}),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: RateLimitedError >
        raise RateLimitedError
        """,
    ),
    "waits in vain": (
        Case(*[TOO_MUCH] * 3, request={"wait": 0.5}),
        """
        ensure journal > approve > send reserve > wait 0.25 s > send reserve > wait 0.25 s > send reserve >
        report Denied > trace without a guard: BudgetExceededError > raise BudgetExceededError
        """,
    ),
    "waits for no closed budget": (
        Case(rejected(409, "BUDGET_CLOSED"), request=WAITS),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: BudgetClosedError >
        raise BudgetClosedError
        """,
    ),
    "waits for no closed tenant": (
        Case(rejected(409, "TENANT_CLOSED"), request=WAITS),
        """
        ensure journal > approve > send reserve > report Denied > trace without a guard: TenantClosedError >
        raise TenantClosedError
        """,
    ),
    "with a key": (
        Case(allowed(), request=MINE),
        """
        ensure journal > approve > unsettled > send reserve > pending r1 > take > schedule 49000 > report
        Reserved > trace of active guard opens > return active r1
        """,
    ),
    "with a key, from a server that does not say how long the lease lasts": (
        Case(allowed(remaining_ttl_ms=None), request=MINE),
        """
        ensure journal > approve > unsettled > send reserve > pending r1 > take > report
        LeaseNotice > schedule 0 > report Reserved > trace of active guard opens > return active r1
        """,
    ),
    "a replay of what was committed": (
        Case(
            allowed(remaining_ttl_ms=0),
            detail("COMMITTED", committed=tokens(42), finalized_at_ms=1_700_000_000_000),
            request=MINE,
        ),
        """
        ensure journal > approve > unsettled > send reserve > send get > trace without a guard:
        ReservationNotActiveError > raise ReservationNotActiveError
        """,
    ),
    "a replay of what has expired": (
        Case(allowed(remaining_ttl_ms=0), rejected(410, "RESERVATION_EXPIRED"), request=MINE),
        """
        ensure journal > approve > unsettled > send reserve > send get > trace without a guard:
        ReservationNotActiveError > raise ReservationNotActiveError
        """,
    ),
    "a replay that cannot be read": (
        Case(allowed(remaining_ttl_ms=0), LOST, request=MINE),
        """
        ensure journal > approve > unsettled > send reserve > send get > trace without a guard:
        ReservationNotActiveError > raise ReservationNotActiveError
        """,
    ),
    "a replay of what is pending": (
        Case(allowed(), request=MINE, journal=PENDING),
        """
        ensure journal > approve > unsettled > send reserve > pending r1 > trace without a guard:
        ReservationNotActiveError > raise ReservationNotActiveError
        """,
    ),
    "a replay of what was pending": (
        Case(allowed(), LOST, request=MINE, unfinished=["r1"]),
        """
        ensure journal > approve > unsettled > send reserve > pending r1 > send get > trace without a guard:
        ReservationNotActiveError > raise ReservationNotActiveError
        """,
    ),
    "with a key while another one is pending": (
        Case(allowed(), request=MINE, unfinished=["r2"]),
        """
        ensure journal > approve > unsettled > send reserve > pending r1 > take > schedule 49000 > report
        Reserved > trace of active guard opens > return active r1
        """,
    ),
    "the journal is not available": (
        Case(raises={"ensure": cycles.JournalUnavailableError("down")}),
        """
        ensure journal > trace without a guard: JournalUnavailableError > raise JournalUnavailableError
        """,
    ),
    "not approved": (
        Case(raises={"approve": cycles.ApprovalDeniedError("no")}),
        """
        ensure journal > approve > trace without a guard: ApprovalDeniedError > raise ApprovalDeniedError
        """,
    ),
    "interrupted in the approval": (
        Case(raises={"approve": STOP}),
        """
        ensure journal > approve > trace without a guard: KeyboardInterrupt > raise KeyboardInterrupt
        """,
    ),
    "interrupted in the request": (
        Case(STOP),
        """
        ensure journal > approve > send reserve > queue CleanUp now > trace without a guard:
        KeyboardInterrupt > raise KeyboardInterrupt
        """,
    ),
    "interrupted in the second request": (
        Case(LOST, STOP),
        """
        ensure journal > approve > send reserve > send reserve > queue CleanUp now > trace without a guard:
        KeyboardInterrupt > raise KeyboardInterrupt
        """,
    ),
    "interrupted in the request, with a key": (
        Case(STOP, request=MINE),
        """
        ensure journal > approve > unsettled > send reserve > trace without a guard: KeyboardInterrupt >
        raise KeyboardInterrupt
        """,
    ),
    "interrupted in the wait": (
        Case(TOO_MUCH, request=WAITS, raises={"wait": STOP}),
        """
        ensure journal > approve > send reserve > wait 0.25 s > trace without a guard: KeyboardInterrupt >
        raise KeyboardInterrupt
        """,
    ),
    "interrupted before there is an owner": (
        Case(allowed(), raises={"take": STOP}),
        """
        ensure journal > approve > send reserve > take > queue CleanUp now > trace without a guard:
        KeyboardInterrupt > raise KeyboardInterrupt
        """,
    ),
    "interrupted after there is an owner": (
        Case(allowed(), raises={"schedule": STOP}),
        """
        ensure journal > approve > send reserve > take > schedule 49000 > trace without a guard:
        KeyboardInterrupt > raise KeyboardInterrupt
        """,
    ),
    "interrupted in the cleanup": (
        Case(LOST, LOST, raises={"queue": STOP}),
        """
        ensure journal > approve > send reserve > send reserve > queue CleanUp later > queue CleanUp now >
        trace without a guard: KeyboardInterrupt > raise KeyboardInterrupt
        """,
    ),
    "a dry run": (
        Case(OBSERVED, request={"shadow": True}),
        """
        send reserve > report ShadowDecided > trace of active guard opens > return active None
        """,
    ),
    "a dry run that is allowed": (
        Case(success(decision="ALLOW"), request={"shadow": True}),
        """
        send reserve > report ShadowDecided > trace of active guard opens > return active None
        """,
    ),
    "a dry run without a response": (
        Case(LOST, LOST, request={"shadow": True}),
        """
        send reserve > send reserve > report ShadowDecided > trace of active guard opens > return active
        timed out
        """,
    ),
    "a dry run with a key": (
        Case(OBSERVED, request={"shadow": True} | MINE),
        """
        send reserve > report ShadowDecided > trace of active guard opens > return active None
        """,
    ),
    "cleaned up": (
        Case(allowed(), success(status="RELEASED", released=tokens(100)), act=cleaning),
        """
        send reserve > send release > report Released > return Success
        """,
    ),
    "nothing to clean up": (
        Case(denied(), act=cleaning),
        """
        send reserve > return Success
        """,
    ),
    "no response to a cleanup": (
        Case(LOST, act=cleaning),
        """
        send reserve > return Unreachable
        """,
    ),
    "attached": (
        Case(extended(), act=attaching()),
        """
        send extend > take > schedule 49000 > trace of active guard opens > return active None 3 True
        """,
    ),
    "attached with spend": (
        Case(extended(), act=attaching(7)),
        """
        send extend > take > schedule 49000 > trace of active guard opens > return active 7 tokens 3 True
        """,
    ),
    "attached, not extendable": (
        Case(rejected(409, "MAX_EXTENSIONS_EXCEEDED"), act=attaching(7)),
        """
        send extend > report LeaseNotice > trace of active guard opens > return active 7 tokens 3 True
        """,
    ),
    "attached too late": (
        Case(rejected(410, "RESERVATION_EXPIRED"), act=attaching(7)),
        """
        send extend > trace without a guard: ReservationExpiredError > raise ReservationExpiredError
        """,
    ),
    "attached without a response at first": (
        Case(LOST, extended(), act=attaching(7)),
        """
        send extend > send extend > take > schedule 49000 > trace of active guard opens > return active 7
        tokens 3 True
        """,
    ),
    "attached to nothing": (
        Case(act=attaching(7, is_held=False)),
        """
        trace of unreserved guard opens > return unreserved 7 tokens 3 False
        """,
    ),
    "attached in a dry run": (
        Case(act=attaching(7, shadow=True)),
        """
        trace of active guard opens > return active 7 tokens 3 False
        """,
    ),
    "interrupted while it is attached": (
        Case(STOP, act=attaching()),
        """
        send extend > trace without a guard: KeyboardInterrupt > raise KeyboardInterrupt
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_steps_of_a_reserve(name: str) -> None:
    case, steps = CASES[name]
    io = case.run()
    assert io.story == " ".join(steps.split())
    assert io.with_other_options() == []


TRACE = "trace_id='tttttttttttttttttttttttttttttttt'"
R1 = f"reservation_id='r1', request_id='req-1', {TRACE}, estimate=<Amount 100 tokens>"
NO_ID_100 = "reservation_id=None, request_id=None, " + TRACE + ", estimate=<Amount 100 tokens>, action='work'"


@pytest.mark.parametrize(
    ("name", "reports"),
    [
        ("allowed", [f"Reserved({R1}, decision='ALLOW', action='work')"]),
        ("allowed with caps", [f"Reserved({R1}, decision='ALLOW_WITH_CAPS', action='work')"]),
        (
            "allowed, and the kind is deprecated",
            [
                "ActionKindDeprecated(reservation_id=None, request_id='req-1', trace_id='trace-1', kind='test', "
                "replacement='new')",
                f"Reserved({R1}, decision='ALLOW', action='work')",
            ],
        ),
        (
            "denied",
            [
                "Denied(reservation_id=None, request_id='req-9', trace_id='trace-9', estimate=<Amount 100 tokens>, "
                "action='work', reason='no; requested 100 tokens on tenant:acme; the remaining budget is smaller than "
                "that; client.balances() lists what is left, cycles fund SCOPE AMOUNT adds to it [BUDGET_EXCEEDED, "
                "HTTP 409, request req-9]')",
            ],
        ),
        ("no response, with allow", [f"Unreserved({NO_ID_100}, detail='timed out')"]),
        (
            "a dry run",
            [f"ShadowDecided({NO_ID_100}, decision='DENY', reason_code='BUDGET_EXCEEDED', detail=None)"],
        ),
        ("a dry run that is allowed", [f"ShadowDecided({NO_ID_100}, decision='ALLOW', reason_code=None, detail=None)"]),
        (
            "a dry run without a response",
            [f"ShadowDecided({NO_ID_100}, decision=None, reason_code=None, detail='timed out')"],
        ),
        (
            "attached, not extendable",
            [
                f"LeaseNotice(reservation_id='r1', request_id=None, {TRACE}, kind='not_extendable', detail='attached, "
                "but its lease cannot be extended any longer: no (HTTP 409, MAX_EXTENSIONS_EXCEEDED)')",
            ],
        ),
    ],
)
def test_what_the_reports_of_a_reserve_say(name: str, reports: list[str]) -> None:
    assert [repr(event) for event in CASES[name][0].run().events] == reports


def keys(io: ScriptedIo) -> list[str]:
    bodies = [call.body for call in [*io.calls, *(work.call for work in io.work if isinstance(work, CleanUp))]]
    return [str(body["idempotency_key"]) for body in bodies if body is not None]


@pytest.mark.parametrize(
    ("name", "requests", "different"),
    [
        ("no response, twice repeated", 3, 1),
        ("no response", 3, 1),  # with that of the cleanup
        ("interrupted in the request", 2, 1),
        ("waits for budget", 3, 1),  # an error response stores nothing under its key
        ("waits for a decision", 2, 2),  # a decision is stored, and its key would repeat it
        ("waits for a decision, with a key", 2, 1),
        ("no response, with allow and a key", 3, 1),
        ("a dry run without a response", 2, 1),
        ("attached without a response at first", 2, 1),
        ("cleaned up", 2, 2),
    ],
)
def test_only_a_repetition_has_the_key_of_the_request_before(name: str, requests: int, different: int) -> None:
    sent = keys(CASES[name][0].run())
    assert (len(sent), len(set(sent))) == (requests, different)


@pytest.mark.parametrize("name", [name for name, (case, _) in CASES.items() if "idempotency_key" in case.request])
def test_each_reserve_with_a_key_of_the_caller_has_that_key(name: str) -> None:
    io = CASES[name][0].run()
    reserves = [call.body for call in io.calls if call.operation == "createReservation" and call.body is not None]
    assert {body["idempotency_key"] for body in reserves} == {"mine"}


def test_each_cleanup_of_a_create_releases_under_the_same_key() -> None:
    first, second = (keys(CASES["cleaned up"][0].run()) for _ in range(2))
    assert first == second
    (release,) = [call.body for call in CASES["cleaned up"][0].run().calls if call.operation == "releaseReservation"]
    assert release is not None
    assert release["reason"] == "caller_went_away"


@pytest.mark.parametrize(
    ("name", "what", "first"),
    [
        (
            "a replay of what was committed",
            "committed 42 tokens at 2023-11-14T22:13:20Z",
            ("COMMITTED", cycles.tokens(42), 1_700_000_000_000),
        ),
        ("a replay of what has expired", "expired without a commit", ("EXPIRED", None, None)),
        ("a replay that cannot be read", "has ended", (None, None, None)),
        ("a replay of what is pending", "has a pending commit of 42 tokens", (None, None, None)),
        ("a replay of what was pending", "has ended", (None, None, None)),
    ],
)
def test_the_error_of_a_replay_says_how_the_first_run_has_ended(name: str, what: str, first: tuple[Any, ...]) -> None:
    case = CASES[name][0]
    responses, script = case.script
    io = ScriptedIo(responses, **script)
    io.unfinished = frozenset(map(file_name, case.unfinished))
    with pytest.raises(cycles.ReservationNotActiveError) as raised:
        run(case.act(io))
    error = raised.value
    assert str(error).startswith(
        f"idempotency_key 'mine' was used before: reservation r1 {what}, so the block does not run again; use a new key"
    )
    assert (error.status, error.committed, error.finalized_at_ms) == first


@pytest.mark.parametrize(
    ("finalized_at_ms", "at"),
    [(0, " at 1970-01-01T00:00:00Z"), (1_999, " at 1970-01-01T00:00:01Z"), (None, ""), (10**17, "")],
)
def test_the_error_of_a_replay_names_the_second_in_which_the_first_run_has_ended(
    finalized_at_ms: int | None, at: str
) -> None:
    io = ScriptedIo([allowed(remaining_ttl_ms=0), detail("RELEASED", finalized_at_ms=finalized_at_ms)])
    with pytest.raises(cycles.ReservationNotActiveError, match=f"reservation r1 released{at}, so the block"):
        run(open_lease(io.io, request_of(**MINE), io.take))


def test_the_commit_key_of_a_guard_is_made_before_its_reserve() -> None:
    guard = run(open_lease(ScriptedIo([allowed()]).io, request_of(), lambda guard: None))
    assert guard.commit_key is not None
    assert len({guard.key, guard.commit_key}) == 2
    mine = run(open_lease(ScriptedIo([allowed()]).io, request_of(**MINE), lambda guard: None))
    assert mine.key == "mine"
    assert mine.commit_key not in (None, "mine")


def test_an_attached_guard_continues_the_trace_of_the_token() -> None:
    serialized = evolve(deserialize(serialize(ScriptedIo().guard()), None, None), trace_id="a" * 32)
    io = ScriptedIo([extended()])
    run(attach(io.io, serialized, io.take))
    assert io.known_trace_id == "a" * 32


def test_a_found_reservation_is_attached_with_its_scopes_and_its_end() -> None:
    row = ReservationDetail.read(detail("ACTIVE").body)
    io = ScriptedIo([extended()])
    guard = run(attach(io.io, found(row, None, "cancel"), io.take))
    created = guard.created
    assert created is not None
    assert (created.scope_path, created.affected_scopes, created.expires_at_ms) == (SCOPE, [SCOPE], 2)
    assert (created.reserved, guard.estimate, guard.key) == (cycles.tokens(100), cycles.tokens(100), "mine")
    assert (guard.request.lease_policy, guard.request.ttl_ms) == ("cancel", 60_000)


@pytest.mark.parametrize("amount", [0, 1])
def test_the_error_of_a_replay_names_the_amount_also_if_it_is_zero(amount: int) -> None:
    io = ScriptedIo([allowed(remaining_ttl_ms=0), detail("COMMITTED", committed=tokens(amount))])
    with pytest.raises(cycles.ReservationNotActiveError, match=f"reservation r1 committed {amount} token"):
        run(open_lease(io.io, request_of(**MINE), io.take))
