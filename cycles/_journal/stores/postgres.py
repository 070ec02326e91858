"""`PostgresStore`: the records of a fleet in one table of PostgreSQL 12 or later. See `docs/fleets.md#postgresql`.

Each operation is one transaction, on the server's clock. The table `cycles_journal_j2` is made at the first use if the
role may; `create=False` leaves that to you. Records of the table `cycles_journal`, which earlier versions wrote, are
moved by the first client that starts.
"""

# The statements are made of names of this file only; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import Final

from cycles._config import Durability
from cycles._errors import ConfigurationError, StoreError
from cycles._journal.files.record_files import SETTLED_KEPT_MS
from cycles._journal.stores.postgres_link import LinkError, PostgresLink, Row
from cycles._journal.stores.store import (
    KEPT,
    PAGE,
    POISON_TAKES,
    KeptState,
    Owned,
    Put,
    Stored,
    new_fence,
    without_parameter,
)
from cycles._version import readable

DDL: Final = (
    """create table if not exists cycles_journal_j2 (
  partition text, key text, record text not null, fence text not null, due timestamptz not null,
  takes int not null default 0, kept text not null default '', primary key (partition, key))""",
    "create index if not exists cycles_journal_j2_due on cycles_journal_j2 (partition, due) where kept = ''",
    "create index if not exists cycles_journal_j2_list on cycles_journal_j2 (partition, kept, key)",
)
"""What makes the table, for those who make it themselves. `kept` is empty, `rejected` or `quarantined`."""

_ITEMS: Final = """select * from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[])
  as t(key, record, fence, new, due_ms, kept)"""
_LATER: Final = "clock_timestamp() + {} * interval '1 millisecond'"
_DUE: Final = "floor(extract(epoch from due) * 1000)::bigint"
_STORED: Final = f"key, record, fence, {_DUE}, kept"
# `order by key` here and in the move: two statements that lock the same rows in another order end in a deadlock.
_PUT_NEW: Final = f"""insert into cycles_journal_j2 as j (partition, key, record, fence, due, kept)
select $1::text, key, record, new, {_LATER.format("due_ms")}, kept from ({_ITEMS}) i where fence is null order by key
on conflict (partition, key) do nothing returning j.key"""
_PUT: Final = f"""with changed as (
  update cycles_journal_j2 j
  set record = i.record, fence = i.new, due = {_LATER.format("i.due_ms")}, takes = 0, kept = i.kept from ({_ITEMS}) i
  where j.partition = $1::text and j.key = i.key and j.fence = i.fence returning j.key
), added as ({_PUT_NEW}) select key from changed union all select key from added"""
_GET: Final = f"select {_STORED} from cycles_journal_j2 where partition = $1::text and key = any($2::text[])"
# `skip locked`: eight workers that look at the same moment get different records, and none waits for another.
_TAKE: Final = f"""with ready as (
  select key from cycles_journal_j2 where partition = $1::text and kept = '' and due <= clock_timestamp()
  order by due limit $2::int for update skip locked
)
update cycles_journal_j2 j set fence = $4::text || left(j.key, 16), takes = j.takes + 1,
  due = {_LATER.format("$3::bigint")}, kept = case when j.takes >= {POISON_TAKES} then 'quarantined' else '' end
from ready r where j.partition = $1::text and j.key = r.key
returning j.key, j.record, j.fence, {_DUE.replace("due", "j.due")}, j.kept"""
_OWNED: Final = "select * from unnest($2::text[], $3::text[]) as t(key, fence)"
_RENEW: Final = f"""with own as (
  update cycles_journal_j2 j set due = {_LATER.format("$4::bigint")} from ({_OWNED}) o
  where j.partition = $1::text and j.key = o.key and j.fence = o.fence returning j.key
)
select key from ({_OWNED}) o where key not in (select key from own)"""
_DELETE: Final = f"""delete from cycles_journal_j2 j using ({_OWNED}) o
where j.partition = $1::text and j.key = o.key and j.fence = o.fence"""
_LIST: Final = f"""select {_STORED} from cycles_journal_j2
where partition = $1::text and kept = $4::text and key > $2::text order by key limit $3::int"""
_MOVED: Final = 500  # records of an earlier version that are moved together
# A rejected row of an earlier version that an operator had settled has -1 claims, and that time as `due`.
_IS_SETTLED: Final = "rejected is not null and claims = -1"
_MOVE: Final = rf"""with old as (
  select * from cycles_journal where partition = $1::text order by key limit {_MOVED} for update
), moved as (
  insert into cycles_journal_j2 (partition, key, record, fence, due, kept)
  select partition, key, case when rejected is null then record else regexp_replace(record, '}}\s*$', '') ||
    ',"rejected":' || to_json(rejected) || case when {_IS_SETTLED} then ',"settled":0' else '' end || '}}' end,
    $2::text || left(key, 16),
    case when {_IS_SETTLED} then due + {SETTLED_KEPT_MS} * interval '1 millisecond' else due end,
    case when {_IS_SETTLED} then '' when rejected is not null then 'rejected'
      when quarantined is not null then 'quarantined' else '' end
  from old on conflict do nothing
), deleted as (
  delete from cycles_journal j using old where j.partition = old.partition and j.key = old.key
)
select count(*) from old"""


