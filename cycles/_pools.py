"""Thread pools that know the guard and the subject of the code that submits to them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, ParamSpec, TypeVar

from cycles._errors import InvalidRequestError

P = ParamSpec("P")
R = TypeVar("R")


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
