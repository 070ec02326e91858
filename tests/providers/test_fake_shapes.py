"""Each body and event of the fake provider is the one of `fake_shapes.txt`, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers.fake_shapes import requests, sent, stored

CASES = list(requests())
STORED = stored()


def test_the_file_has_each_case_once() -> None:
    assert [name for name, *_ in CASES] == list(STORED)


@pytest.mark.parametrize(("name", "path", "body", "options"), CASES, ids=[name for name, *_ in CASES])
def test_what_is_sent(name: str, path: str, body: Any, options: Any) -> None:
    assert sent(path, body, options) == STORED[name]
