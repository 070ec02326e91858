"""What `PostgresStore` sends and how it reads rows, without a server and without its package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import cycles
from cycles._errors import StoreError
from cycles._journal.stores import postgres
from cycles._journal.stores.postgres import DDL, PostgresStore
from cycles._journal.stores.postgres_link import LinkError
from cycles._journal.stores.store import Put, Stored

LOOK = "select to_regclass($1::text)"
NONE, FOUND = [("",)], [("a table",)]


class Link:
    """A connection that notes the statements; `results` has the rows, or the errors, by the statement's beginning."""

    made: list[Link]

    def __init__(self, conninfo: str, timeout_s: float, settings: str) -> None:
        self.conninfo, self.timeout_s, self.settings = conninfo, timeout_s, settings
        self.told: list[tuple[str, tuple[str, ...]]] = []
        self.results: dict[str, list[Any]] = {f"{LOOK} cycles_journal_j2": [FOUND], f"{LOOK} cycles_journal": [NONE]}
        self.is_closed = False
        Link.made.append(self)

    def run(self, sql: str, parameters: Sequence[str] = ()) -> list[Any]:
        self.told.append((sql, tuple(parameters)))
        wanted = f"{sql} {parameters[0]}" if sql == LOOK else sql
        for begin, results in self.results.items():
            if wanted == begin or (sql != LOOK and wanted.startswith(begin)):
                result = results.pop(0)
                if isinstance(result, Exception):
                    raise result
                return result  # type: ignore[no-any-return]
        return []

    def close(self) -> None:
        self.is_closed = True

    @property
    def statements(self) -> list[str]:
        """What is not a look at the tables, by its first words."""
        return [" ".join(sql.split()[:2]) for sql, _ in self.told if sql != LOOK]


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    Link.made = []
    monkeypatch.setattr(postgres, "PostgresLink", Link)
    conninfo = ModuleType("psycopg.conninfo")

    def make_conninfo(given: str, **settings: str) -> str:
        if "bad" in given:
            raise ValueError(given)
        return f"{given} {settings}"

    conninfo.make_conninfo = make_conninfo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "psycopg", ModuleType("psycopg"))
    monkeypatch.setitem(sys.modules, "psycopg.conninfo", conninfo)


def store_of(**results: Any) -> tuple[PostgresStore, Link]:
    store = PostgresStore("host=db", partition="p")
    (link,) = Link.made
    link.results |= results
    return store, link


@pytest.mark.parametrize(
    ("durability", "timeout_s", "settings"),
    [
        ("process", 0.5, "set local statement_timeout = 500; set local synchronous_commit = off"),
        ("process", 0.0001, "set local statement_timeout = 1; set local synchronous_commit = off"),
        (
            "disk",
            2.0,
            "set local statement_timeout = 2000; select set_config('synchronous_commit', 'on', true) "
            "where current_setting('synchronous_commit') in ('off', 'local', 'remote_write')",
        ),
    ],
)
def test_the_settings_of_each_transaction(durability: Any, timeout_s: float, settings: str) -> None:
    PostgresStore("host=db", durability=durability, timeout_s=timeout_s)
    PostgresStore("host=db").bind("tenant", durability=durability, timeout_s=timeout_s)
    first, default, bound = Link.made
    assert (first.settings, first.timeout_s) == (bound.settings, bound.timeout_s) == (settings, timeout_s)
    assert (default.timeout_s, default.conninfo) == (0.5, "host=db {'client_encoding': 'utf8'}")


def test_a_wrong_connection_string_is_named_without_it() -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        PostgresStore("bad password")
    assert str(caught.value).startswith("journal_store is not a PostgreSQL URL; write it like postgresql://user:")
    assert "bad" not in f"{caught.value.__context__} {caught.value.__cause__}"


def test_a_missing_package_leaves_it_to_the_connection_to_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg.conninfo", None)
    PostgresStore("host=db")
    assert Link.made[0].conninfo == "host=db"


