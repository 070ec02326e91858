"""What code and pages cite can be opened: pages, headings, paths of this repository, tests that a page names.

Code cites a page from the root of the repository (`docs/protocol/responses.md#success`). Pages may also use paths that
are relative to the page or to `cycles/`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CODE: Final = sorted(
    path
    for folder in ("cycles", "generator", "tests", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])

_CITED: Final = re.compile(r"(?<![\w/])(docs/[\w./-]+\.md)(?:#([\w-]+))?")
_CODE_SPAN: Final = re.compile(r"`([^`\n]+)`")
_PATH: Final = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*(?:/|\.(?:pyi?|md|ya?ml|toml|json|txt))(?:::(\w+))?")
_UNKNOWN_DOCUMENT: Final = re.compile(
    r"""(?ix) \b(?:semantics|decisions?|ledger|issues?|requirements?)\s"?(?:lease\s)?\d+(?:\.\d+)?
    | (?<!RFC\ \d{4},\ )§\ ?\d+
    | \brecovery,\ (?:core|durable|heartbeat)\b
    | \((?:ledger\ rules,\ time|rules\ of\ idempotency|scope\ derivation|error\ catalogue|authentication\ rules)\)"""
)
_DOCUMENT: Final = re.compile(r"(?<![\w/.<*-])[\w.-]+(?:/[\w.-]+)*\.md\b")
_TREE_ENTRY: Final = re.compile(r"( *)((?:[\w.]+(?:/|\.pyi?) +)+)")


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: no markup, lower case, only word characters, `-` for each blank."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def without_blocks(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page. A heading that comes again gets a number."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+)$", without_blocks(page.read_text(encoding="utf-8")), re.MULTILINE):
        anchor = slug(heading)
        found[anchor] = found.get(anchor, -1) + 1
    return frozenset(
        name if number == 0 else f"{name}-{number}" for name, most in found.items() for number in range(most + 1)
    )


def bad_citations(text: str, root: Path) -> Iterator[str]:
    """Yield each page below `docs/` that `text` cites and that is missing, and each missing `#heading`."""
    for page, heading in _CITED.findall(text):
        if not (root / page).is_file():
            yield f"{page}: there is no such page"
        elif heading and heading not in anchors(root / page):
            yield f"{page}#{heading}: the page has no such heading"


def prose_of_code(source: str) -> Iterator[str]:
    """Every comment and docstring of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def unknown_documents(prose: str, root: Path, folder: Path) -> Iterator[str]:
    """Yield each citation of a document that is not in this repository, by number or by file name."""
    for match in _UNKNOWN_DOCUMENT.finditer(prose):
        yield f"{match[0]}: cite a page below docs/, with its heading"
    for name in _DOCUMENT.findall(prose):
        if not any((base / name).is_file() for base in (root, folder)):
            yield f"{name}: there is no such page; cite it from the root of the repository"


def is_there(path: str, root: Path, page: Path) -> bool:
    return any(bool(list(base.glob(path))) for base in (root, root / "cycles", page.parent))


def is_of_repository(path: str, root: Path) -> bool:
    """Whether a page means a path of this repository, not one on the reader's disk."""
    return path.endswith((".py", ".pyi", ".md")) or (root / path.partition("/")[0]).is_dir()


def bad_paths(text: str, root: Path, page: Path) -> Iterator[str]:
    """Every path, and every test, that a page names and that is not in the repository."""
    for span in _CODE_SPAN.findall(without_blocks(text)):
        for word in span.split():
            match = _PATH.fullmatch(word)
            if match is None or not is_of_repository(word, root):
                continue
            path = word.partition("::")[0]
            if f"Save this as `{path}`" in text:
                continue  # a file that the reader makes
            if not is_there(path, root, page):
                yield f"{path}: there is no such file or folder"
            elif match[1] and not re.search(rf"\bdef {match[1]}\(", (root / path).read_text(encoding="utf-8")):
                yield f"{word}: the file has no such test"


