"""The bound of a conversation: never below what a tokenizer counts, and only for what is equal."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import cycles
from cycles.providers._conversations import MOST_KEPT, Conversations, chain_of
from tests.providers.conftest import Anthropic, AsyncOpenAI, Desk, Gemini, OpenAI, Responses, Sdk
from tests.support.short import fewer

ORIGIN = ("m", "http://provider")
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def chain(body: dict[str, Any], endpoint: str = "chat.completions", origin: tuple[str, ...] = ORIGIN) -> Any:
    return chain_of(endpoint, origin, body)


def said(*texts: str) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


def known(body: dict[str, Any], tokens: int, endpoint: str = "chat.completions") -> Conversations:
    kept = Conversations()
    kept.learn(chain(body, endpoint), tokens)
    return kept


# --- a tokenizer: byte pairs merged by rank, special tokens around each message

Merges = dict[tuple[bytes, bytes], int]


def pieces(text: bytes, merges: Merges) -> int:
    """Count the tokens of some text."""
    parts = [bytes([byte]) for byte in text]
    while len(parts) > 1:
        ranked = [(merges.get((one, two), 1 << 30), place) for place, (one, two) in enumerate(pairwise(parts))]
        rank, place = min(ranked)
        if rank == 1 << 30:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return len(parts)


def count(body: dict[str, Any], merges: Merges) -> int:
    """Count a request as a provider does: its tools and system prompt, each message between special tokens."""
    others = {name: value for name, value in body.items() if name != "messages"}
    tokens = pieces(json.dumps(others, ensure_ascii=False).encode(), merges) if others else 0
    for message in body["messages"]:
        tokens += 4 + pieces(str(message["role"]).encode(), merges)
        content = message["content"]
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        tokens += sum(1 + pieces(text.encode(), merges) for text in texts)
    return tokens + 3


words = st.text(alphabet='abcdeé ß\n中😀{}"<|>', max_size=30)
contents = words | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": words}), max_size=3)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": contents}), max_size=6
)


@st.composite
def all_merges(draw: st.DrawFn) -> Merges:
    generator = random.Random(draw(st.integers(0, 10_000)))
    alphabet = [character.encode() for character in 'abcde ß{}"<']
    found: Merges = {}
    parts = [bytes([byte]) for each in alphabet for byte in each]
    for rank in range(draw(st.integers(0, 40))):
        one, two = generator.choice(parts), generator.choice(parts)
        found.setdefault((one, two), rank)
        parts.append(one + two)
    return found


@settings(max_examples=fewer(150), deadline=None)
@given(first=messages.filter(bool), added=messages, merges=all_merges(), with_tools=st.booleans())
def test_the_bound_is_never_below_the_count(first: Any, added: Any, merges: Merges, with_tools: bool) -> None:
    others = {"tools": TOOLS, "model": "m"} if with_tools else {"model": "m"}
    before, after = {**others, "messages": first}, {**others, "messages": [*first, *added]}
    bound = known(before, count(before, merges)).bound(chain(after), "gpt-4o")
    assert bound is not None
    assert count(after, merges) <= bound


@settings(max_examples=fewer(100), deadline=None)
@given(turns=st.lists(messages.filter(bool), min_size=1, max_size=5), merges=all_merges())
def test_the_bound_of_a_conversation_that_grows_is_never_below_the_count(turns: Any, merges: Merges) -> None:
    kept = Conversations()
    so_far: list[Any] = []
    for turn in turns:
        so_far = [*so_far, *turn]
        body = {"model": "m", "messages": so_far}
        bound = kept.bound(chain(body), "gpt-4o")
        if bound is not None:
            assert count(body, merges) <= bound
        kept.learn(chain(body), count(body, merges))
        assert kept.bound(chain(body), "gpt-4o") == count(body, merges)
    assert kept.bound(chain({"model": "m", "messages": so_far}), "gpt-4o") is not None


# --- what is equal

BODY: dict[str, Any] = {"model": "m", "messages": said("hello", "hi", "how are you"), "tools": TOOLS}


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.1},
        {"top_p": 0.5, "seed": 3},
        {"max_tokens": 5},
        {"metadata": {"a": "b"}},
        {"user": "u"},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_sampling_limits_metadata_user_and_streaming_do_not_matter(change: dict[str, Any]) -> None:
    longer = {**BODY, **change, "messages": [*BODY["messages"], *said("x" * 50)]}
    bound = known(BODY, 100).bound(chain(longer), "gpt-4o")
    assert bound == 100 + len(json.dumps(said("x" * 50), separators=(",", ":")))


def edited(body: dict[str, Any]) -> None:
    body["messages"][1]["content"] = "hi!"


def reordered(body: dict[str, Any]) -> None:
    body["messages"].reverse()


def shortened(body: dict[str, Any]) -> None:
    del body["messages"][0]


def first_half(body: dict[str, Any]) -> None:
    del body["messages"][1:]


def other_tools(body: dict[str, Any]) -> None:
    body["tools"] = [*TOOLS, *TOOLS]


def other_model(body: dict[str, Any]) -> None:
    body["model"] = "other"


def system(body: dict[str, Any]) -> None:
    body["system"] = "Be kind"


def response_format(body: dict[str, Any]) -> None:
    body["response_format"] = {"type": "json_object"}


@pytest.mark.parametrize(
    "change", [edited, reordered, shortened, first_half, other_tools, other_model, system, response_format]
)
def test_what_is_not_equal_does_not_match(change: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(BODY)
    change(changed)
    assert known(BODY, 100).bound(chain(changed), "gpt-4o") is None


def test_another_address_or_endpoint_does_not_match() -> None:
    kept = known(BODY, 100)
    assert kept.bound(chain(BODY, origin=("m", "http://other")), "gpt-4o") is None
    assert kept.bound(chain(BODY, origin=("n", "http://provider")), "gpt-4o") is None
    assert kept.bound(chain(BODY, endpoint="messages"), "gpt-4o") is None


def test_cache_control_does_not_matter() -> None:
    marked = copy.deepcopy(BODY)
    marked["messages"][0]["content"] = [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]
    moved = copy.deepcopy(marked)
    del moved["messages"][0]["content"][0]["cache_control"]
    moved["messages"].append({"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}})
    moved["tools"] = [{**TOOLS[0], "cache_control": {"type": "ephemeral"}}]
    assert known(marked, 100).bound(chain(moved), "gpt-4o") is not None


@pytest.mark.parametrize(
    "member",
    [
        {"previous_response_id": "r"},
        {"conversation": "c"},
        {"prompt": {"id": "p"}},
        {"cachedContent": "c"},
        {"truncation": "auto"},
        {"context_management": {"edits": []}},
    ],
)
def test_input_that_the_request_does_not_show_is_not_bounded_so(member: dict[str, Any]) -> None:
    assert chain({**BODY, **member}) is None


def test_media_that_are_named_by_an_address_are_not_bounded_so() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert chain({"model": "m", "messages": [{"role": "user", "content": [image]}]}) is None
    image["image_url"] = {"url": "data:image/png;base64,AAAA"}
    assert chain({"model": "m", "messages": [{"role": "user", "content": [image]}]}) is not None


def test_the_longest_known_beginning_counts_and_the_oldest_is_dropped() -> None:
    kept = known({**BODY, "messages": BODY["messages"][:1]}, 10)
    kept.learn(chain(BODY), 30)
    assert kept.bound(chain(BODY), "gpt-4o") == 30
    for number in range(MOST_KEPT):
        kept.learn(chain({"model": "m", "messages": said(str(number))}), 1)
    assert kept.bound(chain(BODY), "gpt-4o") is None


def test_a_conversation_that_is_used_is_kept_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles.providers._conversations.MOST_KEPT", 2)
    kept = Conversations()
    bodies = [{"model": "m", "messages": said(text)} for text in ("one", "two", "three")]
    kept.learn(chain(bodies[0]), 10)
    kept.learn(chain(bodies[1]), 20)
    assert kept.bound(chain(bodies[0]), "gpt-4o") == 10
    kept.learn(chain(bodies[2]), 30)
    assert [kept.bound(chain(body), "gpt-4o") for body in bodies] == [10, None, 30]
    kept.learn(chain(bodies[0]), 5)  # the largest count stays
    kept.learn(chain(bodies[1]), 20)
    assert [kept.bound(chain(body), "gpt-4o") for body in bodies] == [10, 20, None]


def test_the_first_messages_of_a_conversation_bound_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {**BODY, "messages": BODY["messages"][:1]}
    rest = len(json.dumps(BODY["messages"][1:], separators=(",", ":")))
    assert known(first, 10).bound(chain(BODY), "gpt-4o") == 10 + rest
    assert known(BODY, 10).bound(chain(BODY), "gpt-4o") == 10


@pytest.mark.parametrize(
    ("body", "is_bounded"),
    [
        ({"messages": []}, False),
        ({"messages": "hello"}, True),
        ({"messages": 5}, False),
        ({}, False),
        ({"messages": [{"content": {1, 2}}]}, False),
        ({"messages": said("a"), "truncation": None}, True),
        ({"messages": said("a"), "truncation": "auto", "prompt": None}, False),
        ({"messages": [{"content": [{"fileData": {"fileUri": "gs://x"}}]}]}, False),
        ({"messages": [{"content": [{"s3Location": {"uri": "s3://x"}}]}]}, False),
    ],
)
def test_which_requests_are_bounded_by_a_conversation(body: dict[str, Any], is_bounded: bool) -> None:
    assert (chain(body) is not None) is is_bounded
    assert chain(body, endpoint="embeddings") is None


def test_the_order_of_members_does_not_matter_and_other_scripts_are_counted_as_they_are_sent() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "日本"}]}
    turned = {"messages": [{"content": "日本", "role": "user"}], "model": "m"}
    assert known(body, 7).bound(chain(turned), "gpt-4o") == 7
    longer = {"model": "m", "messages": [*body["messages"], {"role": "user", "content": "日本"}]}
    text = json.dumps([longer["messages"][1]], separators=(",", ":"), ensure_ascii=False)
    assert known(body, 7).bound(chain(longer), "gpt-4o") == 7 + len(text.encode())


def test_sampling_of_gemini_is_inside_its_config() -> None:
    body = {"contents": [{"parts": [{"text": "a"}]}], "generationConfig": {"temperature": 1, "maxOutputTokens": 5}}
    other = {**body, "generationConfig": {"temperature": 0}}
    schema = {**body, "generationConfig": {"responseMimeType": "application/json"}}
    kept = known(body, 10, "models.generate_content")
    assert kept.bound(chain({**body, "toolConfig": {"seed": 1}}, "models.generate_content"), "gpt-4o") is None
    tools = known({**body, "toolConfig": {"seed": 1}}, 10, "models.generate_content")
    assert tools.bound(chain({**body, "toolConfig": {"seed": 2}}, "models.generate_content"), "gpt-4o") is None
    assert kept.bound(chain({**body, "generationConfig": None}, "models.generate_content"), "gpt-4o") is None
    assert kept.bound(chain(other, "models.generate_content"), "gpt-4o") == 10
    assert kept.bound(chain(schema, "models.generate_content"), "gpt-4o") is None


# --- in guarded clients

PROMPT = "Please tell me something about cats and dogs. " * 200
COUNTED = 2_000


def prompt_of(sdk: Sdk) -> dict[str, Any]:
    return {"max_tokens": 100} if sdk.name in ("openai", "anthropic") else {}


@pytest.mark.parametrize("make", [OpenAI, Responses, Anthropic, Gemini, AsyncOpenAI])
def test_the_second_call_of_a_conversation_is_reserved_at_what_the_first_has_counted(
    desk: Desk, make: type[Sdk]
) -> None:
    sdk = make(desk)
    desk.provider.reply(usage={"tokens_input": COUNTED, "tokens_output": 10}, times=2)
    for _ in range(2):
        sdk.complete(PROMPT, **prompt_of(sdk))
    first, second = desk.reserved
    assert first > second
    assert second == COUNTED * 100 + (100 if sdk.name in ("openai", "anthropic") else 131_072) * 1_000


def test_a_stream_teaches_too(desk: Desk) -> None:
    sdk = OpenAI(desk)
    desk.provider.reply(usage={"tokens_input": COUNTED, "tokens_output": 10}, times=3)
    assert list(sdk.stream(PROMPT, max_tokens=100))
    sdk.complete(PROMPT, max_tokens=100)
    assert desk.reserved[1] == COUNTED * 100 + 100_000
    assert desk.reserved[0] > desk.reserved[1]


def test_a_call_that_was_sent_twice_teaches_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its usage may have the prompt of an attempt that got no response, too."""
    sdk = OpenAI(desk)
    monkeypatch.setattr(type(sdk.llm), "_calculate_retry_timeout", lambda *args, **kwargs: 0)
    sdk.llm = sdk.llm.with_options(max_retries=1)
    desk.provider.reply(status=500).reply(usage={"tokens_input": COUNTED, "tokens_output": 10}, times=2)
    for _ in range(2):
        sdk.complete(PROMPT, max_tokens=100)
    assert len(desk.provider.requests) == 3
    assert desk.reserved[1] == desk.reserved[0]


