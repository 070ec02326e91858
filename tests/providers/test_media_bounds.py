"""The estimate of a request with media is never below its charge: images, pages, seconds, and what is not known."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import cycles
from cycles._usage.media import MEDIA_TOKENS, Medium, billed_seconds, medium_of, most_of, row_of, typical_of
from cycles._usage.tokens import bound_of
from tests.support.short import fewer

data_snapshot: Any = pytest.importorskip("genai_prices.data_snapshot")
BOOK = cycles.PriceBook.genai()
PNG = b"\x89PNG\r\n\x1a\n"
# Makers' rules: a 1 x 1 image, a tall one and one with the most tiles, of the models that count them.
IMAGES = [
    ("gpt-4o-mini", 2_833 + 8 * 5_667),
    ("gpt-4o", 85 + 8 * 170),
    ("gpt-4.1-mini", 2_489),
    ("gpt-4.1-nano", 3_779),
    ("gpt-5", 70 + 8 * 140),
    ("o4-mini", 2_642),
    ("o3", 75 + 8 * 150),
    ("claude-sonnet-4-5-20250929", 1_600),
    ("claude-opus-4-7", 4_784),
    ("gemini-2.5-flash", 16 * 258),
    ("gemini-3-pro-preview", 2_240),
    ("pixtral-large-latest", 4_160),
]


def pdf(pages: int, *, packed: bool = False) -> bytes:
    """Return a document with the objects of its pages, perhaps in an object stream."""
    objects = b"".join(b"%d 0 obj << /Type /Page /Parent 1 0 R >> endobj\n" % n for n in range(pages))
    if packed:
        stream = zlib.compress(objects)
        objects = b"9 0 obj << /Type /ObjStm /Filter /FlateDecode >> stream\n" + stream + b"\nendstream endobj\n"
    return b"%PDF-1.7\n1 0 obj << /Type /Pages /Count " + str(pages).encode() + b" >> endobj\n" + objects


def mp4(seconds: int, version: int = 0) -> bytes:
    wide = 8 if version else 4
    times = bytes(2 * wide) + (600).to_bytes(4, "big") + (600 * seconds).to_bytes(wide, "big")
    return b"\0\0\0\x18ftypmp42" + b"\0\0\0\x6cmvhd" + bytes([version, 0, 0, 0]) + times + bytes(80)


def inline(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def openai_part(data: bytes, mime: str) -> dict[str, Any]:
    if mime.startswith("image"):
        return {"type": "image_url", "image_url": {"url": inline(data, mime)}}
    if mime.startswith("audio"):
        return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "mp3"}}
    return {"type": "file", "file": {"filename": "f", "file_data": inline(data, mime)}}


def anthropic_part(data: bytes, mime: str) -> dict[str, Any]:
    kind = "image" if mime.startswith("image") else "document"
    source = {"type": "base64", "media_type": mime, "data": base64.b64encode(data).decode()}
    return {"type": kind, "source": source}


def gemini_part(data: bytes, mime: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}}


def bedrock_part(data: bytes, mime: str) -> dict[str, Any]:
    kind = "image" if mime.startswith("image") else "document"
    return {kind: {"format": mime.partition("/")[2], "source": {"bytes": data}}}


def plain_part(data: bytes, mime: str) -> dict[str, Any]:
    """As results of MCP tools and Gemini's interactions have it."""
    return {"type": mime.partition("/")[0], "mimeType": mime, "data": base64.b64encode(data).decode()}


PARTS: list[Any] = [openai_part, anthropic_part, gemini_part, bedrock_part, plain_part]


def most(model: str, *parts: Any) -> int:
    return bound_of({"messages": [{"role": "user", "content": list(parts)}]}).tokens(model)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("model", "tokens"), IMAGES)
def test_an_image_is_bounded_by_the_rule_of_its_maker(model: str, tokens: int, part: Any) -> None:
    picture = part(PNG, "image/png")
    assert tokens <= most(model, picture) <= tokens + 300
    assert most(model, picture, picture) - most(model, picture) >= tokens


