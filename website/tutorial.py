"""Execute the tutorial from its own text, in a clean environment, and renew the output that it shows.

Rules for the page: a `bash` block is typed into one terminal after the other block; a block that begins with
`cycles dev` runs in the background, as in a second terminal. A `python` block is saved if the text before it says
"Save this as `NAME`". A `text` block shows what the `bash` block before it printed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from website.errors import BuildError
from website.pages import ROOT

PAGE: Final = ROOT / "docs" / "tutorial.md"
_BLOCK: Final = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED: Final = re.compile(r"Save this as `([\w.]+)`:\s*$")
_ADDRESS: Final = re.compile(r"CYCLES_BASE_URL=(\S+)")
_READY_S: Final = 120.0
_COMMAND_S: Final = 600.0


def executed(text: str, source: str = str(ROOT)) -> str:
    """Execute the blocks of the tutorial and return its text with the output that its commands printed.

    Args:
        text: The tutorial.
        source: What is installed in place of the current folder: this repository, or a wheel.

    Raises:
        BuildError: A command failed. The message has its output.
    """
    with tempfile.TemporaryDirectory() as folder, _Terminals(Path(folder), text) as terminals:
        pieces, end, printed = [], 0, ""
        for block in _BLOCK.finditer(text):
            before = text[end : block.start()]
            pieces.append(before)
            shown = block[0]
            if block["language"] == "bash":
                printed = terminals.type(block["text"].replace("'.[", f"'{source}["))
            elif block["language"] == "text":
                shown = f"```text\n{printed.strip()}\n```"
            elif saved := _SAVED.search(before):
                (Path(folder) / saved[1]).write_text(block["text"], encoding="utf-8")
            pieces.append(shown)
            end = block.end()
        return "".join([*pieces, text[end:]])


class _Terminals:
    """A shell that keeps its variables from block to block, and the server that runs beside it."""

    def __init__(self, folder: Path, text: str) -> None:
        self._folder = folder
        self._typed: list[str] = []
        self._server: subprocess.Popen[bytes] | None = None
        address = _ADDRESS.search(text)
        self._address = address[1] if address else ""
        clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self._variables = {**clean, "HOME": str(folder), "COLUMNS": "100", "NO_COLOR": "1"}

    def __enter__(self) -> _Terminals:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.wait(60)

    def type(self, block: str) -> str:
        """Run the block and return what it printed. Earlier lines that set up the shell are run again first."""
        if block.startswith("cycles dev"):
            self._start(block)
            return ""
        script = "\n".join(["set -e", *self._typed, "echo ---output---", block])
        ran = subprocess.run(
            ["/bin/bash", "-c", script],
            cwd=self._folder,
            env=self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_S,
        )
        if ran.returncode:
            raise BuildError(f"tutorial: this block failed with status {ran.returncode}:\n{block}\n{ran.stdout}")
        self._typed += [line for line in block.splitlines() if line.startswith((". ", "export "))]
        return ran.stdout.partition("---output---\n")[2]

    def _start(self, block: str) -> None:
        script = "\n".join([*self._typed, f"exec {block}"])
        self._server = subprocess.Popen(
            ["/bin/bash", "-c", script],
            cwd=self._folder,
            env=self._variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _READY_S
        while time.monotonic() < until and self._server.poll() is None:
            with suppress(OSError), _answer(self._address):
                return
            time.sleep(0.1)
        raise BuildError(f"tutorial: no server at {self._address} after `{block.strip()}`")


@contextmanager
def _answer(address: str) -> Iterator[None]:
    try:
        with urllib.request.urlopen(address, timeout=10):  # noqa: S310 (an address of the page, on loopback)
            yield
    except urllib.error.HTTPError:  # any response shows that the server runs
        yield


def main() -> int:
    """Execute the tutorial and write its output into the page."""
    renewed = executed(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(renewed, encoding="utf-8")
    print(f"executed {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BuildError as problem:
        sys.exit(f"website: {problem}")
