"""The registry of action kinds, policy keys, and the checks of both."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import cycles
from tests.client.conftest import World
from tests.client.next_protocol.conftest import MAIL

pytestmark = pytest.mark.anyio


def test_an_undeclared_custom_kind_is_rejected(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    deploy = cycles.Action("custom.acme.deploy", "deploy")
    with pytest.raises(cycles.ProtocolError, match="not declared"):
        client.reserve(cycles.tokens(1), action=deploy).acquire()
    server.ledger.set_action_kind("custom.acme.deploy", risk_class="high_risk")
    client.reserve(cycles.tokens(1), action=deploy).acquire().release()
    assert "custom.acme.deploy" not in {kind.kind for kind in client.action_kinds()}


async def test_the_registry_is_read_without_a_key(world: World, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_action_kind("code.exec", risk_class="high_risk", replacement_kind="code.deploy")
    server.requests.clear()
    found = await world.all(world.operations.action_kinds(risk_class="high_risk"))
    names = [kind.kind for kind in found]
    assert "code.deploy" in names
    assert "code.exec" not in names
    every = await world.all(world.operations.action_kinds(include_deprecated=True))
    assert {kind.kind for kind in every} == set(cycles.kinds.BUILT_IN)
    old = await world.get(world.operations.action_kind("code.exec"))
    assert (old.deprecated, old.replacement_kind, old.risk_class) == (True, "code.deploy", "high_risk")
    with pytest.raises(cycles.NotFoundError):
        await world.get(world.operations.action_kind("code"))
    assert not [each for each in server.requests if "x-cycles-api-key" in each.headers]


def test_the_registry_may_be_cached_and_compared_by_its_tag(server: cycles.EmbeddedServer) -> None:
    with httpx.Client(transport=server.transport(), base_url="http://cycles.test") as http:
        for path in ("/v1/action-kinds?limit=5", "/v1/action-kinds/code.exec"):
            first = http.get(path)
            tag = first.headers["ETag"]
            assert (first.status_code, first.headers["Cache-Control"]) == (200, "public, max-age=3600")
            for known in (tag, f'"other", W/{tag}', "*"):
                again = http.get(path, headers={"If-None-Match": known})
                assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
            assert http.get(path, headers={"If-None-Match": '"other"'}).json() == first.json()
        server.ledger.set_action_kind("code.exec", replacement_kind="code.deploy")
        assert http.get("/v1/action-kinds/code.exec", headers={"If-None-Match": tag}).status_code == 200
        missing = http.get("/v1/action-kinds/nope.nope", headers={"If-None-Match": "*"})
        assert (missing.status_code, "ETag" in missing.headers) == (404, False)


def test_a_deprecated_kind_is_reported_once_per_client(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    server.ledger.set_action_kind(MAIL.kind, replacement_kind="message.chat.post")
    seen: list[Any] = []
    client.on_event(seen.append)
    with pytest.warns(DeprecationWarning, match=r"message\.email\.send is deprecated: use message\.chat\.post"):
        client.reserve(cycles.tokens(1), action=MAIL).acquire().release()
    client.reserve(cycles.tokens(1), action=MAIL).acquire().release()
    reported = [event for event in seen if isinstance(event, cycles.events.ActionKindDeprecated)]
    assert [(event.kind, event.replacement) for event in reported] == [("message.email.send", "message.chat.post")]


def test_built_in_kinds_and_tools() -> None:
    assert len(cycles.kinds.BUILT_IN) == 62
    assert cycles.kinds.BUILT_IN["code.exec"].risk_class == "high_risk"
    assert cycles.kinds.BUILT_IN["message.email.send"].policy_key_spec == {"host": "", "recipient_domain": ""}
    tools = ("send_email_to_user", "chat_send_now", "chat_now", "embed_and_store", "embed_text", "look_up")
    assert [cycles.kinds.for_tool(tool) for tool in tools] == [
        "message.email.send",
        "message.chat.post",
        "llm.completion",
        "vector.upsert",
        "llm.embedding",
        "unknown.call",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "https://api.example"},
        {"host": "api.example:443"},
        {"host": "a" * 254},
        {"path_prefix": "relative"},
        {"custom": {str(n): "" for n in range(9)}},
        {"custom": {"a": "b" * 257}},
        {"custom": 5},
        {"resource_type": 5},
    ],
)
def test_wrong_policy_keys_are_rejected_before_sending(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(cycles.InvalidRequestError, match=rf"^policy_keys\.{name}"):
        cycles.PolicyKeys(**wrong)


def test_policy_keys_can_be_members_of_a_set() -> None:
    keys = [cycles.PolicyKeys(host="api.example", custom={"a": "b"}) for _ in range(2)]
    assert len({*keys, cycles.PolicyKeys(host="other.example")}) == 2


def test_a_kind_that_is_too_long_and_a_wrong_run_are_rejected(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"action\.kind"):
        client.reserve(cycles.tokens(1), action=("k" * 65, "n"))
    with pytest.raises(cycles.InvalidRequestError, match="run_id"):
        cycles.run("")
    with pytest.raises(cycles.InvalidRequestError, match="on_observed must be one of raise, run"):
        client.reserve(cycles.tokens(1), action=MAIL, on_observed="maybe")  # type: ignore[arg-type]
