"""The context of a call in this thread or task: the subject, the current guard, and how a thread pool inherits both."""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

from cycles._client.guard_properties import GuardProperties
from cycles._core.subjects import Subject, as_subject
from cycles._errors import InvalidRequestError
from cycles._version import public

P = ParamSpec("P")
R = TypeVar("R")

_subject: Final[ContextVar[Subject | None]] = ContextVar("cycles_subject", default=None)


def context_subject() -> Subject | None:
    """The subject that `cycles.subject(...)` blocks around this code add up to, or None outside of any."""
    return _subject.get()


@contextmanager
def subject(_subject_: Subject | Mapping[str, Any] | None = None, /, **levels: Any) -> Iterator[Subject]:
    """Lay subject levels over the client's configuration for everything below, in this thread or task.

    Nested blocks add to the outer one; tasks started inside inherit it. What a call itself names wins over it.

    ```python
    with cycles.subject(agent="planner", workspace="prod"):
        ...
    ```

    Raises:
        InvalidRequestError: for a level that no subject has.
    """
    given = as_subject(levels).over(as_subject(_subject_))
    outer = _subject.get()
    token = _subject.set(given if outer is None else given.over(outer))
    try:
        yield _subject.get() or given
    finally:
        _subject.reset(token)


_current: Final[ContextVar[weakref.ref[GuardProperties] | None]] = ContextVar("cycles_guard", default=None)
"""Weak: a block that was interrupted before it could end must not keep its guard, and so its lease, for ever."""


@contextmanager
def running(guard: GuardProperties) -> Iterator[None]:
    """Make it the current guard while a step of its generator runs."""
    token = _current.set(weakref.ref(guard))
    try:
        yield
    finally:
        _current.reset(token)


def current_guard() -> GuardProperties | None:
    """The innermost guard whose block this thread or task is in, or None. Tasks started in a block inherit it."""
    guard = _current.get()
    return None if guard is None else guard()


class ContextExecutor(Executor):
    """An executor whose jobs see the context they were submitted from."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run ``fn(*args, **kwargs)`` in the wrapped executor, in a copy of this thread's context."""
        context = contextvars.copy_context()
        return self._executor.submit(lambda: context.run(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the wrapped executor down."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what is missing here is missing, on copies half made too
            raise AttributeError(name)
        return getattr(self._executor, name)


def copy_context_to(executor: Executor) -> ContextExecutor:
    """Make a thread pool see `current_guard()` and `cycles.subject(...)` of the code that submits jobs to it.

    Args:
        executor: A thread pool; it stays usable by itself, and is shut down with what comes back.

    Raises:
        InvalidRequestError: for a process pool, whose jobs live elsewhere; hand a guard over with `guard.detach()`.
    """
    if isinstance(executor, ProcessPoolExecutor):
        raise InvalidRequestError("a process pool cannot share a context; send guard.detach() and client.attach() it")
    return ContextExecutor(executor)


public(copy_context_to, current_guard, subject)
