"""Thread pools see the context of the code that submits to them."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import cycles
from cycles._client.context import copy_context_to, current_subject, subject
from cycles._errors import InvalidRequestError
from tests.support.waiting import PATIENCE_S


def agent() -> str | None:
    surrounding = current_subject()
    return None if surrounding is None else surrounding.agent


def test_jobs_see_the_subject_of_the_code_that_submits_them() -> None:
    with copy_context_to(ThreadPoolExecutor(2)) as pool:
        with subject(agent="planner"):
            inside = [pool.submit(agent), *[pool.submit(agent) for _ in range(3)]]
            mapped = list(pool.map(lambda _: agent(), range(4)))
        outside = pool.submit(agent)
    assert [job.result() for job in inside] + mapped == ["planner"] * 8
    assert outside.result() is None


def test_the_pool_has_the_attributes_of_the_one_around_which_it_is() -> None:
    class Pool(ThreadPoolExecutor):
        purpose = "tools"

    with copy_context_to(Pool(1)) as pool:
        assert pool.purpose == "tools"
        with pytest.raises(AttributeError, match="_purpose"):
            pool._purpose  # noqa: B018


def test_leaving_the_pool_ends_its_threads() -> None:
    with copy_context_to(ThreadPoolExecutor(1)) as pool:
        thread = pool.submit(threading.current_thread).result()
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(agent)


def test_a_shutdown_waits_for_every_job_by_default() -> None:
    ran, go = list[int](), threading.Event()
    pool = copy_context_to(ThreadPoolExecutor(1))
    pool.submit(go.wait, PATIENCE_S)
    for number in range(3):
        pool.submit(ran.append, number)
    pool.submit(ran.append, 3).add_done_callback(lambda done: ran.append(4))
    threading.Timer(0.0, go.set).start()
    pool.shutdown()
    assert ran == [0, 1, 2, 3, 4]


def test_a_process_pool_is_rejected_and_the_error_names_detach() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(InvalidRequestError, match=r"guard\.detach"):
        copy_context_to(pool)


def test_a_block_of_a_subject_returns_what_the_blocks_add_up_to() -> None:
    with (
        cycles.subject({"workspace": "prod", "app": "z"}, app="a") as outer,
        cycles.subject(agent="planner", app="b") as inner,
    ):
        assert outer == cycles.Subject(workspace="prod", app="a")
        assert inner == cycles.current_subject() == cycles.Subject(workspace="prod", app="b", agent="planner")


def test_current_subject_returns_what_the_blocks_add_up_to() -> None:
    assert cycles.current_subject() is None
    with cycles.subject(workspace="prod"), cycles.subject(agent="planner"):
        assert cycles.current_subject() == cycles.Subject(workspace="prod", agent="planner")
    assert cycles.current_subject() is None