class PostgresStore:
    """Records in PostgreSQL. Threads and processes may share it; each process keeps one connection open.

    Args:
        conninfo: A URL such as ``postgresql://user:password@host/db``, or a connection string of libpq.
        partition: Whose records these are; a client sets it.
        durability: `process` does not wait for the disk of the database (``synchronous_commit = off``); `disk` does.
        create: Whether to make the table if it does not exist. In a URL: ``?create=false``.
        timeout_s: Bounds one operation, in seconds.

    Raises:
        ConfigurationError: the connection string is wrong, or the package is not installed.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        partition: str = "default",
        durability: Durability = "process",
        create: bool = True,
        timeout_s: float = 0.5,
    ) -> None:
        conninfo, given = without_parameter(conninfo, "create")
        self._create = create and given != "false"
        self._partition = partition
        self._conninfo = _checked(conninfo)
        self._link = PostgresLink(self._conninfo, timeout_s, _settings(durability, timeout_s))
        self._is_ready = False

    def bind(self, partition: str, *, durability: Durability, timeout_s: float) -> PostgresStore:
        """Return the store of one partition, with its own connection."""
        return PostgresStore(
            self._conninfo, partition=partition, durability=durability, create=self._create, timeout_s=timeout_s
        )

    def put(self, items: Sequence[Put]) -> builtins.list[str | None]:
        """Save records; None for each one of which the store has another fence."""
        # One statement sees one state of the table, so a key that is there twice needs two statements, in their order.
        results: builtins.list[str | None] = []
        for batch in _without_repeats(items):
            fences = [new_fence() for _ in batch]
            rows = [
                (item.key, _text(item.record), item.fence, new, str(item.due_ms), item.kept or "")
                for item, new in zip(batch, fences, strict=True)
            ]
            # New records, the common case, have their own statement: the other one takes four times as long.
            statement = _PUT_NEW if all(item.fence is None for item in batch) else _PUT
            saved = {key for (key,) in self._run(statement, *_arrays(rows))}
            results += [new if item.key in saved else None for item, new in zip(batch, fences, strict=True)]
        return results

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys."""
        found = {each.key: each for each in map(_stored, self._run(_GET, _array(keys)))} if keys else {}
        return [found.get(key) for key in keys]

    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        """Return due records, which belong to this client from now on."""
        rows = self._run(_TAKE, str(limit), str(claim_ms), f"{new_fence()}-")
        return [taken for row in rows if (taken := _stored(row)).kept is None]

    def renew(self, items: Sequence[Owned], claim_ms: int) -> builtins.list[str]:
        """Keep records longer, and return the keys that this client does not have any longer."""
        return [key for (key,) in self._run(_RENEW, *_arrays(items), str(claim_ms))] if items else []

    def delete(self, items: Sequence[Owned]) -> None:
        """Delete records that have these fences."""
        if items:
            self._run(_DELETE, *_arrays(items))

    def list(self, after: str = "", limit: int = PAGE, kept: KeptState | None = None) -> builtins.list[Stored]:
        """Return one page of records."""
        return [_stored(row) for row in self._run(_LIST, after, str(limit), kept or "")]

    def problems(self) -> builtins.list[str]:
        """Return nothing: no setting of the database deletes records."""
        return []

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def __repr__(self) -> str:
        return f"<PostgresStore {self._partition}>"

    def _run(self, sql: str, *parameters: str) -> builtins.list[Row]:
        if not self._is_ready:
            self._prepare()
        return self._link.run(sql, (self._partition, *parameters))

    def _prepare(self) -> None:
        """Make the table if it does not exist and the role may, and move what an earlier version has left."""
        # A role that may not create anything may use a table that exists, so look first.
        if self._create and not self._has("cycles_journal_j2"):
            for statement in DDL:
                try:
                    self._link.run(statement)
                except LinkError as error:
                    # Another process makes the same table at the same time: 23505, 42P07, 42710.
                    if error.sqlstate not in ("23505", "42P07", "42710"):
                        raise
        if self._has("cycles_journal"):
            while self._link.run(_MOVE, (self._partition, f"{new_fence()}-")) != [("0",)]:
                pass
        self._is_ready = True

    def _has(self, table: str) -> bool:
        return self._link.run("select to_regclass($1::text)", (table,)) != [("",)]


