"""One client with a server of protocol 0.1.25 and with one of 0.1.26."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.client.conftest import BUDGETS, spent
from tests.client.next_protocol.conftest import MAIL


def test_a_client_that_uses_nothing_new_works_with_both_servers(tmp_path: Path) -> None:
    sent = []
    for version in ("0.1.25", "0.1.26"):
        with cycles.EmbeddedServer({"tenant:acme": BUDGETS}, protocol=version) as server:
            with server.client(tenant="acme", journal_dir=tmp_path / version) as client:
                with client.reserve(cycles.tokens(5), action=("llm.completion", "m")) as guard:
                    guard.extend()
                    guard.commit(cycles.tokens(3))
                client.record(cycles.tokens(1), action=("llm.completion", "m"))
                assert client.decide(cycles.tokens(1), action=("llm.completion", "m")).allowed
            assert spent(server) == 4
            sent.append([each.operation for each in server.requests])
            assert not [each for each in server.requests if b"observe_mode" in each.body or b"policy_keys" in each.body]
    assert sent[0] == sent[1]


def test_an_old_server_rejects_new_members_that_the_caller_passes() -> None:
    with cycles.EmbeddedServer({"tenant:acme": BUDGETS}) as server, server.client(tenant="acme") as client:
        cases: list[dict[str, Any]] = [{"action": MAIL}, {"action": ("llm.completion", "m"), "observe": True}]
        for options in cases:
            with pytest.raises(cycles.ProtocolError) as caught:
                client.reserve(cycles.tokens(1), **options).acquire()
            assert (caught.value.status, caught.value.code) == (400, "INVALID_REQUEST")
        with pytest.raises(cycles.UnauthorizedError):  # an old server requires a key for every path that it lacks
            client.action_kind("code.exec")
