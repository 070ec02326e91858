"""Models of frameworks whose SDK client is known: a copy has a metered client, and the model itself stays.

The classes have the names of the frameworks' classes. The frameworks themselves are in `make test-integrations`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest

import cycles
from cycles.integrations._metering import is_guarded, metered
from cycles.testing import FakeProvider
from tests.integrations.conftest import Ledger


@pytest.fixture
def llm() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url="http://localhost:1") as llm:
        yield llm


class Base:
    """A model, or a provider, with these attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def named(package: str, name: str, *bases: type) -> Any:
    """Return a class with the name of a class of a framework."""
    return type(name, bases or (Base,), {"__module__": f"{package}.models.parts"})


ROWS = [
    ("langchain_openai", "BaseChatOpenAI", "root_client"),
    ("langchain_openai", "BaseChatOpenAI", "root_async_client"),
    ("langchain_openai", "BaseChatOpenAI", "client"),
    ("langchain_openai", "BaseChatOpenAI", "async_client"),
    ("langchain_anthropic", "ChatAnthropic", "_client"),
    ("langchain_anthropic", "ChatAnthropic", "_async_client"),
    ("langchain_google_genai", "ChatGoogleGenerativeAI", "client"),
    ("langchain_aws", "ChatBedrockConverse", "client"),
    ("langchain_groq", "ChatGroq", "client"),
    ("langchain_groq", "ChatGroq", "async_client"),
    ("pydantic_ai", "Provider", "_client"),
    ("agents", "OpenAIResponsesModel", "_client"),
    ("agents", "OpenAIChatCompletionsModel", "_client"),
    ("google", "Gemini", "api_client"),
    ("google", "AnthropicLlm", "_anthropic_client"),
]


@pytest.mark.parametrize(("package", "name", "attribute"), ROWS)
def test_the_client_of_a_known_class_is_metered_on_a_copy(
    llm: openai.OpenAI, package: str, name: str, attribute: str
) -> None:
    known = named(package, name)
    for cls in (known, named("own", "Subclass", known)):
        model = cls(**{attribute: llm, "other": llm})
        copied = metered(model)
        assert (type(copied), copied is model) == (cls, False)
        assert is_guarded(vars(copied)[attribute])
        assert vars(copied)["other"] is llm
        assert vars(model) == {attribute: llm, "other": llm}


def test_an_unknown_class_is_returned_and_logged_once(
    llm: openai.OpenAI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.integrations._metering._reported", set())
    caplog.set_level("INFO", logger="cycles")
    responses = named("agents", "OpenAIResponsesModel")
    unknown = [
        named("other", "BaseChatOpenAI")(client=llm),
        named("agents", "OpenAIResponsesWSModel", responses)(_client=llm),
        named("langchain_groq", "ChatGroq")(client=None),
        named("langchain_aws", "ChatBedrockConverse")(client=SimpleNamespace(_client=object())),
        named("google", "Gemini")(),
    ]
    for model in unknown * 2:
        assert metered(model) is model
    logged = [record.getMessage() for record in caplog.records]
    assert [text.partition(" is unknown: ")[0].rpartition(".")[2] for text in logged] == [
        "BaseChatOpenAI",
        "OpenAIResponsesWSModel",
        "ChatGroq",
        "ChatBedrockConverse",
        "Gemini",
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_models_inside_of_models_are_copied(llm: openai.OpenAI) -> None:
    model = named("pydantic_ai", "Model")
    wrapper, fallback = named("pydantic_ai", "WrapperModel", model), named("pydantic_ai", "FallbackModel", model)
    provider = named("pydantic_ai", "Provider")(_client=llm)
    known, unknown = model(_provider=provider), model(_provider=object())
    outer = wrapper(wrapped=fallback(models=[unknown, known, unknown]))
    copied = metered(outer)
    first, second, third = copied.wrapped.models
    assert (first is unknown, third is unknown, second is known) == (True, True, False)
    assert is_guarded(vars(vars(second)["_provider"])["_client"])
    assert (vars(known), vars(provider)) == ({"_provider": provider}, {"_client": llm})
    assert outer.wrapped.models == [unknown, known, unknown]
    nothing = fallback(models=[unknown, unknown])
    assert metered(nothing) is nothing


def test_a_client_that_is_made_when_it_is_used_stays_in_the_model(llm: openai.OpenAI) -> None:
    made: list[str] = []

    class Gemini(Base):
        __module__ = "google.adk.models.google_llm"

        @functools.cached_property
        def api_client(self) -> Any:
            made.append("client")
            return llm

    model = Gemini()
    copies = [metered(model), metered(model)]
    assert (made, model.api_client is llm) == (["client"], True)
    assert [is_guarded(each.api_client) for each in copies] == [True, True]


def test_a_guarded_client_stays_the_same(llm: openai.OpenAI, client: cycles.Cycles) -> None:
    own = cycles.providers.guard(llm, client=client, prices=cycles.PriceBook({"m": cycles.Price("1", "10")}))
    copied = metered(named("langchain_openai", "BaseChatOpenAI")(root_client=own, client=own.chat.completions))
    assert copied.root_client is own
    assert type(copied.client) is type(llm.chat.completions)


@pytest.mark.parametrize("attribute", ["root_client", "client"])
def test_the_call_around_a_metered_client_pays(client: cycles.Cycles, ledger: Ledger, attribute: str) -> None:
    bound: list[Any] = []
    ended: list[Any] = []
    payer: Any = SimpleNamespace(bind=bound.append, ended=ended.append, estimate=cycles.usd(1), price=None)
    with FakeProvider() as provider, openai.OpenAI(api_key="k", base_url=provider.openai_url) as llm:
        provider.reply(model="m", usage={"tokens_input": 30, "tokens_output": 2})
        values = {"root_client": llm, "client": llm.chat.completions}
        copied = metered(named("langchain_openai", "BaseChatOpenAI")(**{attribute: values[attribute]}))
        completions = copied.client if attribute == "client" else copied.root_client.chat.completions
        with cycles.providers.paid_by(payer):
            completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert bound == ended != []
        completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert (len(bound), provider.count()) == (1, 2), "outside of a call it passes"
    assert ledger.rows() == []