def test_an_image_of_a_small_model_is_reserved_before_it_costs_its_tiles() -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": [openai_part(PNG, "image/png")]}]}
    charge = BOOK.cost("gpt-4o-mini", tokens_input=48_169)
    assert BOOK.estimate("gpt-4o-mini", body, max_output_tokens=0).amount >= charge.amount == 722_535


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_the_pages_of_a_document_are_counted(part: Any, packed: bool) -> None:
    document = part(pdf(40, packed=packed), "application/pdf")
    assert 40 * 4_600 <= most("claude-sonnet-4-5", document) <= 40 * 4_600 + 300
    assert 40 * 258 <= most("gemini-2.5-flash", document) <= 40 * 258 + 300


@pytest.mark.parametrize(
    "part",
    [
        anthropic_part(b"%PDF-1.7 nothing that can be counted", "application/pdf"),
        anthropic_part(pdf(3, packed=True).replace(b"stream\nx", b"stream\n\0"), "application/pdf"),
        openai_part(b"PK\x03\x04", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        {"type": "input_file", "file_id": "f"},
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
        gemini_part(b"webm", "video/webm"),
        {"fileData": {"fileUri": "https://youtu.be/x"}},
        {**gemini_part(mp4(5), "video/mp4"), "videoMetadata": {"fps": 24}},
        bedrock_part(b"PK\x03\x04", "x/docx"),
    ],
)
def test_what_cannot_be_counted_may_fill_the_window(part: dict[str, Any]) -> None:
    for model, window in (("claude-sonnet-4-5", 200_000), ("gemini-2.5-pro", 1_048_576)):
        body = {"model": model, "messages": [{"role": "user", "content": [part]}]}
        full = BOOK.cost(model, tokens_input=window)
        assert BOOK.estimate(model, body, max_output_tokens=0).amount >= full.amount


def test_a_document_of_text_has_at_most_its_bytes() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "word " * 4_000}
    assert 20_000 <= most("claude-sonnet-4-5", {"type": "document", "source": source}) <= 20_300
    encoded = openai_part(b"word " * 4_000, "text/csv")
    assert 20_000 <= most("gpt-4o", encoded) <= 20_300


@given(seconds=st.integers(1, 10_000), version=st.integers(0, 1))
def test_a_video_has_its_length(seconds: int, version: int) -> None:
    assert medium_of(mp4(seconds, version), "video/mp4").seconds == seconds
    assert most("gemini-2.5-flash", gemini_part(mp4(seconds, version), "video/mp4")) >= seconds * 295


@given(seconds=st.integers(1, 600), kbit=st.sampled_from([6, 8, 32, 128]))
@settings(max_examples=fewer(25), deadline=None)
def test_audio_is_bounded_by_its_size(seconds: int, kbit: int) -> None:
    data = bytes(seconds * kbit * 125)
    assert most("gpt-audio", openai_part(data, "audio/mp3")) >= seconds * 10
    assert most("gemini-2.5-flash", gemini_part(data, "audio/ogg")) >= seconds * 32


PRICED = [
    (model.id, model.context_window)
    for provider in data_snapshot.get_snapshot().providers
    if provider.id in ("openai", "anthropic", "google")
    for model in provider.models
    if model.context_window and "input_mtok" in repr(model.prices)
]


