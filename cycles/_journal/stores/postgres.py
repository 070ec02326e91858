"""`PostgresStore`: the records of a fleet in one table of PostgreSQL 12 or later. See `docs/fleets.md#postgresql`.

Each operation is one statement, on the server's clock. The table `cycles_journal` is made at the first use if the role
may; `create=False` leaves that to you.
"""

# The statements are made of names of this file only; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cycles._config import Durability
from cycles._errors import ConfigurationError, StoreError
from cycles._journal.store import POISON_CLAIMS, POISON_REASON, Claimed, Kept, Put, Stored
from cycles._journal.stores.postgres_link import LinkError, PostgresLink, Row
from cycles._version import readable

DDL: Final = (
    """create table if not exists cycles_journal (
  partition text, key text, record text not null, due timestamptz not null, fence bigint not null default 0,
  claims int not null default 0, recorded_at timestamptz not null default now(), quarantined text, rejected text,
  primary key (partition, key))""",
    """create index if not exists cycles_journal_due on cycles_journal (partition, due)
  where quarantined is null and rejected is null""",
)
"""What makes the table, for those who make it themselves."""

_LIVE: Final = "quarantined is null and rejected is null"
_LATER: Final = "clock_timestamp() + {} * interval '1 millisecond'"
_PUT: Final = f"""
with items as (
  select * from unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) as t(key, record, fence, due_ms)
), updated as (
  update cycles_journal j set record = i.record, due = {_LATER.format("i.due_ms")}, claims = 0 from items i
  where j.partition = $1::text and j.key = i.key and i.fence is not null and j.fence = i.fence and {_LIVE}
  returning j.key
), inserted as (
  insert into cycles_journal as j (partition, key, record, due)
  select $1::text, key, record, {_LATER.format("due_ms")} from items where fence is null order by key
  on conflict (partition, key) do update
  set record = excluded.record, due = excluded.due, claims = 0, quarantined = null, rejected = null
  returning j.key
) select key from updated union all select key from inserted"""
_PUT_NEW: Final = f"""
insert into cycles_journal as j (partition, key, record, due)
select $1::text, key, record, {_LATER.format("due_ms")}
from unnest($2::text[], $3::text[], $4::bigint[]) as t(key, record, due_ms) order by key
on conflict (partition, key) do update
set record = excluded.record, due = excluded.due, claims = 0, quarantined = null, rejected = null returning j.key"""
_LATER_ONE: Final = _LATER.format("$4::bigint")
_PUT_ONE: Final = f"""
insert into cycles_journal as j (partition, key, record, due) values ($1::text, $2::text, $3::text, {_LATER_ONE})
on conflict (partition, key) do update
set record = excluded.record, due = excluded.due, claims = 0, quarantined = null, rejected = null returning j.key"""
_UPDATE_ONE: Final = f"""
update cycles_journal set record = $3::text, due = {_LATER_ONE}, claims = 0
where partition = $1::text and key = $2::text and fence = $5::bigint and {_LIVE} returning key"""
_SETTLE: Final = f"delete from cycles_journal where partition = $1::text and key = any($2::text[]) and {_LIVE}"
_CLAIM: Final = f"""
with due as (
  select partition, key from cycles_journal where partition = $1::text and due <= clock_timestamp() and {_LIVE}
  order by due limit $2::int for update skip locked
)
update cycles_journal j set due = {_LATER.format("$3::bigint")}, fence = j.fence + 1, claims = j.claims + 1,
  quarantined = case when j.claims >= {POISON_CLAIMS} then '{POISON_REASON}' end
from due d where j.partition = d.partition and j.key = d.key
returning j.key, j.record, j.fence, j.quarantined"""
_RENEW: Final = f"""
with own as (
  update cycles_journal set due = {_LATER.format("$3::bigint")}
  where partition = $1::text and key = any($2::text[]) and {_LIVE} returning key
)
select k from unnest($2::text[]) as k where k not in (select key from own)
  and not exists (select 1 from cycles_journal j where j.partition = $1::text and j.key = k)"""
