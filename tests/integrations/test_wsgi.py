"""WSGI: the subject holds while the application runs, for each step of its body, and never for the next request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import cycles
from cycles.integrations.wsgi import SubjectMiddleware


def agent_of(environ: dict[str, Any]) -> dict[str, str] | None:
    name = environ.get("HTTP_X_AGENT")
    return None if name is None else {"agent": name}


def seen() -> bytes:
    subject = cycles.current_subject()
    return b"none" if subject is None else json.dumps(subject.to_dict()).encode()


class Recorded:
    """An application that records the subject at each of its steps."""

    def __init__(self) -> None:
        self.steps: list[bytes] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.steps.append(seen())
        start_response("200 OK", [("content-type", "text/plain")])
        return self._body()

    def _body(self) -> Iterator[bytes]:
        try:
            for _ in range(2):
                self.steps.append(seen())
                yield b"part"
            with cycles.subject(app="inner"):
                yield seen()
                yield seen()
        finally:
            self.steps.append(seen())


def answered(app: Any, agent: str | None = None, *, most: int = 99, path: str = "/") -> tuple[str, list[bytes]]:
    """Send one request, read at most that many parts of its body, and close it, as a server does."""
    environ: dict[str, Any] = {"PATH_INFO": path, **({} if agent is None else {"HTTP_X_AGENT": agent})}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    body = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    parts: list[bytes] = []
    try:
        for part in body:
            assert cycles.current_subject() is None
            parts.append(part)
            if len(parts) == most:
                break
    finally:
        if hasattr(body, "close"):
            body.close()
    assert cycles.current_subject() is None
    return statuses[0], parts


def test_the_subject_holds_for_the_call_each_step_and_close() -> None:
    app = Recorded()
    status, parts = answered(SubjectMiddleware(app, agent_of), "a1")
    assert status == "200 OK"
    assert app.steps == [b'{"agent": "a1"}'] * 4
    assert parts[2:] == [b'{"app": "inner", "agent": "a1"}'] * 2


def test_it_holds_for_close_if_the_client_leaves() -> None:
    app = Recorded()
    answered(SubjectMiddleware(app, agent_of), "a1", most=1)
    assert app.steps == [b'{"agent": "a1"}'] * 3


def test_the_next_request_of_the_thread_has_its_own_subject_or_none() -> None:
    app = Recorded()
    guarded = SubjectMiddleware(app, agent_of, required=False)
    for agent in ("a1", "a2", None, "a3"):
        answered(guarded, agent, most=1)
    assert app.steps == [each for agent in ("a1", "a2", None, "a3") for each in [_text(agent)] * 3]


def _text(agent: str | None) -> bytes:
    return b"none" if agent is None else json.dumps({"agent": agent}).encode()


def test_the_subject_holds_where_the_body_begins_its_iteration() -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([seen()])

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Body()

    assert answered(SubjectMiddleware(app, agent_of), "a1")[1] == [b'{"agent": "a1"}']


@pytest.mark.parametrize("read", [0, 1, 2])
def test_the_subject_holds_where_the_body_is_closed(read: int) -> None:
    """Also if the client has left before the first part."""
    closed: list[bytes] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"one", b"two"])

        def close(self) -> None:
            closed.append(seen())

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Body()

    body: Any = SubjectMiddleware(app, agent_of)({"HTTP_X_AGENT": "a1"}, lambda *_: None)
    assert [next(body) for _ in range(read)] == [b"one", b"two"][:read]
    body.close()
    assert closed == [b'{"agent": "a1"}']
    assert cycles.current_subject() is None


@pytest.mark.parametrize("body", [[b"part"], (b"part",), [], ()])
@pytest.mark.parametrize("agent", ["a1", None])
def test_a_body_whose_length_servers_compute_stays_the_same_object(body: Any, agent: str | None) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return body  # type: ignore[no-any-return]

    environ: dict[str, Any] = {} if agent is None else {"HTTP_X_AGENT": agent}
    assert SubjectMiddleware(app, agent_of, required=False)(environ, lambda *_: None) is body


def test_an_exception_of_the_view_leaves_no_subject() -> None:
    def fails(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise LookupError(seen().decode())

    with pytest.raises(LookupError, match='"a1"'):
        SubjectMiddleware(fails, agent_of)({"HTTP_X_AGENT": "a1"}, lambda *_: None)
    assert cycles.current_subject() is None


def test_an_exception_of_the_body_leaves_no_subject() -> None:
    def fails(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        yield b"part"
        raise LookupError(seen().decode())

    body = iter(SubjectMiddleware(fails, agent_of)({"HTTP_X_AGENT": "a1"}, lambda *_: None))
    assert next(body) == b"part"
    with pytest.raises(LookupError, match='"a1"'):
        next(body)
    assert cycles.current_subject() is None


def test_steps_may_run_in_other_threads() -> None:
    app = Recorded()
    body = SubjectMiddleware(app, agent_of)({"HTTP_X_AGENT": "a1"}, lambda *_: None)
    thread = threading.Thread(target=lambda: list(body))
    thread.start()
    thread.join()
    assert app.steps == [b'{"agent": "a1"}'] * 4


@pytest.mark.parametrize("found", [None, {}, {"agent": None}, {"agent": "a b"}, {"agnt": "x"}, {"agent": 5}, "text"])
def test_without_a_usable_subject_the_application_does_not_run(found: Any) -> None:
    app = Recorded()
    status, parts = answered(SubjectMiddleware(app, lambda environ: found))
    assert status == "400 Bad Request"
    assert json.loads(b"".join(parts)) == {
        "type": "urn:cycles:problem:invalid-subject",
        "title": "Invalid subject",
        "status": 400,
        "code": "INVALID_SUBJECT",
    }
    assert app.steps == []


@pytest.mark.parametrize(
    "found", [{"agent": "a b"}, {"agent": ""}, {"agent": 0, "app": "a"}, {"dimensions": {"t": ""}}]
)
def test_an_unusable_subject_is_rejected_also_if_none_is_required(found: Any) -> None:
    app = Recorded()
    assert answered(SubjectMiddleware(app, lambda _: found, required=False))[0] == "400 Bad Request"
    assert app.steps == []


@pytest.mark.parametrize("subject", [cycles.Subject(agent="a1"), {"agent": "a1"}])
def test_a_fixed_subject_is_that_of_each_request(subject: Any) -> None:
    app = Recorded()
    answered(SubjectMiddleware(app, subject), most=1)
    assert app.steps == [b'{"agent": "a1"}'] * 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"app": None}, "app must be a WSGI application"),
        ({"subject": None}, "subject must be a callable of environ"),
        ({"subject": {}}, "subject must be a callable of environ"),
        ({"subject": {"agnt": "x"}}, "subject must be a callable of environ"),
        ({"subject": "agent"}, "subject must be a callable of environ"),
        ({"subject": lambda: {"agent": "bot"}}, r"subject must take \(environ\)"),
        ({"required": "agent"}, "required must be True or False"),
    ],
)
def test_wrong_values_are_rejected_when_it_is_made(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=says):
        SubjectMiddleware(**{"app": Recorded(), "subject": agent_of, **arguments})
    with pytest.raises(TypeError):
        SubjectMiddleware(Recorded(), agent_of, require=True)  # type: ignore[call-arg]


def test_it_keeps_the_rules_of_wsgi() -> None:
    def whole(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [seen()]

    app = validator(SubjectMiddleware(validator(whole), agent_of))
    environ: dict[str, Any] = {"HTTP_X_AGENT": "a1", "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    body = app(environ, lambda status, headers, exc_info=None: lambda data: None)
    assert list(body) == [b'{"agent": "a1"}']
    body.close()  # type: ignore[attr-defined]


@pytest.fixture
def spent(server: cycles.EmbeddedServer) -> Any:
    """Return what the agents bot and other have spent, in tokens."""
    for agent in ("bot", "other"):
        server.ledger.set_budget(f"tenant:acme/agent:{agent}", cycles.tokens(1_000))
    return lambda: tuple(server.spent(f"tenant:acme/agent:{agent}", "TOKENS").amount for agent in ("bot", "other"))


def test_a_guard_in_a_streamed_body_of_flask_is_charged_to_its_request(spent: Any, client: cycles.Cycles) -> None:
    flask = pytest.importorskip("flask", reason="flask is not installed: run make test-integrations")
    app = flask.Flask("tests")

    @app.get("/ask")
    def ask() -> Any:
        def body() -> Iterator[str]:
            for part in ("a", "b"):
                with client.reserve(cycles.tokens(10), action=("llm.completion", "x")) as guard:
                    guard.commit(cycles.tokens(7))
                yield part

        return flask.Response(flask.stream_with_context(body()))

    @app.get("/fail")
    def fail() -> Any:
        with client.reserve(cycles.tokens(10), action=("llm.completion", "x")):
            raise LookupError

    app.wsgi_app = SubjectMiddleware(app.wsgi_app, agent_of)
    with app.test_client() as http:
        assert http.get("/ask").status_code == 400
        assert http.get("/ask", headers={"X-Agent": "bot"}).data == b"ab"
        assert http.get("/ask", headers={"X-Agent": "other"}).data == b"ab"
        assert http.get("/fail", headers={"X-Agent": "bot"}).status_code == 500
        assert http.get("/ask").status_code == 400  # of the same thread, after an exception
    assert cycles.current_subject() is None
    assert spent() == (14, 14)


def test_a_guard_in_a_streamed_body_of_django_is_charged_to_its_request(spent: Any, client: cycles.Cycles) -> None:
    django = pytest.importorskip("django", reason="django is not installed: run make test-integrations")
    from django.conf import settings

    # Django has one configuration for a process, which another test may have set first.
    if not settings.configured:
        settings.configure(ROOT_URLCONF=[], ALLOWED_HOSTS=["*"], USE_TZ=True)
        django.setup()
    settings.SECRET_KEY = "for the page of an error"
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    from tests.integrations import django_urls

    django_urls.used["client"] = client
    urls = "tests.integrations.django_urls"
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=[]):
        app = SubjectMiddleware(WSGIHandler(), agent_of)
        assert answered(app)[0] == "400 Bad Request"
        assert answered(app, "bot") == ("200 OK", [b"a", b"b"])
        assert answered(app, "bot", path="/fail")[0] == "500 Internal Server Error"
        assert answered(app)[0] == "400 Bad Request"  # of the same thread, after an exception
        assert answered(app, "other", most=1) == ("200 OK", [b"a"])
    assert spent() == (14, 7)
    assert [str(row.status) for row in client.reservations(status="RELEASED")] == ["RELEASED"]