@given(model=st.sampled_from(PRICED), data=st.data())
@settings(max_examples=fewer(200), deadline=None)
def test_the_estimate_is_a_bound_with_media_of_every_model(model: tuple[str, int], data: st.DataObject) -> None:
    name, window = model
    row = row_of(name)
    pages, seconds = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 100))
    media = [
        (openai_part(PNG, "image/png"), row.image),
        (anthropic_part(pdf(pages, packed=data.draw(st.booleans())), "application/pdf"), row.page and row.page * pages),
        (gemini_part(bytes(seconds * 750), "audio/ogg"), row.audio and row.audio * seconds),
        (gemini_part(mp4(seconds), "video/mp4"), row.video and row.video * seconds),
    ]
    chosen = data.draw(st.lists(st.sampled_from(media), min_size=1, max_size=4))
    read = min(window, sum(window if n is None else n for _, n in chosen))
    body = {"model": name, "messages": [{"role": "user", "content": [part for part, _ in chosen]}]}
    kinds = {"tokens_input_image": read if chosen[0] is media[0] else 0}
    charge = BOOK.cost(name, tokens_input=read, **kinds)  # type: ignore[arg-type]
    assert BOOK.estimate(name, body, max_output_tokens=0).amount >= charge.amount


def test_each_row_names_where_its_maker_publishes_it() -> None:
    assert all(row.source.startswith("https://") and row.checked >= "2026-03-12" for row in MEDIA_TOKENS)


def test_seconds_of_audio_that_are_billed_as_such_are_reserved_and_charged() -> None:
    model = "voxtral-small-24b-2507"
    sound = {"type": "input_audio", "input_audio": base64.b64encode(bytes(60 * 1_000)).decode()}
    linked = {"type": "input_audio", "input_audio": "https://x/y.mp3"}
    usage = {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 754, "prompt_audio_seconds": 60}
    spent = BOOK.cost({"object": "chat.completion", "model": model, "usage": usage}).amount
    assert spent == 400_000 + 4 * 10  # $0.004 a minute, and the text
    for part in (sound, linked):
        body = {"model": model, "messages": [{"role": "user", "content": [part]}]}
        assert BOOK.estimate(model, body, max_output_tokens=0).amount >= spent


@pytest.mark.parametrize(
    ("value", "kind"),
    [("data:image/png", "image"), ("data:audio/mpeg", "audio"), ("data:video/mp4", "video"), ("data:pdf", "document")],
)
def test_a_data_url_without_data_is_a_medium_of_its_kind(value: str, kind: str) -> None:
    bound = bound_of({"messages": [{"role": "user", "content": value}]})
    assert [(each.kind, each.pages, each.seconds) for each in bound.media] == [(kind, None, None)]


MOST: list[tuple[str, int | None, int | None, int | None, int | None]] = [
    ("gpt-4o-mini-2024-07-18", 48_169, 51_169, 10, None),
    ("gpt-image-1", 7_241, 10_241, None, None),
    ("chatgpt-image-latest", 7_241, 10_241, None, None),
    ("gpt-4.1-nano", 3_779, 6_779, None, None),
    ("gpt-5-nano", 3_779, 6_779, None, None),
    ("gpt-4.1-mini", 2_489, 5_489, None, None),
    ("gpt-4o", 1_445, 4_445, 10, None),
    ("openai/gpt-4-turbo", 1_445, 4_445, 10, None),
    ("ft:gpt-4.1:acme", 1_445, 4_445, 10, None),
    ("o4-mini", 2_642, 5_642, None, None),
    ("o3", 1_275, 4_275, None, None),
    ("computer-use-preview", 1_097, 4_097, None, None),
    ("gpt-5.1", 1_190, 4_190, None, None),
    ("gpt-5-2025-08-07", 1_190, 4_190, None, None),
    ("gpt-5.2-mini", 24_600, 27_600, None, None),
    ("gpt-5.2", 12_000, 15_000, None, None),
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 1_600, 4_600, None, None),
    ("claude-opus-4-7", 4_784, 7_784, None, None),
    ("gemini-2.5-pro", 4_128, 258, 32, 300),
    ("gemini-3-pro", 2_240, 2_240, 32, 320),
    ("voxtral-small", None, None, 13, None),
    ("pixtral-large", 4_200, None, None, None),
    ("command-a-vision-07-2025", 3_328, None, None, None),
    ("other", None, None, None, None),
]