def _settings(durability: Durability, timeout_s: float) -> str:
    """Return the settings of each transaction, which end with it: a pooler may pass the session to another program."""
    timeout = f"set local statement_timeout = {max(1, round(timeout_s * 1000))}"
    if durability == "process":
        return f"{timeout}; set local synchronous_commit = off"
    return (
        f"{timeout}; select set_config('synchronous_commit', 'on', true) "
        "where current_setting('synchronous_commit') in ('off', 'local', 'remote_write')"
    )


def _checked(conninfo: str) -> str:
    """Return the connection string, with the encoding of records.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        from psycopg.conninfo import make_conninfo
    except ImportError:
        return conninfo  # `PostgresLink` says which package is missing
    try:
        checked: str = make_conninfo(conninfo, client_encoding="utf8")
        return checked
    except Exception:  # noqa: S110 - its message may contain the password
        pass
    raise ConfigurationError("journal_store is not a PostgreSQL URL; write it like postgresql://user:password@host/db")


def _without_repeats(items: Sequence[Put]) -> builtins.list[builtins.list[Put]]:
    """Return the items in batches in which no key is twice: one statement changes a row once."""
    batches: builtins.list[builtins.list[Put]] = []
    seen: set[str] = set()
    for item in items:
        if not batches or item.key in seen:
            batches.append([])
            seen = set()
        batches[-1].append(item)
        seen.add(item.key)
    return batches


def _arrays(rows: Sequence[Sequence[str | None]]) -> builtins.list[str]:
    return [_array(column) for column in zip(*rows, strict=True)]


def _array(values: Iterable[str | None]) -> str:
    # Not JSON: the database knows the length of an array, and with it that an index finds its rows. It takes
    # json_array_elements for 100 rows, and read the whole table: 1,060 us for a put in place of 227.
    return "{" + ",".join("NULL" if value is None else _quoted(value) for value in values) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _stored(row: Row) -> Stored:
    key, record, fence, due_ms, kept = row
    return Stored(key, record.encode(), fence, int(due_ms), KEPT[kept])


def _text(record: bytes) -> str:
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError("the record is not UTF-8 text; PostgreSQL cannot keep it") from error
    if "\0" in text:
        raise StoreError("the record contains a NUL character; PostgreSQL cannot keep it")
    return text


readable(PostgresStore)