@pytest.mark.parametrize(("model", "times_price"), [("m", 1), ("dear", 100)])
def test_another_address_or_model_does_not_use_what_one_has_counted(desk: Desk, model: str, times_price: int) -> None:
    """It may count the same text with another tokenizer."""
    sdk = OpenAI(desk)
    desk.provider.reply(usage={"tokens_input": COUNTED, "tokens_output": 10}, times=2)
    sdk.complete(PROMPT, max_tokens=100)
    if model == "m":
        sdk.llm = sdk.llm.with_options(base_url=f"{desk.provider.url_of('openai')}/v1")
    sdk.complete(PROMPT, model, max_tokens=100)
    first, second = desk.reserved
    assert second >= first * times_price  # the longer name of a model is counted, too


def test_a_tokenizer_of_the_user_replaces_it(desk: Desk) -> None:
    pytest.importorskip("genai_prices")
    book = cycles.PriceBook.genai({"m": cycles.Price("1", "10")}, count_tokens=lambda model, content: 7_777)
    sdk = OpenAI(desk, prices=book)
    desk.provider.reply(usage={"tokens_input": COUNTED, "tokens_output": 10}, times=2)
    for _ in range(2):
        sdk.complete(PROMPT, max_tokens=100)
    assert desk.reserved == [777_700 + 100_000] * 2