@pytest.mark.parametrize(("model", "image", "page", "audio", "video"), MOST)
def test_the_most_tokens_of_each_medium(
    model: str, image: int | None, page: int | None, audio: int | None, video: int | None
) -> None:
    media = [Medium("image"), Medium("document", pages=3), Medium("audio", seconds=2), Medium("video", seconds=2)]
    expected = [
        None if n is None else n * times for n, times in zip((image, page, audio, video), (1, 3, 2, 2), strict=True)
    ]
    assert [most_of([each], model) for each in media] == expected
    assert typical_of(media, model) == sum(6_000 if n is None else n for n in expected)
    assert most_of([Medium("image")] * 3, model) == (None if image is None else 3 * image)
    assert most_of([], model) == 0
    unknown = [Medium("document"), Medium("audio"), Medium("video")]
    assert [most_of([Medium("image"), each], model) for each in unknown] == [None] * 3


@pytest.mark.parametrize(
    ("model", "seconds", "window", "billed"),
    [
        ("voxtral-small", [60, 5], None, 65),
        ("voxtral-small", [60, None], 32_768, 60 + 2_521),
        ("voxtral-small", [None], None, 80_660),
        ("voxtral-small", [], 32_768, 0),
        ("gpt-audio", [60], 32_768, 0),
        ("pixtral-large", [60], 32_768, 0),
        ("other", [60], 32_768, 0),
    ],
)
def test_seconds_that_are_billed_as_such(
    model: str, seconds: list[int | None], window: int | None, billed: int
) -> None:
    media = [Medium("image"), *[Medium("audio", seconds=each) for each in seconds]]
    assert billed_seconds(media, model, window) == billed


MVHD = mp4(7)
AT = MVHD.index(b"mvhd") + 4
MEDIA: list[tuple[bytes, str, Medium]] = [
    *[
        (start + bytes(20), hint, Medium("image"))
        for start in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFFsizeWEBP")
        for hint in ("", "application/octet-stream")
    ],
    (b"RIFFsizeWAVE" + bytes(20), "", Medium("document")),
    (b"", "", Medium("document")),
    (b"%PDF", "application/pdf", Medium("document")),
    (pdf(1), "", Medium("document", pages=1)),
    (pdf(12), "", Medium("document", pages=12)),
    (pdf(12, packed=True), "", Medium("document", pages=12)),
    (pdf(2) + pdf(3, packed=True), "", Medium("document", pages=5)),
    (pdf(2) + pdf(3, packed=True).replace(b"stream\nx", b"stream\n\0"), "", Medium("document")),  # encrypted
    (b"x" + pdf(1), "", Medium("document")),
    (b"%PDF /Type/Page>> /Type /Page>> /Type /Pages", "", Medium("document", pages=2)),
    (bytes(1), "audio/wav", Medium("audio", seconds=1)),
    (b"", "audio/wav", Medium("audio", seconds=0)),
    (b"\x89PNG", "input_image", Medium("image")),
    (b"\x89PNG", "video/mp4", Medium("video")),
    (MVHD, "video/mp4", Medium("video", seconds=7)),
    (MVHD[: AT + 32], "video/mp4", Medium("video", seconds=7)),
    (MVHD[: AT + 31], "video/mp4", Medium("video")),
    (b"mvhd" + MVHD[AT:], "video/mp4", Medium("video", seconds=7)),
    (MVHD.replace((4_200).to_bytes(4, "big"), (4_201).to_bytes(4, "big")), "video/mp4", Medium("video", seconds=8)),
    (MVHD.replace((600).to_bytes(4, "big"), bytes(4)), "video/mp4", Medium("video")),
    (mp4(0), "video/mp4", Medium("video")),
    (mp4(2**30, 1), "video/mp4", Medium("video", seconds=2**30)),
]


@pytest.mark.parametrize(("data", "hint", "medium"), MEDIA, ids=lambda value: repr(value)[:30])
def test_a_medium_is_read_from_its_bytes_and_its_type(data: bytes, hint: str, medium: Medium) -> None:
    assert medium_of(data, hint) == medium
