"""The guards of Celery, RQ and Dramatiq, with stand-ins of these libraries: what each attempt asks of its queue.

The libraries themselves are in `make test-integrations`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.integrations.stand_ins import imported_with, module

POOR = {"agent": "poor"}
TOKENS = cycles.tokens(7)


@pytest.fixture
def busy(client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let another worker hold a key past the first ttl of its lease."""

    def busy(key: str) -> None:
        client.reserve(TOKENS, action=("task.run", "other"), idempotency_key=key).acquire().detach()
        later = SimpleNamespace(time=lambda: time.time() + 100)
        monkeypatch.setattr("cycles.integrations._queues.time", later)

    return busy


# --- Celery -----------------------------------------------------------------------------------------------------------


class Ignore(Exception):
    """What a task of Celery raises whose message is acknowledged without a result."""


class Reject(Exception):
    def __init__(self, reason: Any, requeue: bool) -> None:
        super().__init__(reason, requeue)
        self.reason, self.requeue = reason, requeue


class CeleryTask:
    """The running task: its request, and what it asks of the application."""

    def __init__(self, **request: Any) -> None:
        members = {"id": "t1", "retries": 2, "called_directly": False, "is_eager": False, "delivery_info": None}
        members |= {"headers": {"redelivered": True, "own": 1}, "args": (1,), "kwargs": {"k": 2}, "get": self.header}
        self.request = SimpleNamespace(**{**members, **request})
        self.denials: Any = None
        self.sent: list[Any] = []
        self.failures: list[Any] = []
        self.backend = SimpleNamespace(mark_as_failure=lambda *given, **how: self.failures.append((given, how)))

    def header(self, name: str) -> Any:
        return self.denials if name == "cycles_denials" else None

    def signature_from_request(self, *given: Any, **how: Any) -> Any:
        return SimpleNamespace(apply_async=lambda: self.sent.append((given, how)))


class Current:
    """Celery's proxy of the running task."""

    task: CeleryTask | None = None

    def __bool__(self) -> bool:
        return self.task is not None

    def _get_current_object(self) -> CeleryTask | None:
        return self.task


class Signal:
    def __init__(self) -> None:
        self.receivers: list[tuple[Callable[..., object], bool]] = []

    def connect(self, receiver: Callable[..., object], weak: bool = True) -> None:
        self.receivers.append((receiver, weak))


@pytest.fixture
def current() -> Current:
    return Current()


@pytest.fixture
def shutdown() -> Signal:
    return Signal()


@pytest.fixture
def celery(current: Current, shutdown: Signal) -> Iterator[Any]:
    signals = SimpleNamespace(worker_process_shutdown=shutdown)
    yield from imported_with(
        "celery",
        module("celery", current_task=current, signals=signals),
        module("celery.exceptions", Ignore=Ignore, Reject=Reject),
    )


def task_of(adapter: Any, client: cycles.Cycles, **options: Any) -> Any:
    return adapter.guarded(client, **{"estimate": TOKENS, **options})(lambda *args, **kwargs: "done")


def test_celery_an_attempt_is_paid_once_under_its_key(
    celery: Any, current: Current, client: cycles.Cycles, ledger: Ledger
) -> None:
    current.task = CeleryTask()
    assert task_of(celery, client)() == "done"
    assert [row.idempotency_key for row in ledger.rows()] == ["celery:t1:2"]
    assert ledger.spent() == 7


@pytest.mark.parametrize(
    "request_",
    [{"called_directly": True}, {"is_eager": True}, {"id": None}, None],
    ids=["direct", "eager", "no id", "no task"],
)
def test_celery_a_call_outside_of_a_worker_has_a_fresh_key(
    celery: Any, current: Current, client: cycles.Cycles, ledger: Ledger, request_: Any
) -> None:
    current.task = None if request_ is None else CeleryTask(**request_)
    assert [task_of(celery, client)(), task_of(celery, client)()] == ["done", "done"]
    keys = {str(row.idempotency_key) for row in ledger.rows()}
    assert (len(keys), [key for key in keys if key.startswith("celery")]) == (2, [])
    with pytest.raises(cycles.BudgetExceededError):
        task_of(celery, client, subject=POOR)()