def test_a_store_shows_its_partition_reports_nothing_and_closes_its_connection() -> None:
    store, link = store_of()
    assert (repr(store), store.problems()) == ("<PostgresStore p>", [])
    assert (store.get([]), store.renew([], 1)) == ([], [])
    store.delete([])
    assert link.told == []
    store.close()
    assert link.is_closed


@pytest.mark.parametrize(
    ("table", "url", "made"),
    [
        (NONE, "postgresql://db", 3),
        (NONE, "postgresql://db?create=true", 3),
        (FOUND, "postgresql://db", 0),
        (NONE, "postgresql://db?create=false", 0),
    ],
)
def test_the_table_is_made_once_if_it_is_missing_and_may_be_made(table: Any, url: str, made: int) -> None:
    store = PostgresStore(url).bind("p", durability="process", timeout_s=1.0)
    link = Link.made[1]
    assert "create" not in link.conninfo.partition(" ")[0]
    link.results[f"{LOOK} cycles_journal_j2"] = [table]
    store.list()
    store.list()
    assert [sql for sql, _ in link.told if sql in DDL] == list(DDL)[:made]
    assert len([sql for sql, _ in link.told if sql == LOOK]) == (1 if "false" in url else 2)


def test_a_store_that_may_not_make_its_table_never_looks_for_it() -> None:
    PostgresStore("host=db", create=False).list()
    assert [parameters for sql, parameters in Link.made[0].told if sql == LOOK] == [("cycles_journal",)]


@pytest.mark.parametrize("code", ["23505", "42P07", "42710", "42501", None])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_another_process_may_make_the_same_table(code: str | None, number: int) -> None:
    store, link = store_of()
    link.results[f"{LOOK} cycles_journal_j2"] = [NONE]
    link.results[DDL[number]] = [LinkError("no", code)]
    if code in ("42501", None):
        with pytest.raises(LinkError, match=r"^no$"):
            store.list()
    else:
        assert store.list() == []
        assert link.statements.count("create index") == 2


def test_the_records_of_an_earlier_version_are_moved_until_none_is_left() -> None:
    store, link = store_of(**{"with old as": [[("500",)], [("1",)], [("0",)]]})
    link.results[f"{LOOK} cycles_journal"] = [FOUND]
    store.list()
    store.list()
    assert link.statements == [*["with old"] * 3, *["select key,"] * 2]
    moves = [parameters for sql, parameters in link.told if sql.startswith("with old")]
    assert {parameters[0] for parameters in moves} == {"p"}
    assert len({parameters[1] for parameters in moves}) == 3, "the fences of each page differ"
    assert {len(parameters[1]) for parameters in moves} == {25}


def test_a_move_that_fails_is_tried_again() -> None:
    store, link = store_of(**{"with old as": [LinkError("it is down"), [("0",)]]})
    link.results |= {f"{LOOK} cycles_journal": [FOUND, FOUND], f"{LOOK} cycles_journal_j2": [FOUND, FOUND]}
    with pytest.raises(StoreError):
        store.list()
    assert store.list() == []
    assert link.statements.count("with old") == 2


@pytest.mark.parametrize(
    ("url", "create", "is_made"),
    [
        ("postgresql://db", True, True),
        ("postgresql://db?create=true", True, True),
        ("postgresql://db?create=true", False, False),
        ("postgresql://db?create=false", True, False),
        ("postgresql://db?create=false&create=true", True, True),
    ],
)
def test_a_table_is_made_unless_the_program_or_the_url_says_no(url: str, create: bool, is_made: bool) -> None:
    store = PostgresStore(url, create=create)
    bound = store.bind("p", durability="process", timeout_s=0.5)
    for each, link in zip((store, bound), Link.made, strict=True):
        link.results[f"{LOOK} cycles_journal_j2"] = [NONE]
        assert each.list() == []
        assert ("create table" in link.statements) is is_made


