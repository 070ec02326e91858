"""Who is told what happened: the user's observers, and the `cycles` logger.

Event classes are loaded when somebody listens; a silent client never pays for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from cycles.events import Event

Observer: TypeAlias = "Callable[[Event], object]"

logger = logging.getLogger("cycles")


class Reporter:
    """The observers of one client."""

    def __init__(self) -> None:
        self._observers: tuple[Observer, ...] = ()

    def add(self, observer: Observer) -> Callable[[], None]:
        """Add an observer; the callable that comes back takes it away again."""
        self._observers = (*self._observers, observer)

        def remove() -> None:
            self._observers = tuple(other for other in self._observers if other is not observer)

        return remove

    def is_enabled_for(self, level: int) -> bool:
        """Whether an event of this logging level reaches anybody; if not, it need not be made."""
        return bool(self._observers) or logger.isEnabledFor(level)

    def report(self, event: Event) -> None:
        """Write the event to the log and hand it to the observers. Whatever an observer raises is logged, no more."""
        if logger.isEnabledFor(event.level):
            from cycles.events import log_extra

            logger.log(event.level, "%s", event.text(), extra=log_extra(event))
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # an observer must never break a guard
                logger.exception("an observer failed on %s", type(event).__name__)