def test_celery_a_denied_task_is_sent_again_with_its_own_retries(
    celery: Any, current: Current, client: cycles.Cycles
) -> None:
    current.task = task = CeleryTask()
    task.denials = 1
    with pytest.raises(Ignore, match="postponed by"):
        task_of(celery, client, subject=POOR, denied_delay_s=10)()
    [((request, args, kwargs), how)] = task.sent
    assert (request, args, kwargs, how["retries"]) == (task.request, (1,), {"k": 2}, 2)
    assert how["headers"] == {"own": 1, "cycles_denials": 2}, "it is no redelivery of this message"
    assert 15 <= how["countdown"] <= 25
    assert task.failures == []


@pytest.mark.parametrize("headers", [None, {}])
def test_celery_a_request_may_have_no_headers(
    celery: Any, current: Current, client: cycles.Cycles, headers: Any
) -> None:
    current.task = task = CeleryTask(headers=headers)
    with pytest.raises(Ignore):
        task_of(celery, client, subject=POOR)()
    assert task.sent[0][1]["headers"] == {"cycles_denials": 1}


def test_celery_a_task_that_stays_denied_is_marked_as_failed(
    celery: Any, current: Current, client: cycles.Cycles
) -> None:
    current.task = task = CeleryTask()
    task.denials = 3
    with pytest.raises(Ignore) as raised:
        task_of(celery, client, subject=POOR, max_denials=3)()
    [((task_id, error), how)] = task.failures
    assert (task_id, type(error), how) == ("t1", cycles.BudgetExceededError, {"request": task.request})
    assert (raised.value.__cause__, task.sent) == (error, [])


def test_celery_a_rejection_is_not_queued_again_and_no_retry_catches_it(
    celery: Any, current: Current, client: cycles.Cycles
) -> None:
    current.task = CeleryTask()
    with pytest.raises(Reject) as raised:
        task_of(celery, client, subject=POOR, on_denied="reject")()
    assert (raised.value.requeue, type(raised.value.reason)) == (False, cycles.BudgetExceededError)
    assert isinstance(raised.value, Ignore), "autoretry_for=(Exception,) leaves these alone"


def test_celery_a_message_that_was_committed_is_acknowledged(
    celery: Any, current: Current, client: cycles.Cycles, ledger: Ledger
) -> None:
    current.task = CeleryTask()
    assert task_of(celery, client)() == "done"
    with pytest.raises(Ignore, match="committed before"):
        task_of(celery, client, on_settled="skip")()
    assert ledger.spent() == 7


def test_celery_a_redelivered_message_waits_for_a_worker_that_keeps_its_lease(
    celery: Any, current: Current, client: cycles.Cycles, busy: Callable[[str], None]
) -> None:
    current.task = task = CeleryTask(delivery_info={"redelivered": True})
    busy("celery:t1:2")
    with pytest.raises(Ignore):
        task_of(celery, client)()
    assert [how["headers"]["cycles_denials"] for _, how in task.sent] == [0], "no denial is counted"


@pytest.mark.parametrize(("delivery_info", "lists"), [({"redelivered": True}, 1), ({}, 0), (None, 0)])
def test_celery_only_a_redelivered_message_is_looked_up(
    celery: Any, current: Current, client: cycles.Cycles, server: cycles.EmbeddedServer, delivery_info: Any, lists: int
) -> None:
    current.task = CeleryTask(delivery_info=delivery_info)
    assert task_of(celery, client)() == "done"
    assert len(server.requests.of("list")) == lists


