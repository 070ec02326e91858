"""What surrounds a call in this thread or task: the subject laid over the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from cycles._core.subjects import Subject, as_subject

_subject: Final[ContextVar[Subject | None]] = ContextVar("cycles_subject", default=None)


def surrounding_subject() -> Subject | None:
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
