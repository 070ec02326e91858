"""Pages stay as short as they are: the words of each one, and of all, are within `word_limits.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LIMITS: Final = tomllib.loads(Path(__file__).with_name("word_limits.toml").read_text(encoding="utf-8"))


def words_over(docs: Path, pages: Mapping[str, int], limit: int) -> Iterator[str]:
    """Yield each page, and the sum of all, that has more words than its limit. Words are those of `wc -w`."""
    counted = {page: len((docs / page).read_text(encoding="utf-8").split()) for page in pages}
    for page, words in counted.items():
        if words > pages[page]:
            yield f"docs/{page}: {words} words, {words - pages[page]} more than {pages[page]}: shorten it"
    words = sum(counted.values())
    if words > limit:
        yield f"these pages together: {words} words, {words - limit} more than {limit}: shorten the longest"


def test_no_page_has_more_words_than_its_limit() -> None:
    problems = list(words_over(ROOT / "docs", LIMITS["pages"], LIMITS["sum"]))
    assert not problems, "\n".join(problems)


def test_limits_are_not_far_above_the_words() -> None:
    """A page that became shorter stays so."""
    words = {page: len((ROOT / "docs" / page).read_text(encoding="utf-8").split()) for page in LIMITS["pages"]}
    loose = {page: number for page, number in words.items() if LIMITS["pages"][page] - number >= 100}
    assert loose == {}, f"these pages have fewer words by now, lower their limits in word_limits.toml: {loose}"


@pytest.mark.parametrize(
    ("pages", "limit", "problems"),
    [
        ({"a.md": 3, "b/c.md": 2}, 5, []),
        ({"a.md": 2, "b/c.md": 2}, 5, ["a.md: 3 words, 1 more than 2: shorten it"]),
        ({"a.md": 3, "b/c.md": 2}, 4, ["these pages together: 5 words, 1 more than 4: shorten the longest"]),
    ],
)
def test_a_planted_page_that_is_too_long_is_named(
    tmp_path: Path, pages: dict[str, int], limit: int, problems: list[str]
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.md").write_text("# One\n\ntwo\n")
    (tmp_path / "b" / "c.md").write_text("three\tfour")
    assert [problem.removeprefix("docs/") for problem in words_over(tmp_path, pages, limit)] == problems
