"""A guarded call leaves no object of this package in a reference cycle, so that it is freed at once."""

from __future__ import annotations

from tests.performance.conftest import GARBAGE_RUNS, garbage
from tests.providers.conftest import USED, Sdk


def test_a_response_leaves_nothing_to_the_garbage_collector(sdk: Sdk) -> None:
    for _ in range(1 + GARBAGE_RUNS):
        sdk.desk.provider.reply(usage=USED)
    sdk.complete()
    assert garbage(sdk.complete) == []
