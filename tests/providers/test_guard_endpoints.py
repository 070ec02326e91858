"""Which requests are metered, free or rejected, and what each costs."""

from __future__ import annotations

import gc
import inspect
import io
from typing import Any

import pytest

import cycles
from cycles.providers._endpoints import find
from tests.providers.conftest import EXACT, USED, Anthropic, Desk, Gemini, OpenAI, Sdk

ENDPOINTS: list[tuple[type[Sdk], Any, str, str, dict[str, int], int]] = [
    (OpenAI, lambda llm: llm.completions.create(model="m", prompt="x"), "/completions", "llm.completion", USED, EXACT),
    (OpenAI, lambda llm: llm.embeddings.create(model="m", input="x"), "/embeddings", "llm.embedding", USED, 100_000),
    (OpenAI, lambda llm: llm.images.generate(model="m", prompt="x"), "/images/generations", "llm.image", USED, EXACT),
    (
        OpenAI,
        lambda llm: llm.images.edit(model="m", prompt="x", image=("a.png", b"x")),
        "/images/edits",
        "llm.image",
        USED,
        EXACT,
    ),
    (
        OpenAI,
        lambda llm: llm.audio.transcriptions.create(model="m", file=("a.mp3", b"x" * 5000)),
        "/audio/transcriptions",
        "llm.audio",
        USED,
        EXACT,
    ),
    (
        Anthropic,
        lambda llm: llm.beta.messages.create(
            model="m", max_tokens=900, messages=[{"role": "user", "content": "x"}], betas=["x"]
        ),
        "/v1/messages",
        "llm.completion",
        USED,
        EXACT,
    ),
    (
        Gemini,
        lambda llm: llm.models.embed_content(model="m", contents="x"),
        ":batchEmbedContents",
        "llm.embedding",
        USED,
        100_000,
    ),
]


@pytest.mark.parametrize(
    ("make", "send", "path", "action", "usage", "price"), ENDPOINTS, ids=[endpoint[2] for endpoint in ENDPOINTS]
)
def test_endpoint(
    desk: Desk, make: type[Sdk], send: Any, path: str, action: str, usage: dict[str, int], price: int
) -> None:
    desk.provider.reply(usage=usage)
    send(make(desk).llm)
    assert desk.provider.requests[-1].path.endswith(path)
    assert desk.server.requests.of("reserve")[-1].json["action"] == {"kind": action, "name": "m"}
    assert [amount for amount, _ in desk.commits] == [price]
    assert desk.reserved[0] > 0


def test_speech_is_exact_by_its_characters(desk: Desk) -> None:
    book = cycles.PriceBook({"tts": cycles.Price(0, 0, per_call={"characters_input": "0.000015"})})
    llm = OpenAI(desk, prices=book)
    llm.llm.audio.speech.create(model="tts", voice="alloy", input="x" * 100)
    assert desk.commits == [(100 * 1500, {})]
    assert desk.reserved == [100 * 1500]


def test_a_transcription_is_exact_by_its_seconds(desk: Desk) -> None:
    book = cycles.PriceBook({"whisper": cycles.Price(0, 0, per_call={"audio_ms": "0.0000001"})})
    desk.provider.reply(usage={"audio_ms": 1500})
    OpenAI(desk, prices=book).llm.audio.transcriptions.create(model="whisper", file=("a.mp3", b"x" * 10_001))
    assert desk.reserved == [14_000 * 10]  # a second for each 750 bytes
    assert desk.commits == [(1500 * 10, {})]


def test_uploaded_images_are_reserved(desk: Desk) -> None:
    book = cycles.PriceBook({"m": cycles.Price(1, 1, input_image=2)})
    images = [("a.png", b"x"), ("b.png", b"y")]
    usage = {"tokens_input": 12_000, "tokens_input_image": 12_000, "tokens_output": 6_240}
    desk.provider.reply(usage=usage)
    OpenAI(desk, prices=book).llm.images.edit(model="m", prompt="x", image=images)
    assert desk.commits == [(12_000 * 200 + 6_240 * 100, {})]
    assert desk.reserved[0] >= desk.commits[0][0]


def test_free_requests_are_untouched(desk: Desk) -> None:
    llm = OpenAI(desk).llm
    llm.moderations.create(input="x")
    llm.models.list()
    Anthropic(desk).llm.messages.count_tokens(model="m", messages=[{"role": "user", "content": "x"}])
    Gemini(desk).llm.models.count_tokens(model="m", contents="x")
    assert len(desk.provider.requests) == 4
    assert desk.reserved == []


