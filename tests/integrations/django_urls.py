"""The views of the Django application of `test_wsgi.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cycles

used: dict[str, cycles.Cycles] = {}
"""The client of the test, as ``client``."""


def ask(request: Any) -> Any:
    """Stream two parts, each with a guard."""
    from django.http import StreamingHttpResponse

    def body() -> Iterator[bytes]:
        for part in (b"a", b"b"):
            with used["client"].reserve(cycles.tokens(10), action=("llm.completion", "x")) as guard:
                guard.commit(cycles.tokens(7))
            yield part

    return StreamingHttpResponse(body())


def fail(request: Any) -> Any:
    """Raise, in the block of a guard."""
    with used["client"].reserve(cycles.tokens(10), action=("llm.completion", "x")):
        raise LookupError


def __getattr__(name: str) -> Any:
    if name == "urlpatterns":
        from django.urls import path

        return [path("", ask), path("fail", fail)]
    raise AttributeError(name)
