"""The site has every page and every public name, and the build fails where something is missing."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cycles
from cycles._core.settlement.lifecycle import TRANSITIONS
from website import assistants, build, diagrams, front, glossary, outputs, pages, reference, rules
from website.errors import BuildError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site") / "site"
    build.build(folder, work=tmp_path_factory.mktemp("work"))
    return folder


def test_every_page_is_in_a_section() -> None:
    assert pages.unlisted() == []
    pages.check()


def test_a_page_that_no_section_lists_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.SECTIONS, "Guard your code", pages.SECTIONS["Guard your code"][1:])
    with pytest.raises(BuildError, match=r"no group lists .*providers\.md"):
        pages.check()


def test_a_listed_page_that_does_not_exist_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.SECTIONS, "Start", ["gone.md"])
    with pytest.raises(BuildError, match=r"a page that does not exist: gone\.md"):
        pages.check()


def test_the_navigation_has_few_groups_that_fold_and_begins_with_a_program_under_a_budget(site: Path) -> None:
    assert len(pages.sections()) <= 7
    assert pages.listed()[0] == "run-under-a-budget.md"
    first = (site / "index.html").read_text("utf-8")
    shown = first[first.index('class="md-sidebar__inner"') :]
    assert shown.index("Run any program under a budget") < shown.index("Install")
    assert "navigation.sections" not in first


def test_the_title_in_the_navigation_is_that_of_the_page(site: Path) -> None:
    entries = [entry for listed in pages.sections().values() for entry in listed]
    assert len(entries) > 20
    for title, page in entries:
        shown = site / page.replace("README.md", "index.md")
        heading = re.search(r"<h1[^>]*>(.*?)<", shown.with_suffix(".html").read_text("utf-8"))  # a link follows
        assert heading is not None, page
        assert html.unescape(heading[1]) == title.replace("`", ""), page


def test_the_first_page_can_be_read_in_two_minutes(site: Path) -> None:
    text = (site / "index.md").read_text("utf-8")
    assert len(text.split()) <= 600
    assert f"Version {cycles.__version__}" in text
    assert text.count("![") == 1


def test_the_first_page_links_to_addresses_that_lead_somewhere() -> None:
    urls = {"Source": "https://code.test/cycles", "Issues": "https://code.test/cycles/issues"}
    assert "[Source](https://code.test/cycles), [issues](https://code.test/cycles/issues)" in front.line("1.2.3", urls)
    assert "](" not in front.line("1.2.3", {"Source": "https://cycles.example/source"})


def test_the_first_use_of_a_word_links_to_its_entry(site: Path) -> None:
    words = glossary.terms((site / glossary.PAGE).read_text("utf-8"))
    assert {
        "reservation",
        "lease",
        "heartbeat",
        "estimate",
        "actual",
        "settlement",
        "scope",
        "subject",
        "action",
    } < set(words)
    assert {"caps", "overage policy", "journal"} < set(words)
    entries = (site / "glossary.html").read_text("utf-8")
    for word, anchor in words.items():
        assert f'id="{anchor}"' in entries, word
    for page in ("recovery.html", "scripts.html", "protocol/guards.html"):
        text = (site / page).read_text("utf-8")
        links = re.findall(r'href="(?:\.\./)?glossary\.html#([a-z-]+)"', text)
        assert "reservation" in links, page
        assert len(links) == len(set(links)), page


def test_only_prose_is_linked_and_each_word_once() -> None:
    words = {"lease": "lease", "overage policy": "overage-policy"}
    other = "# A lease\n\n`lease` [a lease](x.md)\n\n```\nlease\n```\n\n| lease |\n\n"
    text = f"{other}Leases end. A lease, the overage\npolicy.\n"
    found = glossary.linked(text, words, "glossary.md")
    assert found.startswith(other)
    assert found.endswith(
        "[Leases](glossary.md#lease) end. A lease, the [overage\npolicy](glossary.md#overage-policy).\n"
    )
    assert glossary.linked("released, sub-lease", words, "g.md") == "released, sub-lease"


def test_every_public_name_has_a_docstring_and_a_page(site: Path) -> None:
    contents = "\n".join(page.read_text(encoding="utf-8") for page in (site / "api").rglob("*.html"))
    modules = reference.names_by_module()
    assert modules
    for names in modules.values():
        for name in names:
            assert not list(reference.undocumented(name))
            if callable(getattr(cycles, name)):
                assert f'id="cycles.{name}"' in contents, f"{name} is on no page of the reference"


def test_a_name_without_a_docstring_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycles.usd, "__doc__", None)
    assert list(reference.undocumented("usd")) == ["usd"]


def test_the_operations_of_the_client_are_shown_as_methods(site: Path) -> None:
    text = (site / "api" / "client.html").read_text(encoding="utf-8")
    assert 'id="cycles.Cycles.decide"' in text
    assert "context" not in re.search(r'id="cycles\.Cycles\.decide".*?</pre>', text, re.DOTALL)[0]  # type: ignore[index]


def test_the_operations_of_the_administration_are_shown_as_methods(site: Path) -> None:
    text = (site / "api" / "admin.html").read_text(encoding="utf-8")
    shown = re.search(r'id="cycles\.Admin\.fund".*?id="cycles\.Admin\.credit"', text, re.DOTALL)[0]  # type: ignore[index]
    assert "channel" not in shown
    assert "BudgetFrozenError" in shown
    assert 'id="cycles.admin.results.Funding"' in text
    first = re.search(r'id="cycles\.Admin".*?</pre>', text, re.DOTALL)[0]  # type: ignore[index]
    assert "max_connections" in first, "the constructor has no signature"


def test_every_public_member_is_shown_and_a_missing_one_is_found(site: Path) -> None:
    contents = "\n".join(page.read_text(encoding="utf-8") for page in (site / "api").rglob("*.html"))
    assert list(reference.missing(contents)) == []
    without = contents.replace('id="cycles.Admin.fund"', "").replace('id="cycles.usd"', "")
    assert set(reference.missing(without)) == {"cycles.Admin.fund", "cycles.usd"}


def test_errors_are_grouped_and_show_their_common_constructor_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (site / "api" / "errors.html").read_text("utf-8")
    headings = [html.unescape(found) for found in re.findall(r"<h2[^>]*>(.*?)<", text)]
    assert headings == list(reference.ERRORS)
    words = re.sub(r"<[^>]+>", "", text)
    assert words.count("The server's id of the request") <= 2  # 40 times when each error showed its constructor
    monkeypatch.delitem(reference.ERRORS, "All errors")
    with pytest.raises(BuildError, match="CyclesError, ProtocolError, TransportError"):
        reference._error_page(site / "errors.md", "Errors", "", list(reference.names_by_module()["cycles._errors"]))


def test_a_name_links_to_its_rule(site: Path) -> None:
    text = (site / "api" / "guards.html").read_text(encoding="utf-8")
    shown = re.search(r'id="cycles\.Guard\.release".*?id="cycles\.Guard\.', text, re.DOTALL)[0]  # type: ignore[index]
    assert 'Rule: <a href="../protocol/settlement.html#release">Settlement: Release</a>' in shown
    for page in (site / "api").glob("*.html"):
        for link, anchor in re.findall(r'Rule: <a href="\.\./([^"#]+)#?([^"]*)"', page.read_text(encoding="utf-8")):
            assert (site / link).exists()
            assert not anchor or f'id="{anchor}"' in (site / link).read_text(encoding="utf-8"), (link, anchor)


def test_a_rule_on_a_heading_that_does_not_exist_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rules.OF_NAMES, "protocol/settlement.md#gone", "usd")
    with pytest.raises(BuildError, match=r"settlement\.md#gone, which does not exist"):
        rules.by_name()


def generate(folder: Path, text: str) -> None:
    """Generate a site of one page, with the settings of the whole site."""
    (folder / "pages").mkdir(parents=True)
    (folder / "pages" / "index.md").write_text(text, encoding="utf-8")
    (folder / "zensical.toml").write_text(build._configuration({}), encoding="utf-8")
    build._generate(folder / "zensical.toml")


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "sections", dict)
    generate(tmp_path / "right", "# Title\n\n[here](index.md)\n")
    with pytest.raises(BuildError, match=r"gone\.md"):
        generate(tmp_path / "wrong", "# Title\n\n[gone](gone.md)\n")


def test_no_page_loads_from_another_origin(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=\"(https?:)?//", page.read_text("utf-8")), page


def test_coding_assistants_get_every_page(site: Path) -> None:
    listing = (site / "llms.txt").read_text(encoding="utf-8")
    everything = (site / "llms-full.txt").read_text(encoding="utf-8")
    for page in pages.listed():
        assert f"]({page}): " in listing
        assert f"<!-- {page} -->" in everything
        assert (site / page).exists()
    assert "invisible-code" not in everything


def test_the_first_sentence_of_a_page_has_no_markup() -> None:
    page = "# Title\n\n![picture](a.svg)\n\nGuards [limit](x.md) what\nan agent spends. They also do more.\n"
    assert assistants.first_sentence(page) == "Guards limit what an agent spends."


def test_every_diagram_is_drawn_from_its_text() -> None:
    diagrams.check()


def test_a_diagram_that_is_older_than_its_text_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mmd").write_text("flowchart TD\n a --> b\n")
    (tmp_path / "a.svg").write_text("<svg/>")
    monkeypatch.setattr(diagrams, "FOLDER", tmp_path)
    monkeypatch.setattr(diagrams, "ROOT", tmp_path)
    with pytest.raises(BuildError, match="make diagrams"):
        diagrams.check()


def test_the_diagram_of_a_guard_shows_rows_of_the_lifecycle_table() -> None:
    text = (ROOT / "docs" / "diagrams" / "guard.mmd").read_text()
    shown = re.findall(r"^\s*(\w+) --> (\w+): (\w+)$", text, re.MULTILINE)
    assert len(shown) >= 10
    for state, following, event in shown:
        assert TRANSITIONS[state][event] == following


def test_the_output_of_a_marked_command_is_that_of_the_command() -> None:
    page = "<!-- output: python -c \"print('made now')\" -->\n\n```text\ntyped\n```\n"
    assert "made now\n" in outputs.with_outputs(page, Path("page.md"))
    assert "typed" not in outputs.with_outputs(page, Path("page.md"))


def test_a_marked_command_may_set_and_remove_variables() -> None:
    shown = "import os; print(os.environ.get('CYCLES_LOG'), os.environ.get('CYCLES_TENANT'))"
    page = f'<!-- output: CYCLES_LOG=info CYCLES_TENANT= python -c "{shown}" -->\n\n```text\n```\n'
    assert "info None\n" in outputs.with_outputs(page, Path("page.md"))


def test_the_pages_have_marked_commands(site: Path) -> None:
    text = (site / "command-line.html").read_text(encoding="utf-8")
    assert "agent:researcher" in text
    marked = {page.name for page in (ROOT / "docs").rglob("*.md") if "<!-- output: " in page.read_text("utf-8")}
    assert marked >= {"command-line.md", "run-under-a-budget.md"}


def test_a_marked_command_that_fails_fails_the_build() -> None:
    page = '<!-- output: python -c "raise SystemExit(3)" -->\n\n```text\n```\n'
    with pytest.raises(BuildError, match="status 3"):
        outputs.with_outputs(page, Path("page.md"))


def test_the_command_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = subprocess.run([sys.executable, "-m", "website", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0
    assert "--renew-outputs" in ran.stdout
