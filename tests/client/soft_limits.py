"""The scope and the action of the tests of soft limits, and a reservation that is committed immediately."""

from __future__ import annotations

from typing import Any

import cycles

SCOPE = "tenant:acme"
ACTION = ("llm.completion", "m")


def spend(client: cycles.Cycles, dollars: int, **options: Any) -> None:
    client.reserve(cycles.usd(dollars), action=ACTION, **options).acquire().commit(cycles.usd(dollars))
