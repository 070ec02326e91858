"""WSGI: the subject of each request, for Flask, Django and other frameworks. No framework is needed.

See `docs/integrations/wsgi.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar

import cycles
from cycles import InvalidRequestError, Subject
from cycles.integrations._levels import InvalidSubject, members_of, to_subject
from cycles.integrations._options import checked_actual
from cycles.integrations._problems import Problem

__all__ = ["SubjectMiddleware"]

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
_T = TypeVar("_T")
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class SubjectMiddleware:
    """Sets `cycles.subject(...)` for each request: in the application, in each step of its body, and in `close`.

    Between these steps the thread has the subject that it had before, so its next request never sees this one.

    Args:
        app: The WSGI application.
        subject: Returns a subject or mapping for the `environ` of a request, or None if it has none. A subject or
            mapping that is no callable is that of each request.
        required: Whether a request without a subject is rejected with 400, and the application does not run. With False
            it runs with the subject of the configuration.

    Raises:
        InvalidRequestError: A value is wrong.
    """

    def __init__(
        self,
        app: App,
        subject: Callable[[Environ], Subject | Mapping[str, Any] | None] | Subject | Mapping[str, Any],
        required: bool = True,
    ) -> None:
        if not callable(app):
            raise InvalidRequestError(f"app must be a WSGI application, got {app!r:.80}")
        if not isinstance(required, bool):
            raise InvalidRequestError(f"required must be True or False, got {required!r:.80}")
        self.app = app
        self._required = required
        is_callable = callable(subject)
        self._subject_of = checked_actual("subject", subject, takes=("environ",)) if is_callable else _always(subject)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application for one request."""
        try:
            found = members_of(self._subject_of(environ))
            if self._required and not found:
                raise InvalidSubject
        except InvalidSubject:
            problem = Problem(HTTPStatus.BAD_REQUEST, "INVALID_SUBJECT")
            start_response(f"{HTTPStatus.BAD_REQUEST:d} {HTTPStatus.BAD_REQUEST.phrase}", list(problem.headers.items()))
            return [problem.body]
        if not found:
            return self.app(environ, start_response)
        steps = _Steps(to_subject(found))
        body = steps.run(self.app, environ, start_response)
        # Servers compute Content-Length from a list of one part, and no code of the application runs for its steps.
        return body if isinstance(body, (list, tuple)) else _Body(body, steps)


def _always(subject: Any) -> Callable[[Environ], Any]:
    try:
        known = members_of(subject)
    except InvalidSubject:
        known = {}
    if not known:
        raise InvalidRequestError(
            f"subject must be a callable of environ, or a subject with a level such as agent, got {subject!r:.80}"
        )
    return lambda environ: subject


class _Steps:
    """Runs the steps of one request with its subject, which a step may change for the next ones.

    Only the subject is exchanged: a copy of the whole context would separate the steps from what the server and the
    framework keep in theirs. Flask's test client, for one, ends a context that a step began.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def run(self, step: Callable[..., _T], *arguments: Any) -> _T:
        with cycles.subject(self._subject):
            try:
                return step(*arguments)
            finally:
                # A body may have entered or left a block with `cycles.subject` of its own.
                self._subject = cycles.current_subject() or self._subject


class _Body:
    """The body of a response, each step of which runs with the subject of its request."""

    def __init__(self, body: Iterable[bytes], steps: _Steps) -> None:
        self._body = body
        self._steps = steps
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._parts is None:
            self._parts = self._steps.run(iter, self._body)
        return self._steps.run(next, self._parts)

    def close(self) -> None:
        """Close the body; servers call it at the end of each request, also if the client has left."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._steps.run(close)