@pytest.mark.parametrize("is_given", [True, False])
def test_celery_a_worker_process_that_ends_closes_the_client(
    celery: Any, shutdown: Signal, server: cycles.EmbeddedServer, is_given: bool
) -> None:
    client = server.client(tenant="acme")
    before = None
    if not is_given:
        cycles.set_default_client(client)
    try:
        celery.close_with_worker(client if is_given else None)
        [(receiver, weak)] = shutdown.receivers
        assert (weak, client.describe()["closed"]) == (False, False)
        receiver(sender=None)
        assert client.describe()["closed"]
    finally:
        cycles.set_default_client(before)
    with pytest.raises(cycles.InvalidRequestError, match="client must be"):
        celery.close_with_worker("client")


# --- RQ ---------------------------------------------------------------------------------------------------------------


class RqRetry:
    def __init__(self, max: int = 1, interval: int = 0) -> None:  # noqa: A002 - the parameters of RQ
        self.max, self.interval = max, interval


class Job:
    id = "j1"

    def __init__(self, **members: Any) -> None:
        self.retries_left: int | None = 3
        self.number_of_retries: int | None = 1
        self.meta: dict[str, Any] = {}
        self.saved: list[dict[str, Any]] = []
        self.__dict__.update(members)

    def save_meta(self) -> None:
        self.saved.append(dict(self.meta))


class Jobs:
    job: Job | None = None


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def rq(jobs: Jobs) -> Iterator[Any]:
    yield from imported_with("rq", module("rq", Retry=RqRetry, get_current_job=lambda: jobs.job))


@pytest.mark.parametrize(
    ("members", "key"),
    [({}, "rq:j1:3:0"), ({"retries_left": None}, "rq:j1:0:0"), ({"meta": {"cycles_returned_retries": 4}}, "rq:j1:3:4")],
)
def test_rq_an_attempt_is_paid_once_under_its_key(
    rq: Any, jobs: Jobs, client: cycles.Cycles, ledger: Ledger, members: Any, key: str
) -> None:
    jobs.job = Job(**members)
    assert task_of(rq, client)() == "done"
    assert [row.idempotency_key for row in ledger.rows()] == [key]
    assert (ledger.spent(), jobs.job.saved) == (7, [])


def test_rq_a_call_outside_of_a_worker_has_a_fresh_key(rq: Any, client: cycles.Cycles, ledger: Ledger) -> None:
    assert task_of(rq, client)() == "done"
    assert [str(row.idempotency_key).startswith("rq:") for row in ledger.rows()] == [False]


@pytest.mark.parametrize(("retries", "most"), [(1, 2), (None, 1)])
def test_rq_a_denied_job_returns_a_retry_and_counts_its_denial(
    rq: Any, jobs: Jobs, client: cycles.Cycles, retries: int | None, most: int
) -> None:
    jobs.job = job = Job(number_of_retries=retries, meta={"cycles_denials": 1, "own": 1})
    retry = task_of(rq, client, subject=POOR, denied_delay_s=10)()
    assert (retry.max, 15 <= retry.interval <= 25, type(retry.interval)) == (most, True, int)
    assert job.saved == [{"cycles_denials": 2, "own": 1}]


def test_rq_waits_a_second_at_least(rq: Any, jobs: Jobs, client: cycles.Cycles) -> None:
    jobs.job = Job()
    assert task_of(rq, client, subject=POOR, denied_delay_s=0.01)().interval == 1


@pytest.mark.parametrize("options", [{"on_denied": "reject"}, {"max_denials": 0}])
def test_rq_a_job_that_stays_denied_has_no_retry_left(rq: Any, jobs: Jobs, client: cycles.Cycles, options: Any) -> None:
    jobs.job = job = Job()
    with pytest.raises(cycles.BudgetExceededError):
        task_of(rq, client, subject=POOR, **options)()
    assert (job.retries_left, job.saved) == (0, [])


