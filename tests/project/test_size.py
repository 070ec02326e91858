"""The package stays within the figures of `size_limits.toml`, and `make size` counts what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import size

SOURCE = '''"""A module
of two lines."""

# A comment.
limit = 3  # the same line has code
"""An attribute's docstring."""


class Waiting:
    """A class."""

    def wait(self) -> None:
        """A method."""
        query = """a string
        of two lines"""
        raise NotImplementedError
'''


def test_every_figure_is_within_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    code = size.main()
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "its limit" not in printed
    assert "files: commit" in printed


def test_a_figure_beyond_its_limit_fails_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text(
        "code = { limit = 10, target = 5 }\nfiles = { limit = 3, target = 3 }\n"
        "comments = { limit = 6, target = 6, at_least = true }\n"
    )
    monkeypatch.setattr(size, "measured", lambda: {"code": 11, "files": 3, "comments": 5.9})
    assert size.main(limits) == 1
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows if row.endswith("above its limit")] == ["code"]
    assert [row.split()[0] for row in rows if row.endswith("below its limit")] == ["comments"]
    monkeypatch.setattr(size, "measured", lambda: {"code": 10, "files": 3, "comments": 6})
    assert size.main(limits) == 0


def test_a_figure_without_a_limit_is_an_error() -> None:
    with pytest.raises(ValueError, match="figures and limits differ: commit, reserve"):
        size.compared({"commit": 1}, {"reserve": {"limit": 1, "target": 1}})


def test_lines_of_docstrings_and_comments_are_no_code() -> None:
    assert size.lines_of(SOURCE) == size.Lines(code=6, comments=2)


def test_what_hides_a_circle_is_found() -> None:
    found = size.hidden_in(
        "State: TypeAlias = Any\n"
        "class Log:\n"
        "    def __init__(self, given: Callable[[], None]) -> None:\n"
        "        self.on_end: Callable[[], None] | None = None\n"
        "        self.given: Callable[[], None] = given\n"
        "        self._own: Callable[[], None] | None = None\n"
        "        self.io = cast('Io', self)\n"
        "        self.text = cast(str, self)\n"
        "    def sync(self) -> None:\n"
        "        exec('1')\n"
        "        raise NotImplementedError('sync')\n",
        frozenset({"Io", "Log"}),
    )
    assert found == size.Hidden(["line 1"], ["line 7"], ["line 4: on_end"], ["line 11"], ["line 10"])


def test_classes_and_aliases_are_own_types_and_constants_are_not() -> None:
    assert list(size.defined_in("class Io: ...\nActual = int | None\nLIMIT = 3\n_check = 4\n")) == ["Io", "Actual"]


def test_members_of_a_protocol_are_counted() -> None:
    source = "class Io(Protocol):\n    clock: Clock\n    async def send(self): ...\n    def report(self): ...\n"
    assert (size.members_of(source, "Io"), size.members_of(source, "Other")) == (3, 0)


def test_only_private_attributes_of_other_objects_are_counted() -> None:
    code = "self._a; cls._b; client._c; client.d; client.__class__; pool._chunks._one; row._replace(a=1)"
    assert size.private_reads(code) == 3