_LIST: Final = f"""select key, record, floor(extract(epoch from due) * 1000)::bigint, fence from cycles_journal
where partition = $1::text and {_LIVE} order by due limit $2::int"""
_GET: Final = f"""select key, record, floor(extract(epoch from due) * 1000)::bigint, fence from cycles_journal
where partition = $1::text and key = any($2::text[]) and {_LIVE}"""
_SETTLED_CLAIMS: Final = -1  # `claims` of a rejected row that an operator has settled; its `due` says when
_KEPT: Final = f"""select key, record, quarantined, rejected,
  case when claims = {_SETTLED_CLAIMS} then floor(extract(epoch from due) * 1000)::bigint end from cycles_journal
where partition = $1::text and (quarantined is not null or rejected is not null) limit $2::int"""
_AT: Final = "timestamptz 'epoch' + $2::bigint * interval '1 millisecond'"
_KEEP_SETTLED: Final = f"""insert into cycles_journal (partition, key, record, rejected, claims, due)
values ($1::text, $3::text, $4::text, $5::text, {_SETTLED_CLAIMS}, {_AT}) on conflict do nothing returning key"""
_REMOVE_SETTLED: Final = f"""delete from cycles_journal
where partition = $1::text and rejected is not null and claims = {_SETTLED_CLAIMS} and due < {_AT}"""
_RESTORE: Final = """update cycles_journal set quarantined = null, rejected = null, claims = 0, due = clock_timestamp()
where partition = $1::text and key = $2::text and (quarantined is not null or rejected is not null) returning key"""


class PostgresStore:
    """Records in PostgreSQL. Threads and processes may share it; each process has one connection.

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
        self._conninfo, self._create = _without_create(conninfo, create)
        self._partition = partition
        self._owner = partition.encode()
        _check(self._conninfo)
        self._link = PostgresLink(self._conninfo, timeout_s, [_statement_timeout(timeout_s), _COMMITS[durability]])
        self._is_ready = False

    def bind(self, partition: str, *, durability: Durability, timeout_s: float) -> PostgresStore:
        """Return the store of one partition, with its own connection."""
        return PostgresStore(
            self._conninfo, partition=partition, durability=durability, create=self._create, timeout_s=timeout_s
        )

    def put(self, items: Sequence[Put]) -> builtins.list[bool]:
        """Save records; False for each one whose fence another client has changed."""
        if len(items) == 1:
            return [self._put_one(items[0])]
        saved: builtins.list[bool] = []
        for batch in _without_repeats(items):
            keys, records = _array([item.key for item in batch]), _array([_text(item.record) for item in batch])
            fences, due = _numbers([item.fence for item in batch]), _numbers([item.due_ms for item in batch])
            if all(item.fence is None for item in batch):  # the common case takes half the time
                rows = self._run(_PUT_NEW, keys, records, due)
            else:
                rows = self._run(_PUT, keys, records, fences, due)
            written = {row[0] for row in rows}
            saved += [item.key.encode() in written for item in batch]
        return saved

    def settle(self, keys: Sequence[str]) -> None:
        """Delete finished records."""
        if keys:
            self._run(_SETTLE, _array(keys))

    def claim(self, limit: int, claim_ms: int) -> builtins.list[Claimed]:
        """Return due records, which belong to this client from now on."""
        rows = self._run(_CLAIM, str(limit).encode(), str(claim_ms).encode())
        return [
            Claimed(_word(key), record or b"", int(fence or 0)) for key, record, fence, poison in rows if not poison
        ]

    def renew(self, keys: Sequence[str], claim_ms: int) -> builtins.list[str]:
        """Keep claims longer, and return the keys that no longer exist."""
        if not keys:
            return []
        return [_word(row[0]) for row in self._run(_RENEW, _array(sorted(keys)), str(claim_ms).encode())]

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys."""
        found = {each.key: each for each in _stored(self._run(_GET, _array(keys)))} if keys else {}
        return [found.get(key) for key in keys]

    def list(self, limit: int = 1000) -> builtins.list[Stored]:
        """Return records without claiming them."""
        return _stored(self._run(_LIST, str(limit).encode()))

    def quarantine(self, key: str, reason: str) -> None:
        """Keep a record that no client can read."""
        self._keep("quarantined", key, reason)

    def reject(self, key: str, reason: str) -> None:
        """Keep a record that the server rejected."""
        self._keep("rejected", key, reason)

    def kept(self, limit: int = 1000) -> builtins.list[Kept]:
        """Return records that are rejected or quarantined."""
        found: builtins.list[Kept] = []
        for key, record, quarantined, rejected, settled in self._run(_KEPT, str(limit).encode()):
            settled_at_ms = None if settled is None else int(settled)
            if rejected is not None:
                found.append(Kept(_word(key), record or b"", rejected.decode(), "rejected", 0, settled_at_ms))
            else:
                found.append(Kept(_word(key), record or b"", (quarantined or b"").decode(), "quarantined"))
        return found

    def restore(self, key: str) -> bool:
        """Let a rejected or quarantined record be claimed again."""
        return bool(self._run(_RESTORE, key.encode()))

    def discard(self, key: str) -> None:
        """Delete a record in any state."""
        self._run("delete from cycles_journal where partition = $1::text and key = $2::text", key.encode())

    def keep_settled(self, kept: Kept) -> bool:
        """Keep a rejected record that is settled."""
        settled_at_ms = str(kept.settled_at_ms or 0).encode()
        values = settled_at_ms, kept.key.encode(), _text(kept.record).encode(), _reason(kept.reason)
        return bool(self._run(_KEEP_SETTLED, *values))

    def remove_settled(self, before_ms: int) -> None:
        """Delete what was settled by hand before a time."""
        self._run(_REMOVE_SETTLED, str(before_ms).encode())

    def problems(self) -> builtins.list[str]:
        """Return nothing: no setting of the database deletes records."""
        return []

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def __repr__(self) -> str:
        return f"<PostgresStore {self._partition}>"

    def _put_one(self, item: Put) -> bool:
        """Put one record with a statement that takes half the time of that for a batch."""
        values = item.key.encode(), _text(item.record).encode(), str(item.due_ms).encode()
        if item.fence is None:
            return bool(self._run(_PUT_ONE, *values))
        return bool(self._run(_UPDATE_ONE, *values, str(item.fence).encode()))

    def _keep(self, column: str, key: str, reason: str) -> None:
        sql = f"update cycles_journal set {column} = $3::text where partition = $1::text and key = $2::text and {_LIVE}"
        self._run(sql, key.encode(), _reason(reason))

    def _run(self, sql: str, *parameters: bytes) -> builtins.list[Row]:
        if not self._is_ready:
            self._prepare()
        return self._link.run(sql, (self._owner, *parameters))

    def _prepare(self) -> None:
        """Make the table if it does not exist and the role may."""
        if self._create and self._link.run("select to_regclass('cycles_journal')") == [(None,)]:
            for statement in DDL:
                try:
                    self._link.run(statement)
                except LinkError as error:
                    # Another process makes the same table at the same time: 23505, 42P07, 42710.
                    if error.sqlstate not in ("23505", "42P07", "42710"):
                        raise
        self._is_ready = True