@pytest.mark.parametrize(
    ("provider", "path", "found"),
    [
        ("openai", "/threads/thread_1", "free"),
        ("openai", "/threads/thread_1/messages", "free"),
        ("openai", "/threads/runs", "unmetered"),  # makes a thread and runs it
        ("openai", "/threads/thread_1/runs", "unmetered"),
        ("google", "upload/{api_version}/files", "free"),  # as the SDK has it
        ("google", "files:register", "free"),
        ("google", "publishers/google/models/veo:fetchPredictOperation", "free"),
        ("google", "models/veo:predictLongRunning", "unmetered"),
        ("google", "upload/{api_version}/fileSearchStores/x:uploadToFileSearchStore", "unmetered"),
    ],
)
def test_free_and_paid_paths_that_look_alike(provider: Any, path: str, found: str) -> None:
    assert find(provider, "POST", path) == found


def test_a_file_is_uploaded_to_gemini_without_a_reservation(desk: Desk) -> None:
    with pytest.raises(KeyError):  # the fake provider returns no address for the file's bytes
        Gemini(desk).llm.files.upload(file=io.BytesIO(b"x"), config={"mime_type": "text/plain"})
    assert [request.path.rpartition("/")[2] for request in desk.provider.requests] == ["files"]
    assert desk.reserved == []


def batch(llm: Any) -> Any:
    return llm.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id="f")


def test_unmetered_requests_are_rejected_before_they_are_sent(desk: Desk) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"/batches.*unmetered='estimate'.*unmetered='allow'"):
        batch(OpenAI(desk, estimate=cycles.usd(1)).llm)
    with pytest.raises(cycles.InvalidRequestError, match="/v1/messages/batches"):
        Anthropic(desk).llm.messages.batches.create(requests=[])
    with pytest.raises(cycles.InvalidRequestError, match="cachedContents"):
        Gemini(desk).llm.caches.create(model="m", config={"contents": "x"})
    with pytest.raises(cycles.InvalidRequestError, match="/threads/runs"):
        OpenAI(desk).llm.beta.threads.create_and_run(assistant_id="a")
    with pytest.raises(cycles.InvalidRequestError, match="/a/new/endpoint"):
        OpenAI(desk).llm.post("/a/new/endpoint", cast_to=object, body={})
    assert (desk.provider.requests, desk.reserved) == ([], [])


def test_unmetered_requests_at_an_estimate(desk: Desk) -> None:
    batch(OpenAI(desk, unmetered="estimate", estimate=cycles.usd(1)).llm)
    assert desk.commits == [(cycles.usd(1).amount, {"actual_source": "estimate"})]


def test_unmetered_requests_that_are_allowed(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    llm = OpenAI(desk, unmetered="allow").llm
    batch(llm)
    batch(llm)
    assert desk.reserved == []
    assert [record.levelname for record in caplog.records if "/batches" in record.getMessage()] == ["WARNING"]


def test_unmetered_requests_to_a_free_host_pass(desk: Desk) -> None:
    batch(OpenAI(desk, free_hosts=["127.0.0.1"]).llm)
    assert (len(desk.provider.requests), desk.reserved) == (1, [])


def test_websockets_are_rejected(desk: Desk) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"realtime\.connect"):
        OpenAI(desk).llm.realtime.connect(model="m")
    llm = OpenAI(desk).llm
    for resource, name in ((llm.realtime, "translations"), (getattr(llm, "live", None), "sideband")):
        if hasattr(resource, name):
            with pytest.raises(cycles.InvalidRequestError, match=rf"{name}\.connect"):
                getattr(resource, name).connect(model="m")
    gemini = Gemini(desk).llm
    with pytest.raises(cycles.InvalidRequestError, match=r"live\.connect"):
        gemini.aio.live.connect(model="m")
    with pytest.raises(cycles.InvalidRequestError, match=r"live\.music\.connect"):
        gemini.aio.live.music.connect(model="m")
    if hasattr(type(gemini), "interactions"):
        with pytest.raises(cycles.InvalidRequestError, match="interactions"):
            _ = gemini.interactions


def test_an_absolute_address_is_looked_up_by_its_path(desk: Desk) -> None:
    llm = OpenAI(desk).llm
    desk.provider.reply(usage=USED)
    llm.post(f"{desk.provider.openai_url}/chat/completions", cast_to=object, body={"model": "m", "messages": []})
    assert desk.commits == [(EXACT, {})]


def test_azure_deployments_and_their_prices(desk: Desk) -> None:
    openai: Any = pytest.importorskip("openai")
    azure = openai.AzureOpenAI(api_key="k", azure_endpoint=desk.provider.url, api_version="2024-10-21", max_retries=0)
    desk.provider.reply(usage=USED)
    desk.guard(azure).chat.completions.create(model="m", messages=[])
    assert desk.provider.requests[-1].path == "/openai/deployments/m/chat/completions"
    assert desk.commits == [(EXACT, {})]
    azure.close()


def test_one_reservation_covers_all_attempts(desk: Desk) -> None:
    for make in (OpenAI, Anthropic):
        llm = make(desk)
        desk.provider.reply(status=500, headers={"retry-after-ms": "1"}).reply(usage=USED)
        llm.llm = llm.llm.with_options(max_retries=2)
        llm.complete()
    assert len(desk.provider.requests) == 4
    assert len(desk.reserved) == 2
    assert desk.commits == [(EXACT, {})] * 2