def test_rq_a_retry_that_the_task_returns_is_released_and_counted(
    rq: Any, jobs: Jobs, client: cycles.Cycles, ledger: Ledger
) -> None:
    jobs.job = job = Job()
    retry = RqRetry(max=5)
    assert rq.guarded(client, estimate=TOKENS)(lambda: retry)() is retry
    assert job.saved == [{"cycles_returned_retries": 1}]
    assert (ledger.spent(), [row.status for row in ledger.rows()]) == (0, ["RELEASED"])
    assert rq.guarded(client, estimate=TOKENS)(lambda: retry)() is retry
    assert job.saved[-1] == {"cycles_returned_retries": 2}
    jobs.job = None
    assert rq.guarded(client, estimate=TOKENS)(lambda: retry)() is retry, "without a job nothing is counted"
    assert len(job.saved) == 2


def test_rq_a_job_that_was_committed_is_skipped(rq: Any, jobs: Jobs, client: cycles.Cycles, ledger: Ledger) -> None:
    jobs.job = Job()
    assert [task_of(rq, client)(), task_of(rq, client, on_settled="skip")()] == ["done", None]
    assert ledger.spent() == 7


# --- Dramatiq ---------------------------------------------------------------------------------------------------------


class DramatiqRetry(Exception):
    def __init__(self, message: str, delay: int | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class CurrentMessage:
    message: Any = None

    @classmethod
    def get_current_message(cls) -> Any:
        return cls.message


def message(age_s: float = 0.0, **options: Any) -> Any:
    made_ms = int((time.time() - age_s) * 1000)
    return SimpleNamespace(message_id="m1", message_timestamp=made_ms, options=options)


@pytest.fixture
def dramatiq() -> Iterator[Any]:
    CurrentMessage.message = None
    yield from imported_with(
        "dramatiq",
        module("dramatiq"),
        module("dramatiq.errors", Retry=DramatiqRetry),
        module("dramatiq.middleware", CurrentMessage=CurrentMessage),
    )


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "dramatiq:m1:0"),
        ({"retries": 5, "cycles_postponed": 2}, "dramatiq:m1:3"),
        ({"retries": None}, "dramatiq:m1:0"),
    ],
)
def test_dramatiq_an_attempt_is_paid_once_under_its_key(
    dramatiq: Any, client: cycles.Cycles, ledger: Ledger, options: Any, key: str
) -> None:
    CurrentMessage.message = message(**options)
    assert task_of(dramatiq, client)() == "done"
    assert [row.idempotency_key for row in ledger.rows()] == [key]
    assert ledger.spent() == 7


def test_dramatiq_a_call_outside_of_a_worker_has_a_fresh_key(
    dramatiq: Any, client: cycles.Cycles, ledger: Ledger
) -> None:
    assert task_of(dramatiq, client)() == "done"
    assert [str(row.idempotency_key).startswith("dramatiq") for row in ledger.rows()] == [False]


def test_dramatiq_a_denied_message_is_postponed_in_milliseconds(dramatiq: Any, client: cycles.Cycles) -> None:
    CurrentMessage.message = sent = message(retries=4, cycles_denials=1, cycles_postponed=1)
    with pytest.raises(DramatiqRetry) as raised:
        task_of(dramatiq, client, subject=POOR, denied_delay_s=10)()
    assert raised.value.delay is not None
    assert 15_000 <= raised.value.delay <= 25_000
    assert sent.options == {"retries": 4, "cycles_denials": 2, "cycles_postponed": 2}


@pytest.mark.parametrize(("denied_delay_s", "delay_ms"), [(1.4, 1_400), (0.4, 400), (90, 90_000)])
def test_dramatiq_a_message_waits_to_the_millisecond(
    dramatiq: Any, client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch, denied_delay_s: float, delay_ms: int
) -> None:
    monkeypatch.setattr("cycles.integrations._queues.random", SimpleNamespace(random=lambda: 0.5))
    CurrentMessage.message = message()
    with pytest.raises(DramatiqRetry) as raised:
        task_of(dramatiq, client, subject=POOR, denied_delay_s=denied_delay_s)()
    assert raised.value.delay == delay_ms


