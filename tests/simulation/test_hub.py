"""The simulated machine keeps apart what Python keeps for each thread."""

from __future__ import annotations

import sys
from functools import partial

from tests.simulation.hub import Hub


def test_each_thread_has_its_own_async_generator_hooks() -> None:
    hub = Hub(0)
    process = hub.process("program")
    seen: dict[str, list[object]] = {"one": [], "two": []}

    def body(name: str) -> None:
        sys.set_asyncgen_hooks(seen[name].append, None)
        for _ in range(3):
            hub.sleep(1.0)
            firstiter = sys.get_asyncgen_hooks().firstiter
            assert firstiter is not None
            firstiter(name)  # type: ignore[arg-type]

    for name in seen:
        hub.start(process, partial(body, name), name)
    hub.run(lambda: False, deadline_s=hub.now_s + 10)
    assert hub.failures == []
    assert seen == {"one": ["one"] * 3, "two": ["two"] * 3}
    assert sys.get_asyncgen_hooks().firstiter is None