@pytest.mark.parametrize("own", ["create=true", "create=false"])
def test_an_own_parameter_of_the_url_changes_no_other_one(own: str) -> None:
    url = "postgresql://u:p%40ss@db:5433/d%20b?password=&application_name=a%26b&{}options=-c%20a%3D1"
    PostgresStore(url.format(f"{own}&"))
    (link,) = Link.made
    given, wanted = urlsplit(link.conninfo.partition(" ")[0]), urlsplit(url.format(""))
    assert given._replace(query="") == wanted._replace(query="")
    assert parse_qsl(given.query, keep_blank_values=True) == parse_qsl(wanted.query, keep_blank_values=True)


def test_a_put_of_new_records_is_one_statement_and_a_key_that_is_there_twice_needs_two() -> None:
    store, link = store_of(insert=[[("a",)], [("a",), ("b",)]], **{"with changed": [[("b",)]]})
    new = [Put("a", b"1", None, 5), Put("b", b'q"\\', None, 6, "rejected")]
    (fence, lost) = store.put(new)
    assert lost is None
    assert link.told[-1][1] == (
        "p",
        '{"a","b"}',
        '{"1","q\\"\\\\"}',
        "{NULL,NULL}",
        link.told[-1][1][4],
        '{"5","6"}',
        '{"","rejected"}',
    )
    assert link.told[-1][1][4].startswith(f'{{"{fence}","')
    results = store.put([*new, Put("b", b"2", "f", 0)])
    assert [each is None for each in results] == [False, False, False]
    assert len(set(results)) == 3
    assert link.told[-1][1][:4] == ("p", '{"b"}', '{"2"}', '{"f"}')
    assert link.statements == ["insert into", "insert into", "with changed"]
    assert store.put([]) == []


def test_one_record_with_a_fence_makes_the_statement_of_changes() -> None:
    store, link = store_of(**{"with changed": [[("b",), ("a",)]]})
    assert None not in store.put([Put("a", b"1"), Put("b", b"2", "f")])
    assert link.statements == ["with changed"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff", "the record is not UTF-8 text; PostgreSQL cannot keep it"),
        (b"a\0b", "the record contains a NUL character; PostgreSQL cannot keep it"),
    ],
)
def test_bytes_that_the_database_cannot_keep_are_named(record: bytes, message: str) -> None:
    store, link = store_of()
    with pytest.raises(StoreError) as caught:
        store.put([Put("a", record)])
    assert str(caught.value) == message
    assert link.told == []


def test_rows_become_records_in_the_order_of_the_keys() -> None:
    row, kept = ("a", "é", "f", "7", ""), ("b", "r", "g", "8", "quarantined")
    store, link = store_of(
        **{"select key, record": [[kept, row], [row]], "with ready": [[row, kept]], "with own": [[("a",)]]}
    )
    first, second = Stored("a", "é".encode(), "f", 7), Stored("b", b"r", "g", 8, "quarantined")
    assert store.get(["a", "c", "b"]) == [first, None, second]
    assert store.list("x", 3, "quarantined") == [first]
    assert store.take(2, 9) == [first], "one that was quarantined by this take is not returned"
    assert store.renew([("a", "f"), ("b", "g")], 4) == ["a"]
    store.delete([("a", "f")])
    get, page, take, renew, delete = (parameters for sql, parameters in link.told if sql != LOOK)
    assert (get, page) == (("p", '{"a","c","b"}'), ("p", "x", "3", "quarantined"))
    assert take[:3] == ("p", "2", "9")
    assert len(take[3]) == 25
    assert take[3].endswith("-")
    assert renew == ("p", '{"a","b"}', '{"f","g"}', "4")
    assert delete == ("p", '{"a"}', '{"f"}')
    link.results["select key, record"] = [[]]
    assert store.list() == []
    assert link.told[-1][1] == ("p", "", "1000", "")
