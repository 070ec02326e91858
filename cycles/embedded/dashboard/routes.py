"""Handle the requests below `/dashboard`, without a socket: `Request` in, `Response` out, or an id to stream from."""

from __future__ import annotations

import json
import secrets
from typing import Any, Final
from urllib.parse import parse_qs

from attrs import frozen

from cycles._errors import InvalidRequestError
from cycles.embedded.clock import Clock, ManualClock
from cycles.embedded.dashboard import checks
from cycles.embedded.dashboard.control import Controls
from cycles.embedded.dashboard.feed import Feed
from cycles.embedded.dashboard.history import PERIODS
from cycles.embedded.dashboard.redaction import Redactor
from cycles.embedded.dashboard.rows import SORTS
from cycles.embedded.dashboard.static_files import static_files
from cycles.embedded.dashboard.summary import GROUPINGS, View
from cycles.embedded.faults import Faults
from cycles.embedded.http import JSON, Request, Response
from cycles.embedded.operator import Operator

PATH: Final = "/dashboard"
MAX_CONTROL_BYTES: Final = 10_000


@frozen
class Stream:
    """A request for the events after an id."""

    last_event_id: int


class Dashboard:
    """The dashboard of one server: its token, its feed and its controls."""

    def __init__(self, operator: Operator, faults: Faults, clock: Clock, admin_api_key: str | None) -> None:
        self.token: str = secrets.token_urlsafe(24)
        redactor = Redactor([*operator.api_keys(), admin_api_key])
        operator.observe(redactor.changed)
        self._encode = redactor.encode
        self._is_manual = isinstance(clock, ManualClock)
        self.feed: Feed = Feed(operator, faults, clock, redactor.encode)
        self._controls = Controls(operator, faults, clock)

    def handle(self, request: Request, listening: frozenset[str], *, reads_freely: bool) -> Response | Stream:
        """Return the response to a request, or the id from which to stream events.

        Args:
            listening: The addresses and names that the server listens on.
            reads_freely: Whether state and events need no token.
        """
        problem = checks.problem_of(request.headers, listening)
        if problem is not None:
            return self._message(403, problem)
        if request.path == "/" and request.method in ("GET", "HEAD"):
            return Response(302, checks.HEADERS | {"Location": PATH}, b"")
        below = request.path.removeprefix(PATH)
        found = static_files().get(below)
        allowed = ("GET", "HEAD") if found is not None else (("POST",) if below == "/control" else ("GET",))
        if request.method not in allowed:
            return self._message(405, f"unknown method for this path; use {allowed[0]}", Allow=", ".join(allowed))
        if found is not None:
            content = b"" if request.method == "HEAD" else found.content
            return Response(200, checks.HEADERS | {"Content-Type": found.media_type}, content)
        if (below == "/control" or not reads_freely) and not checks.has_token(request.headers, self.token):
            message = "the token is missing or wrong; open the address that the server printed, with its fragment"
            return self._message(401, message, **{"WWW-Authenticate": "Bearer"})
        return self._data(below, request)

    def _data(self, below: str, request: Request) -> Response | Stream:
        if below == "/control":
            return self._control(request)
        if below == "/events":
            return Stream(self._last_event_id(request.headers.get("last-event-id")))
        if below == "/state":
            query = parse_qs(request.target.partition("?")[2])
            scope, search = (query.get(name, [""])[-1].strip().lower() for name in ("scope", "search"))
            sort = query.get("sort", ["share"])[-1]
            if sort not in SORTS:
                return self._message(400, f"unknown sort: {sort!r:.80}; use {', '.join(SORTS)}")
            clock = {"X-Cycles-Clock": "manual" if self._is_manual else "system"}
            return self._json(200, self.feed.state(scope.strip("/"), search, sort), **clock)
        if below == "/summary":
            return self._summary(parse_qs(request.target.partition("?")[2]))
        if below == "/denials":
            return self._json(200, self.feed.denied())
        name, _, number = below[1:].partition("/")
        if name == "requests" and number.isdecimal() and len(number) < 20:
            bodies = self.feed.request(int(number))
            if bodies is not None:
                return self._json(200, bodies)
        return self._message(404, "the dashboard has no such path, or does not keep this request any more")

    def _summary(self, query: dict[str, list[str]]) -> Response:
        given = {name: query[name][-1] for name in ("unit", "period", "by") if name in query}
        view = View(query.get("scope", [""])[-1].strip().lower().strip("/"), **given)
        for name, value, known in (("period", view.period, tuple(PERIODS)), ("by", view.by, GROUPINGS)):
            if value not in known:
                return self._message(400, f"unknown {name}: {value!r:.80}; use {', '.join(known)}")
        return self._json(200, self.feed.summary(view))

    def _last_event_id(self, given: str | None) -> int:
        if given is None:
            return self.feed.last_event_id
        return int(given) if given.isdecimal() and len(given) < 20 else -1

    def _control(self, request: Request) -> Response:
        if len(request.body) > MAX_CONTROL_BYTES:
            return self._message(400, f"the body is too large; send at most {MAX_CONTROL_BYTES} bytes")
        try:
            form = json.loads(request.body)
        except (ValueError, RecursionError):
            return self._message(400, "the body is not JSON; send an object like {'do': 'clear_faults'}")
        try:
            return self._message(200, self._controls.run(form))
        except InvalidRequestError as wrong:
            return self._message(400, str(wrong))

    def _message(self, status: int, message: str, **headers: str) -> Response:
        return self._json(status, {"message": message}, **headers)

    def _json(self, status: int, body: Any, **headers: str) -> Response:
        return Response(status, checks.HEADERS | {"Content-Type": JSON} | headers, self._encode(body))
