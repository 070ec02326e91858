"""Where the subject of an ASGI request comes from, and which source wins; no framework is needed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import cycles
from cycles.integrations.asgi import RESPONSE_KEY, SubjectMiddleware


def subject_of(scope: dict[str, Any] | None = None, **options: Any) -> Any:
    """The subject that the application sees; the status of the response if it does not run."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(cycles.current_subject())

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    made: Any = SubjectMiddleware(app, **options)
    asyncio.run(made({"type": "http", "headers": [], **(scope or {})}, receive, send))
    [found] = seen
    return found if isinstance(found, int) else {name: value for name, value in found.to_dict().items() if value}


@pytest.mark.parametrize("fails_at", ["http.response.start", "http.response.body", None])
def test_a_message_that_was_not_sent_does_not_count(fails_at: str | None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("http.response.start", "http.response.body"):
            await send({"type": kind})

    async def send(message: Any) -> None:
        if message["type"] == fails_at:
            raise ConnectionResetError

    async def main() -> None:
        made: Any = SubjectMiddleware(app)
        with contextlib.suppress(ConnectionResetError):
            await made(scope, None, send)

    scope: dict[str, Any] = {"type": "http", "headers": []}
    asyncio.run(main())
    state = scope[RESPONSE_KEY]
    assert (state.started, state.complete, state.left) == {
        "http.response.start": (False, False, False),
        "http.response.body": (True, False, True),
        None: (True, True, False),
    }[fails_at]


def test_the_start_and_the_end_of_the_server_reach_the_application() -> None:
    """They have no headers, and no subject is required of them."""
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.append(given)

    async def main() -> None:
        made: Any = SubjectMiddleware(app, required=["agent"])
        await made(scope, "receive", "send")

    scope: dict[str, Any] = {"type": "lifespan"}
    asyncio.run(main())
    assert seen == [({"type": "lifespan"}, "receive", "send")]


HEADERS = {"headers": [(b"x-agent", b"from-header"), (b"X-Flow", b"flow")]}
NAMES = {"X-Agent": "agent", "x-flow": "workflow"}
CLAIMS = {"state": {"claims": {"sub": "from-claim", "team": "t"}}}
FROM_CLAIMS = {"sub": "agent", "team": "dimensions.team"}


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({"headers": NAMES}, {"agent": "from-header", "workflow": "flow"}),
        ({"claims": FROM_CLAIMS}, {"agent": "from-claim", "dimensions": {"team": "t"}}),
        (
            {"headers": NAMES, "claims": FROM_CLAIMS},
            {"agent": "from-claim", "workflow": "flow", "dimensions": {"team": "t"}},
        ),
        (
            {"headers": NAMES, "subject": lambda scope: {"workspace": "w"}},
            {"agent": "from-header", "workflow": "flow", "workspace": "w"},
        ),
        (
            {"headers": NAMES, "subject": lambda scope: cycles.Subject(agent="own")},
            {"agent": "own", "workflow": "flow"},
        ),
        (
            {"claims": {"team": "dimensions.cost.center"}, "subject": lambda scope: {"dimensions": {"a.b": "c"}}},
            {"dimensions": {"cost.center": "t", "a.b": "c"}},
        ),
        ({"headers": {"x-flow": "dimensions.x.y"}}, {"dimensions": {"x.y": "flow"}}),
        ({"headers": NAMES, "subject": lambda scope: None}, {"agent": "from-header", "workflow": "flow"}),
    ],
)
def test_sources_add_up_and_the_callable_wins(options: dict[str, Any], subject: dict[str, Any]) -> None:
    assert subject_of({**HEADERS, **CLAIMS}, **options) == subject


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"agent": ""}, 400),
        ({"agent": 0}, 400),
        ({"dimensions": {"team": ""}}, 400),
        ({"dimensions": {"": "x"}}, 400),
        ({"dimensions": {"team": None}, "agent": "a"}, {"agent": "a"}),
        ({"dimensions": None, "agent": "a"}, {"agent": "a"}),
        ({"dimensions": {}, "agent": None}, {}),
        ({"dimensions": "text"}, 400),
        (["agent"], 400),
        ({}, {}),
    ],
)
def test_a_value_of_the_callable_that_is_no_name_is_400_and_none_is_left_out(given: Any, found: Any) -> None:
    assert subject_of(subject=lambda scope: given) == found


