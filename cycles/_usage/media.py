"""The most input tokens of images, documents, audio and videos, by families of models; `docs/media.md` has the table.

Where the table says nothing, a medium may fill the context window. Pages and seconds are read from the bytes of the
medium. The bytes of compressed audio bound its seconds: no codec in use needs fewer for a second of speech.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

MediaKind: TypeAlias = Literal["image", "document", "audio", "video"]

BYTES_PER_AUDIO_SECOND: Final = 750
"""A second of speech at 6 kbit/s, the lowest rate of Opus."""
TYPICAL_TOKENS: Final = 6_000
"""What a medium counts in an estimate of what was read, if the table does not bound it."""
LARGEST_WINDOW: Final = 1_048_576
"""The context window of a model whose window is not known."""
_TEXT_OF_PAGE: Final = 3_000
"""The most tokens of the text of a page, which Anthropic and OpenAI read beside its image."""
_MOST_UNPACKED: Final = 64 * 1024 * 1024
_OPENAI: Final = "https://platform.openai.com/docs/guides/images-vision"
_ANTHROPIC: Final = "https://docs.claude.com/en/docs/build-with-claude/vision"
_GOOGLE: Final = "https://ai.google.dev/gemini-api/docs/tokens"
_MISTRAL: Final = "https://docs.mistral.ai/capabilities/vision"
_COHERE: Final = "https://docs.cohere.com/docs/image-inputs"


def _pattern(models: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[./]|ft:)(?:{models})")


@frozen
class MediaTokens:
    """One row of the table.

    Attributes:
        models: What the name of a model begins with, behind the name of a vendor or a region; the first row applies.
        image: Tokens of one image at the highest detail; None: not known, like the next three.
        page: Tokens of one page of a document.
        audio: Tokens of a second of audio.
        video: Tokens of a second of a video, with its sound.
        by_seconds: Audio is billed by the second, beside its tokens.
        source: Where the maker publishes it.
        checked: How old the row is. `docs/media.md` says which rows were compared with a copy of the page.
    """

    models: re.Pattern[str] = field(converter=_pattern)
    image: int | None
    source: str
    page: int | None = None
    audio: int | None = None
    video: int | None = None
    by_seconds: bool = False
    checked: str = "2026-11-29"


def _openai(models: str, image: int, audio: int | None = None) -> MediaTokens:
    return MediaTokens(models, image=image, page=image + _TEXT_OF_PAGE, audio=audio, source=_OPENAI)


def _tiles(base: int, tile: int) -> int:
    """Return the tokens of an image in 8 tiles: it is made to fit into 768 x 2048 pixels, and a tile has 512."""
    return base + 8 * tile


MEDIA_TOKENS: Final = (
    _openai("gpt-4o-mini", _tiles(2_833, 5_667), audio=10),
    _openai("gpt-image|chatgpt-image", _tiles(65, 129) + 6_144),
    _openai("gpt-(?:4\\.1|5)-nano", 3_779),
    _openai("gpt-(?:4\\.1|5)-mini", 2_489),
    _openai("gpt-(?:4o|4\\.1|4\\.5|4-turbo|4-vision|audio|realtime)|chatgpt-4o", _tiles(85, 170), audio=10),
    _openai("o4-mini", 2_642),
    _openai("o[13]", _tiles(75, 150)),
    _openai("computer-use", _tiles(65, 129)),
    _openai("gpt-5(?:\\.1)?(?:$|-\\d{4}|-chat)", _tiles(70, 140)),
    _openai("gpt-5\\.\\d+-(?:mini|nano)", 24_600),
    _openai("gpt-5", 12_000),
    MediaTokens(
        "claude-(?:3|(?:opus|sonnet|haiku)-4(?:-[0-6])?(?:-20|@|-v|$))", image=1_600, page=4_600, source=_ANTHROPIC
    ),
    MediaTokens("claude", image=4_784, page=7_784, source=_ANTHROPIC),
    MediaTokens("gemini-(?:[12]\\b|(?:flash|pro)-1|pro$)", image=4_128, page=258, audio=32, video=300, source=_GOOGLE),
    MediaTokens("gemini", image=2_240, page=2_240, audio=32, video=320, source=_GOOGLE),
    MediaTokens("voxtral", image=None, audio=13, by_seconds=True, source=_MISTRAL),
    MediaTokens("pixtral|mistral-|ministral|magistral", image=4_200, source=_MISTRAL),
    MediaTokens("command-a-vision|c4ai-aya-vision", image=3_328, source=_COHERE),
)
_UNKNOWN: Final = MediaTokens("", image=None, source="")


@frozen
class Medium:
    """One medium of a request.

    Attributes:
        kind: What it is.
        pages: Of a document, if it is inline and they can be counted.
        seconds: Of audio or of a video, if it is inline and they can be bounded.
    """

    kind: MediaKind
    pages: int | None = None
    seconds: int | None = None


def most_of(media: Iterable[Medium], model: str) -> int | None:
    """Return the most input tokens of media; None if one of them may fill the context window of the model."""
    row = row_of(model)
    found = 0
    for each in media:
        tokens = _tokens(each, row)
        if tokens is None:
            return None
        found += tokens
    return found


def billed_seconds(media: Iterable[Medium], model: str, window: int | None) -> int:
    """Return the most seconds of audio that are billed as such; those of an unknown length fill the window."""
    row = row_of(model)
    if not row.by_seconds or row.audio is None:
        return 0
    longest = -(-(window or LARGEST_WINDOW) // row.audio)
    sounds = [longest if each.seconds is None else each.seconds for each in media if each.kind == "audio"]
    return sum(sounds)


def row_of(model: str) -> MediaTokens:
    """Return the row of a model; one without any figure if there is none."""
    return next((row for row in MEDIA_TOKENS if row.models.search(model)), _UNKNOWN)


def typical_of(media: Iterable[Medium], model: str) -> int:
    """Return about as many input tokens as media have at the most, for an estimate of what was read."""
    row = row_of(model)
    return sum(TYPICAL_TOKENS if (n := _tokens(each, row)) is None else n for each in media)


def _tokens(medium: Medium, row: MediaTokens) -> int | None:
    if medium.kind == "image":
        return row.image
    if medium.kind == "document":
        return None if row.page is None or medium.pages is None else row.page * medium.pages
    rate = row.audio if medium.kind == "audio" else row.video
    return None if rate is None or medium.seconds is None else rate * medium.seconds


_IMAGES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_PAGE: Final = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_PACKED: Final = re.compile(rb"/ObjStm\b.*?stream\r?\n(.*?)endstream", re.DOTALL)


def medium_of(data: bytes, hint: str) -> Medium:
    """Return a medium that a request contains.

    Args:
        data: Its bytes.
        hint: Its media type or another word for its kind; it may be empty.
    """
    kind = kind_of(hint)
    if kind == "document" and (data.startswith(_IMAGES) or data[8:12] == b"WEBP"):
        kind = "image"
    if kind == "document":
        return Medium(kind, pages=_pages(data) if data.startswith(b"%PDF") else None)
    if kind == "audio":
        return Medium(kind, seconds=-(-len(data) // BYTES_PER_AUDIO_SECOND))
    return Medium(kind, seconds=_seconds_of_mp4(data) if kind == "video" else None)


def kind_of(hint: str) -> MediaKind:
    """Return the kind of a medium by its media type or a word like ``input_image``; a document if it says nothing."""
    kinds: tuple[MediaKind, ...] = ("image", "audio", "video")
    found: MediaKind | None = next((kind for kind in kinds if kind in hint), None)
    return found or "document"


def _pages(data: bytes) -> int | None:
    """Count the pages of a PDF, those in its packed objects too; None if they cannot be counted."""
    found = len(_PAGE.findall(data))
    for packed in _PACKED.finditer(data):
        try:
            found += len(_PAGE.findall(zlib.decompressobj().decompress(packed[1], _MOST_UNPACKED)))
        except zlib.error:  # encrypted
            return None
    return found or None


def _seconds_of_mp4(data: bytes) -> int | None:
    """Return how long a video is, by the header of an MP4 or QuickTime file; None for another one."""
    at = data.find(b"mvhd") + 4
    if at < 4 or len(data) < at + 32:
        return None
    scale, length, size = (at + 20, at + 24, 8) if data[at] == 1 else (at + 12, at + 16, 4)
    per_second, units = (int.from_bytes(data[b : b + n], "big") for b, n in ((scale, 4), (length, size)))
    return -(-units // per_second) if per_second and units else None