def tree_entries(text: str) -> Iterator[str]:
    """The paths in the trees of a page: a line is indented by two blanks below its folder, names come first."""
    for block in re.findall(r"^```text$(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        folders: list[str] = []
        for line in block.splitlines():
            match = _TREE_ENTRY.match(line + " ")
            if match is None:
                continue
            names = match[2].split()
            folders = folders[: len(match[1]) // 2]
            yield from ("".join(folders) + name for name in names)
            folders.append(names[0] if names[0].endswith("/") else "")


def by_path(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def test_every_cited_page_and_heading_exists() -> None:
    problems = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in [*CODE, *PAGES]
        for problem in bad_citations(path.read_text(encoding="utf-8"), ROOT)
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", by_path(PAGES))
def test_every_path_and_test_that_a_page_names_exists(page: Path) -> None:
    problems = list(bad_paths(page.read_text(encoding="utf-8"), ROOT, page))
    assert not problems, "\n".join(problems)


def test_the_architecture_page_has_a_true_tree() -> None:
    """It names every package and every module at the top of `cycles/`, and nothing that is not there."""
    named = set(tree_entries((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, f"the tree names what is not there: {', '.join(missing)}"
    modules = {f"cycles/{path.name}" for path in (ROOT / "cycles").glob("*.py")}
    packages = {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "cycles").rglob("__init__.py")}
    unnamed = sorted((modules | packages) - named)
    assert not unnamed, f"the tree does not name {', '.join(unnamed)}"


def test_no_prose_cites_a_document_that_is_not_here() -> None:
    problems = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in CODE
        for prose in dict.fromkeys(prose_of_code(path.read_text(encoding="utf-8")))
        for problem in unknown_documents(prose, ROOT, ROOT)
    ]
    for page in PAGES:
        prose = without_blocks(page.read_text(encoding="utf-8"))
        problems += [f"{page.relative_to(ROOT)}: {problem}" for problem in unknown_documents(prose, ROOT, page.parent)]
    assert not problems, "\n".join(problems)


PLANTED_PAGE: Final = """# A page

## What `commit()` does, and when

## Twice

## Twice

```text
## not a heading
```
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A small repository with one page and one test."""
    for name, text in {
        "docs" + "/page.md": PLANTED_PAGE,
        "tests/test_one.py": "def test_it(): ...\n",
        "cycles/a.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("citation", "fault"),
    [
        ("page.md", None),
        ("page.md#what-commit-does-and-when", None),
        ("page.md#twice-1", None),
        ("page.md#twice-2", "no such heading"),
        ("page.md#not-a-heading", "no such heading"),
        ("page.md#What-commit-does-and-when", "no such heading"),
        ("pages.md", "no such page"),
        ("deep/page.md#twice", "no such page"),
    ],
)
def test_a_planted_citation_is_checked(planted: Path, citation: str, fault: str | None) -> None:
    problems = list(bad_citations(f"# See docs/{citation}, which says why.", planted))
    assert [problem for problem in problems if fault and fault in problem] == problems
    assert len(problems) == (0 if fault is None else 1)


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("cycles/a.py", None),
        ("a.py", None),
        ("docs/*.md", None),
        ("tests/test_one.py::test_it", None),
        ("~/.local/state/journal/", None),
        ("rejected/", None),
        ("cycles/b.py", "no such file"),
        ("docs/*.txt", "no such file"),
        ("tests/gone/", "no such file"),
        ("tests/test_one.py::test_other", "no such test"),
    ],
)
def test_a_planted_path_is_checked(planted: Path, named: str, fault: str | None) -> None:
    problems = list(bad_paths(f"It is in `{named}` today.", planted, planted / "docs" / "page.md"))
    assert [problem for problem in problems if fault and fault in problem] == problems
    assert len(problems) == (0 if fault is None else 1)


TREE: Final = """```text
openapi.yaml     no folder
cycles/
  _core/         pure
    a.py  b.py   two
  c.py           one
```
"""


def test_the_entries_of_a_planted_tree_are_read() -> None:
    assert list(tree_entries(TREE)) == [
        "cycles/",
        "cycles/_core/",
        "cycles/_core/a.py",
        "cycles/_core/b.py",
        "cycles/c.py",
    ]


@pytest.mark.parametrize(
    ("citation", "is_unknown"),
    [
        ("docs" + "/page.md", False),
        ("RFC 9110, section 15", False),
        ("the decision of 3 servers", False),
        ("page.md", True),
        ("semantics" + " 8", True),
        ("decisions" + " 9 to 11", True),
        ("decision" + ' "lease 1"', True),
        ("ledger" + " 2.6", True),
        ("recovery" + ".md, core", True),
    ],
)
def test_a_planted_document_that_is_not_here_is_reported(planted: Path, citation: str, is_unknown: bool) -> None:
    source = f"""def f():\n    \'\'\'Do it ({citation}).\'\'\'\n\n\nX = 1  # as {citation} says\n"""
    found = [bool(list(unknown_documents(prose, planted, planted))) for prose in prose_of_code(source) if prose]
    assert found == [is_unknown] * 3  # the comment, and the docstring in two ways
