"""Follow the cursors of one list from page to page, and stop if the server returns one of them again."""

from __future__ import annotations

from cycles._core.values.result_base import HttpResponse
from cycles._errors import AmbiguousResponseError


class Cursors:
    """The cursors of one pass over a list.

    Attributes:
        current: The cursor of the next page; None for the first one.
        ended: Whether the last page was read.
    """

    def __init__(self) -> None:
        self.current: str | None = None
        self.ended = False
        self._seen: set[str] = set()

    def advance(
        self, following: str | None, *, request_id: str | None, trace_id: str | None, http: HttpResponse | None
    ) -> None:
        """Go to the next page; `following` is its cursor, or None after the last page.

        Raises:
            AmbiguousResponseError: if this pass had the cursor before. The list would never end.
        """
        if following is None:
            self.ended = True
        elif following in self._seen:
            message = "the list does not end: the server returned the same next_cursor again; the list is incomplete"
            error = AmbiguousResponseError(message, request_id=request_id, trace_id=trace_id)
            error.http = http
            raise error
        else:
            # Kept for the whole pass: a server may repeat a cursor after any number of pages.
            self.current = following
            self._seen.add(following)