@pytest.mark.parametrize("value", ["", 0, False, "a b"])
def test_a_verified_claim_that_is_no_name_is_400_and_not_left_out(value: object) -> None:
    scope = {**HEADERS, "state": {"claims": {"sub": value}}}
    assert subject_of(scope, headers=NAMES, claims=FROM_CLAIMS) == 400


def test_a_claim_that_is_none_is_left_out() -> None:
    scope = {"state": {"claims": {"sub": None, "team": "t"}}}
    assert subject_of(scope, claims=FROM_CLAIMS) == {"dimensions": {"team": "t"}}


class User:
    claims = CLAIMS["state"]["claims"]


@pytest.mark.parametrize("state", [{}, {"state": None}, {"state": {}}, {"state": {"claims": None}}])
def test_the_claims_of_the_user_count_if_the_state_has_none(state: dict[str, Any]) -> None:
    assert subject_of({**state, "user": User()}, claims={"sub": "agent"}) == {"agent": "from-claim"}
    assert subject_of({**state, "user": object()}, claims={"sub": "agent"}) == {}
    own = {"state": {"claims": {"sub": "own"}}, "user": User()}
    assert subject_of(own, claims={"sub": "agent"}) == {"agent": "own"}


def test_each_required_level_must_be_there() -> None:
    assert subject_of(HEADERS, headers=NAMES, required=["agent", "workflow"]) == {
        "agent": "from-header",
        "workflow": "flow",
    }
    for missing in ("workspace", "dimensions.team"):
        assert subject_of(HEADERS, headers=NAMES, required=["agent", missing, "workflow"]) == 400


def test_a_required_level_may_come_from_the_headers_the_claims_or_the_callable() -> None:
    async def later() -> dict[str, str]:
        return {"workspace": "w"}

    scope, sources = HEADERS | CLAIMS, {"headers": NAMES, "claims": {"sub": "toolset"}}
    required = ["agent", "toolset", "workspace"]
    found = {"agent": "from-header", "workflow": "flow", "toolset": "from-claim", "workspace": "w"}
    assert subject_of(scope, **sources, subject=lambda scope: {"workspace": "w"}, required=required) == found
    assert subject_of(scope, **sources, subject=lambda scope: later(), required=required) == found
    assert subject_of(scope, **sources, subject=lambda scope: {"agent": "a"}, required=required) == 400


def test_a_response_that_ends_in_the_middle_of_its_body_was_left() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        await send({"type": "http.response.body", "more_body": True})

    async def send(message: Any) -> None:
        pass

    made: Any = SubjectMiddleware(app)
    scope: dict[str, Any] = {"type": "http", "headers": []}
    asyncio.run(made(scope, None, send))
    assert scope[RESPONSE_KEY].left


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-agent", b"a"), (b"X-AGENT", b"b")],
        [(b"x-agent", b"")],
        [(b"x-agent", b"a b")],
        [(b"x-agent", b"x" * 129)],
        [(b"x-agent", "ä".encode())],
    ],
)
def test_a_header_that_is_missing_or_no_name_is_400(headers: list[tuple[bytes, bytes]]) -> None:
    assert subject_of({"headers": headers}, headers={"x-agent": "agent"}, required=["agent"]) == 400


def test_the_longest_name_passes() -> None:
    longest = [(b"x-agent", b"x" * 128)]
    assert subject_of({"headers": longest}, headers={"x-agent": "agent"}) == {"agent": "x" * 128}