@pytest.mark.parametrize("options", [{"on_denied": "reject"}, {"max_denials": 0}])
def test_dramatiq_a_message_that_stays_denied_fails_without_a_retry(
    dramatiq: Any, client: cycles.Cycles, options: Any
) -> None:
    CurrentMessage.message = sent = message()
    with pytest.raises(cycles.BudgetExceededError):
        task_of(dramatiq, client, subject=POOR, **options)()
    assert sent.options == {"throws": cycles.BudgetExceededError}


def test_dramatiq_a_message_that_was_committed_is_skipped(dramatiq: Any, client: cycles.Cycles, ledger: Ledger) -> None:
    CurrentMessage.message = message()
    assert [task_of(dramatiq, client)(), task_of(dramatiq, client, on_settled="skip")()] == ["done", None]
    assert ledger.spent() == 7


def test_dramatiq_an_old_message_waits_for_a_worker_that_keeps_its_lease(
    dramatiq: Any, client: cycles.Cycles, busy: Callable[[str], None]
) -> None:
    CurrentMessage.message = sent = message(age_s=100.0)
    busy("dramatiq:m1:0")
    with pytest.raises(DramatiqRetry):
        task_of(dramatiq, client)()
    assert sent.options == {"cycles_denials": 0, "cycles_postponed": 1}, "no denial is counted"


@pytest.mark.parametrize(("age_s", "lists"), [(100.0, 1), (0.0, 0)])
def test_dramatiq_only_a_message_that_is_older_than_its_lease_is_looked_up(
    dramatiq: Any, client: cycles.Cycles, server: cycles.EmbeddedServer, age_s: float, lists: int
) -> None:
    CurrentMessage.message = message(age_s)
    assert task_of(dramatiq, client)() == "done"
    assert len(server.requests.of("list")) == lists


def test_dramatiq_the_middleware_is_added_once(dramatiq: Any) -> None:
    added: list[Any] = []
    broker = SimpleNamespace(middleware=added, add_middleware=added.append)
    dramatiq.install(broker)
    dramatiq.install(broker)
    assert [type(each) for each in added] == [CurrentMessage]


@pytest.mark.parametrize("adapter", ["celery", "rq", "dramatiq"])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"on_denied": "ignore"}, cycles.InvalidRequestError),
        ({"on_settled": "ignore"}, cycles.InvalidRequestError),
        ({"max_denials": -1}, cycles.InvalidRequestError),
        ({"denied_delay_s": 0}, cycles.InvalidRequestError),
        ({"budget": 1}, TypeError),
    ],
)
def test_each_option_reaches_the_guard(
    request: pytest.FixtureRequest, client: cycles.Cycles, adapter: str, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        task_of(request.getfixturevalue(adapter), client, **options)


@pytest.mark.parametrize("adapter", ["celery", "rq", "dramatiq"])
def test_each_callable_gets_the_arguments_of_the_task(
    request: pytest.FixtureRequest, client: cycles.Cycles, ledger: Ledger, adapter: str
) -> None:
    def work(n: int, name: str) -> int:
        return n

    guarded = request.getfixturevalue(adapter).guarded(
        client,
        estimate=lambda n, name: cycles.tokens(n),
        action=lambda n, name: ("task.run", name),
        actual=lambda result: cycles.tokens(result - 1),
        subject=lambda n, name: {"agent": f"a{n}"},
    )(work)
    assert guarded(5, name="one") == 5
    [row] = ledger.rows()
    assert (row.reserved.amount, row.action.name, row.subject.agent, ledger.spent()) == (5, "one", "a5", 4)
    assert guarded.__name__ == "work"
