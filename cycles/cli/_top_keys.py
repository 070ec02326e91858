"""The keys of `cycles top`: scroll, filter, exit. Bytes in, what the view shows out; nothing here reads a terminal."""

from __future__ import annotations

from typing import Final

from attrs import define

_MOVES: Final = {b"\x1b[A": -1, b"\x1bOA": -1, b"k": -1, b"\x1b[B": 1, b"\x1bOB": 1, b"j": 1}
_PAGES: Final = {b"\x1b[5~": -1, b"\x1b[6~": 1, b" ": 1}
_ENDS: Final = {b"\x1b[H": -1, b"\x1b[1~": -1, b"g": -1, b"\x1b[F": 1, b"\x1b[4~": 1, b"G": 1}
_ALL: Final = sorted((*_MOVES, *_PAGES, *_ENDS), key=len, reverse=True)
_PAGE: Final = 10


@define
class Controls:
    """What the user selected.

    Attributes:
        offset: How many rows are above the view.
        text: Rows without this text are hidden.
        is_typing: Whether keys go to the text.
    """

    offset: int = 0
    text: str = ""
    is_typing: bool = False

    def take(self, typed: bytes, rows: int) -> bool:
        """Take the keys that were typed, and return whether one of them exits.

        Args:
            rows: How many rows there are.
        """
        while typed:
            key = next((known for known in _ALL if typed.startswith(known)), typed[:1])
            if self.is_typing and len(key) == 1:
                self._write(key)
            elif key == b"\x1b":
                self.text, self.offset = "", 0
            elif key == b"/":
                self.text, self.offset, self.is_typing = "", 0, True
            elif key.lower() == b"q":
                return True
            else:
                self._move(key, rows)
            typed = typed[len(key) :]
        return False

    def _write(self, key: bytes) -> None:
        if key in (b"\r", b"\n"):
            self.is_typing = False
        elif key == b"\x1b":
            self.text, self.is_typing = "", False
        elif key in (b"\x7f", b"\b"):
            self.text = self.text[:-1]
        elif key.isascii() and key >= b" ":
            self.text += key.decode().lower()
        self.offset = 0

    def _move(self, key: bytes, rows: int) -> None:
        step = _MOVES.get(key, 0) + _PAGE * _PAGES.get(key, 0) + rows * _ENDS.get(key, 0)
        self.offset = max(0, min(self.offset + step, rows - 1))