def test_a_middleware_that_responds_itself_is_released(desk: Desk) -> None:
    anthropic: Any = pytest.importorskip("anthropic")
    if "middleware" not in inspect.signature(anthropic.Anthropic).parameters:
        pytest.skip("this version of anthropic has no middleware")
    url = desk.provider.anthropic_url
    llm = anthropic.Anthropic(api_key="k", base_url=url, middleware=[lambda request, call_next: "cached"])
    message = [{"role": "user", "content": "x"}]
    assert desk.guard(llm).messages.create(model="m", max_tokens=900, messages=message) == "cached"
    assert (desk.provider.requests, desk.releases) == ([], ["provider_not_called"])
    llm.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_clients_of_other_clouds(desk: Desk, is_async: bool) -> None:
    anthropic: Any = pytest.importorskip("anthropic")
    url = desk.provider.url
    prefix = "Async" if is_async else ""
    made = [
        getattr(anthropic, f"{prefix}AnthropicVertex")(region="r", project_id="p", access_token="t", base_url=url),
        getattr(anthropic, f"{prefix}AnthropicFoundry")(api_key="k", base_url=url),
    ]
    aws = getattr(anthropic, f"{prefix}AnthropicAWS", None)  # not in the lowest version
    if aws is not None:
        made.append(aws(api_key="k", aws_region="eu-west-1", workspace_id="w", base_url=url))
    for llm in made:
        desk.originals.append(llm)
        desk.provider.reply(usage=USED)
        guarded = desk.guard(llm)
        assert isinstance(guarded, type(llm))
        response = guarded.messages.create(model="m", max_tokens=900, messages=[{"role": "user", "content": "x"}])
        if is_async:
            desk.runner.run(_awaited(response))
    assert [amount for amount, _ in desk.commits] == [EXACT] * len(made)
    assert desk.provider.requests[0].path.endswith("/models/m:rawPredict")


async def _awaited(value: Any) -> Any:
    return await value


def test_an_unknown_model_is_rejected_also_with_an_estimate(desk: Desk) -> None:
    with pytest.raises(cycles.UnknownModelError):
        OpenAI(desk, estimate=cycles.usd(1)).complete(model="nope")
    OpenAI(desk, estimate=cycles.usd(1), actual=lambda usage: cycles.usd("0.5")).complete(model="nope")
    assert desk.commits == [(cycles.usd("0.5").amount, {})]


def test_automatic_function_calling_reserves_for_each_request(desk: Desk) -> None:
    def lookup(city: str) -> str:
        """Return the weather of a city."""
        return f"sunny in {city}"

    desk.provider.reply(text="", tool_calls=[("lookup", {"city": "Ulm"})], usage=USED).reply(text="done", usage=USED)
    answer = Gemini(desk).complete(config={"tools": [lookup]})
    assert answer.text == "done"
    assert desk.commits == [(EXACT, {})] * 2
    assert len(desk.reserved) == 2


def test_gemini_chats_are_guarded(desk: Desk) -> None:
    desk.provider.reply(text="one", usage=USED).reply(text="two", usage=USED)
    chat = Gemini(desk).llm.chats.create(model="m")
    assert chat.send_message("x").text == "one"
    assert "".join(chunk.text or "" for chunk in chat.send_message_stream("y")) == "two"
    assert desk.commits == [(EXACT, {})] * 2


@pytest.mark.filterwarnings("ignore:.*experimental")
def test_a_token_for_a_live_session_is_unmetered(desk: Desk) -> None:
    gemini = Gemini(desk).llm
    if not hasattr(gemini, "auth_tokens"):
        pytest.skip("this version of google-genai has no auth_tokens")
    with pytest.raises(cycles.InvalidRequestError, match=r"auth_tokens.*unmetered="):
        gemini.auth_tokens.create(config={"http_options": {"api_version": "v1alpha"}})
    assert desk.provider.requests == []


def test_a_part_of_a_guarded_gemini_client_works_without_the_client(desk: Desk) -> None:
    genai: Any = pytest.importorskip("google.genai")
    options: dict[str, Any] = {"base_url": desk.provider.google_url}

    async def ask() -> str:
        aio = desk.guard(genai.Client(api_key="k", http_options=options)).aio
        gc.collect()
        models = aio.models
        del aio
        gc.collect()
        text: str = (await models.generate_content(model="m", contents="hi")).text
        return text

    desk.provider.reply(text="one", usage=USED, times=2)
    assert desk.runner.run(ask()) == "one"
    models = desk.guard(genai.Client(api_key="k", http_options={"base_url": desk.provider.google_url})).models
    gc.collect()
    assert models.generate_content(model="m", contents="hi").text == "one"
    assert desk.commits == [(EXACT, {})] * 2
