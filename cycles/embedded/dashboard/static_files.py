"""The files of the page, by a fixed list: no path of a request reaches the file system."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from attrs import frozen

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@frozen
class StaticFile:
    """A file of the page."""

    media_type: str
    content: bytes


@cache
def static_files() -> dict[str, StaticFile]:
    """Return the files by their path below `/dashboard`; the page itself is at the empty path."""
    found = {
        f"/{path.relative_to(_FOLDER).as_posix()}": StaticFile(_TYPES[path.suffix], path.read_bytes())
        for path in _FOLDER.rglob("*")
        if path.suffix in _TYPES
    }
    page = found.pop("/index.html")
    return {"": page, "/": page, **found}
