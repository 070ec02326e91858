"""FastAPI and ASGI: the subject of a request comes from its headers, its claims or a callable."""

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

import cycles

pytest.importorskip("fastapi")

from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from cycles.integrations.fastapi import SubjectMiddleware
from tests.integrations.asgi_client import connect, make_app, send_to

pytestmark = pytest.mark.anyio


async def seen_subject() -> Any:
    subject = cycles.current_subject()
    return None if subject is None else subject.to_dict()


@pytest.mark.parametrize(
    ("middleware", "headers", "state", "subject"),
    [
        ({"headers": {"X-Customer": "workspace"}}, {"X-Customer": "c1"}, {}, {"workspace": "c1"}),
        ({"headers": {"X-Team": "dimensions.team"}}, {"X-Team": "t1"}, {}, {"dimensions": {"team": "t1"}}),
        ({"claims": {"sub": "agent"}}, {}, {"claims": {"sub": "a1"}}, {"agent": "a1"}),
        ({"claims": {"sub": "agent"}, "claims_of": lambda scope: {"sub": "a2"}}, {}, {}, {"agent": "a2"}),
        (
            {"headers": {"X-A": "agent"}, "claims": {"sub": "agent"}},
            {"X-A": "forged"},
            {"claims": {"sub": "verified"}},
            {"agent": "verified"},
        ),
        (
            {"headers": {"X-A": "agent"}, "subject": lambda scope: cycles.Subject(agent="own", app="x")},
            {"X-A": "header"},
            {},
            {"agent": "own", "app": "x"},
        ),
        ({}, {}, {}, {}),
    ],
)
async def test_the_subject_comes_from_headers_claims_and_the_callable(
    middleware: Any, headers: Any, state: Any, subject: Any
) -> None:
    response = await send_to(make_app(seen_subject, middleware=[middleware]), headers=headers, state=state)
    assert response.json == subject
    assert cycles.current_subject() is None


@pytest.mark.parametrize(
    ("middleware", "raw"),
    [
        ({"headers": {"X-A": "agent"}}, [(b"x-a", b"a b")]),
        ({"headers": {"X-A": "agent"}}, [(b"x-a", b"")]),
        ({"headers": {"X-A": "agent"}}, [(b"x-a", b"a"), (b"X-A", b"b")]),
        ({"headers": {"X-A": "agent"}, "required": ["agent"]}, [(b"x-b", b"b")]),
        ({"claims": {"sub": "agent"}, "claims_of": lambda scope: {"sub": 5}}, [(b"x-b", b"b")]),
        ({"subject": lambda scope: {"agent": "x" * 129}}, [(b"x-b", b"b")]),
        ({"subject": lambda scope: {"level": "x"}}, [(b"x-b", b"b")]),
    ],
)
async def test_a_subject_that_is_invalid_is_rejected_and_never_another_budget(middleware: Any, raw: Any) -> None:
    app = make_app(seen_subject, middleware=[middleware])
    response = await send_to(app, raw=raw)
    assert (response.status, response.json["code"]) == (400, "INVALID_SUBJECT")
    headers = {name.decode(): value.decode() for name, value in dict(raw).items()}
    if len(raw) == 1:
        assert await connect(app, "/ws", headers) == [{"type": "websocket.close", "code": 1008}]


async def test_the_subject_holds_for_the_streamed_body_and_background_tasks() -> None:
    seen: list[Any] = []

    async def ask() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            seen.append(await seen_subject())
            yield b"x"

        async def later() -> None:
            seen.append(await seen_subject())

        return StreamingResponse(body(), background=BackgroundTask(later))

    await send_to(make_app(ask, middleware=[{"headers": {"X-A": "agent"}}]), headers={"X-A": "a"})
    assert seen == [{"agent": "a"}] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"X-T": "tenant"}},
        {"headers": {"X-T": "level"}},
        {"claims": ["sub"]},
        {"claims": {"sub": "dimensions."}},
        {"subject": {"agent": "a"}},
        {"required": ["nothing"]},
    ],
)
def test_wrong_options_of_the_middleware_are_rejected(options: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError):
        SubjectMiddleware(lambda *_: None, **options)  # type: ignore[arg-type, return-value]


def test_asgi_needs_no_framework() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = sys.modules['starlette'] = None\n"
        "from cycles.integrations.asgi import SubjectMiddleware, lifespan"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