_COMMITS: Final[dict[Durability, str]] = {
    "process": "set synchronous_commit = off",
    "disk": "select set_config('synchronous_commit', 'on', false) "
    "where current_setting('synchronous_commit') in ('off', 'local', 'remote_write')",
}


def _statement_timeout(timeout_s: float) -> str:
    return f"set statement_timeout = {max(1, round(timeout_s * 1000))}"


def _without_create(conninfo: str, create: bool) -> tuple[str, bool]:
    """Return the connection string without our own parameter `create`, and its value."""
    if "://" not in conninfo:
        return conninfo, create
    parts = urlsplit(conninfo)
    query = parse_qsl(parts.query, keep_blank_values=True)
    values = [value for name, value in query if name == "create"]
    kept = urlencode([(name, value) for name, value in query if name != "create"])
    return urlunsplit(parts._replace(query=kept)), create and "false" not in values


def _check(conninfo: str) -> None:
    try:
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        return  # `PostgresLink` says which package is missing
    try:
        conninfo_to_dict(conninfo)
    except Exception:  # noqa: S110 - its message may contain the password
        pass
    else:
        return
    raise ConfigurationError("journal_store is not a PostgreSQL URL; write it like postgresql://user:password@host/db")


def _stored(rows: Sequence[Row]) -> builtins.list[Stored]:
    return [Stored(_word(key), record or b"", int(due or 0), int(fence or 0)) for key, record, due, fence in rows]


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


def _array(values: Sequence[str]) -> bytes:
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return ("{" + ",".join(quoted) + "}").encode()


def _numbers(values: Sequence[int | None]) -> bytes:
    return ("{" + ",".join("NULL" if value is None else str(value) for value in values) + "}").encode()


def _text(record: bytes) -> str:
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError("the record is not UTF-8 text; PostgreSQL cannot keep it") from error
    if "\0" in text:
        raise StoreError("the record contains a NUL character; PostgreSQL cannot keep it")
    return text


def _reason(text: str) -> bytes:
    return text.encode("utf-8", "replace").replace(b"\0", b"")


def _word(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "replace")


readable(PostgresStore)
