"""The commands on the journal, each once: `cycles journal` and ``python -m cycles.journal`` are made of this table.

A command takes a `Context` and its arguments, and returns its exit status.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import frozen

import cycles
from cycles._config import without_password
from cycles._core.settlement.record import Record, partition
from cycles._core.settlement.rules import MAY_BE_CHARGED
from cycles._journal.operators import by_hand
from cycles._journal.operators.inspect import InspectedRecord, select
from cycles._journal.operators.inspect_store import (
    StoreView,
    files_of,
    is_url,
    move_files_into,
    move_store_into,
    same_place,
    view_of,
)
from cycles.journal._places import directory, records_of, require_store, root_of, store_of
from cycles.journal._table import print_records
from cycles.journal._terminal import Terminal, say

T = TypeVar("T")

DONE: Final = 0
REJECTED: Final = 1
UNSETTLED: Final = 4
_FLUSH_S: Final = 10.0


@frozen
class Context:
    """What a command gets.

    Attributes:
        terminal: Prints.
        config: Returns the configuration; its members may be missing.
        confirm: Prompts unless `--yes` was given, and ends the command if the user declines.
    """

    terminal: Terminal
    config: Callable[[], cycles.Config]
    confirm: Callable[[str], None]

    @property
    def root(self) -> Path:
        """The directory of all journals."""
        return root_of(self.config())

    def store(self) -> StoreView | None:
        """Return the configured store; None without one, or if server and key are not configured."""
        return store_of(self.config())

    def records(self) -> list[InspectedRecord]:
        """Return the records of all files, and those of the configured server and principal in the store."""
        return records_of(self.config())


@frozen
class Argument:
    """A positional argument, or a flag if its name begins with dashes."""

    name: str
    help: str = ""
    required: bool = True


@frozen
class JournalCommand:
    """One command. `changes` marks those that prompt and take `--yes`."""

    name: str
    help: str
    run: Callable[..., int]
    arguments: tuple[Argument, ...] = ()
    changes: bool = False


def unsettled(context: Context) -> list[InspectedRecord]:
    """Return the records that are not settled, without the rejected ones."""
    return [entry for entry in context.records() if entry.state != "rejected"]


def pending(context: Context) -> int:
    """Print the unsettled records; the status says whether there are any."""
    found = unsettled(context)
    _print(context, found, "nothing is pending")
    return UNSETTLED if found else DONE


def list_records(context: Context, rejected: bool = False) -> int:
    """Print the unsettled records, or the rejected ones."""
    if rejected:
        found = [entry for entry in context.records() if entry.state == "rejected"]
        _print(context, found, "no rejected record")
    else:
        _print(context, unsettled(context), "no unsettled record")
    return DONE


def show(context: Context, id: str) -> int:  # noqa: A002 - the name of the argument
    """Print one record with its members."""
    entry = _one(context, id)
    document = _whole(entry)
    if context.terminal.json:
        context.terminal.document(document)
        return DONE
    for name, value in document.items():
        if name == "amount":
            value = entry.amount
        if value is not None and name != "record":
            context.terminal.line(f"{name}: {value}")
    if entry.reason is not None and entry.state != "rejected":
        context.terminal.line(f"reason: {entry.reason}")
    for name, value in (entry.record or {}).items():
        if name not in document:
            context.terminal.line(f"record.{name}: {value}")
    return DONE


def export(context: Context) -> int:
    """Print all records as JSON lines, the rejected ones too."""
    for entry in context.records():
        context.terminal.document(_whole(entry))
    return DONE


def retry(context: Context, id: str | None = None, as_event: bool = False) -> int:  # noqa: A002
    """Settle what is pending for the configured server and principal, or one record first."""
    entry = None if id is None else _one(context, id)
    if as_event and (entry is None or entry.state != "rejected"):
        raise cycles.InvalidRequestError(
            "--as-event takes the id of a rejected record; cycles journal list --rejected lists them"
        )
    if entry is not None and entry.state == "rejected" and not as_event:
        raise cycles.InvalidRequestError(
            f"the server rejected this record ({entry.reason}); pass --as-event to send its amount as an event"
        )
    config = context.config()
    base_url, api_key = config.endpoint()
    if entry is None:
        context.confirm(f"settle what is pending for {base_url} now?")
        return _flush(context, config)
    record = _readable(entry)
    _check_principal(entry, partition(base_url, config.tenant, api_key), base_url)
    if as_event:
        return _retry_as_event(context, config, entry, record)
    context.confirm(f"settle {entry.amount} of {entry.reservation_id} now, with all that is pending there?")
    if entry.state == "quarantined":
        _change(context, entry, lambda view: view.requeue(entry))
    return _flush_one(context, config, entry)


def discard(context: Context, id: str) -> int:  # noqa: A002
    """Rename a record so that it is kept and never settled."""
    entry = _one(context, id)
    amount = entry.amount if entry.amount is not None else "a record that cannot be read"
    context.confirm(f"never settle {amount} of {entry.reservation_id or entry.path}?")
    if is_url(entry.path):
        kept = _change(context, entry, lambda view: view.discard(entry))
    else:
        kept = _changing(lambda: by_hand.discard(entry))
    if context.terminal.json:
        context.terminal.document({**_whole(entry), "path": kept})
    else:
        context.terminal.line(f"kept as {kept}; no client settles it")
    return DONE


def move(context: Context, source: str, target: str) -> int:
    """Move all records from one place to another: a directory, or the URL of a store."""
    if not is_url(source) and not directory(source).is_dir():
        raise cycles.ConfigurationError(f"{source} is not a directory; pass the directory that has the records")
    moved, left = _changing(lambda: _moved(context, source, target))
    shown, there = without_password(source), without_password(target)
    if context.terminal.json:
        context.terminal.document({"moved": moved, "left": left})
    else:
        context.terminal.line(f"{moved} moved to {there}, {left} left in {shown}")
    return UNSETTLED if left else DONE


def _moved(context: Context, source: str, target: str) -> tuple[int, int]:
    config = context.config()
    timeout_s = config.journal_store_timeout
    if source == target:  # also if nothing is there: two names of one empty store look like two stores
        raise same_place(target)
    if not is_url(source):
        if is_url(target):
            return move_files_into(lambda owner: view_of(target, owner, timeout_s).store, directory(source))
        if os.path.realpath(directory(source)) == os.path.realpath(directory(target)):
            raise same_place(target)
        return move_files_into(partial(files_of, directory(target)), directory(source))
    base_url, api_key = config.endpoint()  # the records of a store are those of one server and principal
    owner = partition(base_url, config.tenant, api_key)
    with contextlib.closing(view_of(source, owner, timeout_s)) as view:
        if not is_url(target):
            return move_store_into(view, files_of(directory(target), owner))
        with contextlib.closing(view_of(target, owner, timeout_s)) as other:
            return move_store_into(view, other.store)


COMMANDS: Final = (
    JournalCommand(
        "list",
        "List unsettled records of all servers on this machine.",
        list_records,
        (Argument("--rejected", "List the records that a server rejected."),),
    ),
    JournalCommand("show", "Show one record.", show, (Argument("id"),)),
    JournalCommand("export", "Print all records as JSON lines.", export),
    JournalCommand(
        "retry",
        "Settle pending records now, with the configured server and key.",
        retry,
        (
            Argument("id", required=False),
            Argument("--as-event", "Send the amount of a rejected record as an event."),
        ),
        changes=True,
    ),
    JournalCommand("discard", "Keep a record and never settle it.", discard, (Argument("id"),), changes=True),
    JournalCommand(
        "move", "Move all records to another directory or store.", move, (Argument("source"), Argument("target"))
    ),
)


def flush_document(report: cycles.FlushReport) -> dict[str, int]:
    """Return the JSON document of a flush. It has `scan_finished` if that is false."""
    counts = {"settled": report.settled, "pending": report.pending, "quarantined": report.quarantined}
    return counts if report.scan_finished else {**counts, "scan_finished": False}


def print_flush(terminal: Terminal, report: cycles.FlushReport) -> int:
    """Print the counts of a flush, and return the exit status."""
    if terminal.json:
        terminal.document(flush_document(report))
    else:
        quarantined = f", {report.quarantined} quarantined" if report.quarantined else ""
        terminal.line(f"{report.settled} settled, {report.pending} pending{quarantined}")
        if not report.scan_finished:
            terminal.line("the journal was not read to the end, so more may be pending; flush with a longer --timeout")
    return UNSETTLED if report.pending or report.quarantined or not report.scan_finished else DONE


def _print(context: Context, records: Sequence[InspectedRecord], none: str) -> None:
    if context.terminal.json:
        context.terminal.document({"records": [entry.to_dict() for entry in records]})
    elif records:
        print_records(context.terminal, records)
    else:
        context.terminal.line(none)


def _whole(entry: InspectedRecord) -> dict[str, Any]:
    return {**entry.to_dict(), "record": entry.record}


def _one(context: Context, wanted: str) -> InspectedRecord:
    found = select(context.records(), wanted)
    if len(found) == 1:
        return found[0]
    if not found:
        raise cycles.InvalidRequestError(
            f"there is no record {wanted!r:.80} below {context.root}; cycles journal list shows their ids"
        )
    raise cycles.InvalidRequestError(f"{len(found)} records match {wanted!r:.80}; pass a path: {_paths(found)}")


def _paths(records: Iterable[InspectedRecord]) -> str:
    return ", ".join(entry.path for entry in records)


def _readable(entry: InspectedRecord) -> Record:
    record = entry.decoded() if entry.state != "unfinished" else None
    if record is None:
        raise cycles.InvalidRequestError(
            f"this record cannot be settled: {entry.path} ({entry.reason or 'its writer has not finished it'}); "
            "record its amount with cycles record, then discard it"
        )
    return record


def _change(context: Context, entry: InspectedRecord, change: Callable[[StoreView], T]) -> T:
    """Change a record where it is: in the configured store, or among the files of its partition."""
    folder = _partition_folder(entry)
    view = context.store() if is_url(entry.path) else None
    with contextlib.closing(view or StoreView(files_of(folder.parent, folder.name), str(folder))) as place:
        return _changing(lambda: change(place))


def _check_principal(entry: InspectedRecord, own: str, base_url: str) -> None:
    if is_url(entry.path):
        return  # a store shows the records of the configured principal only
    if _partition_folder(entry).name != own:
        raise cycles.ConfigurationError(
            f"this record belongs to {entry.base_url or 'another server'} and another principal than the configured "
            f"one of {base_url}; set the base URL, the tenant and the key with which it was made"
        )


def _retry_as_event(context: Context, config: cycles.Config, entry: InspectedRecord, rejected: Record) -> int:
    record = by_hand.as_event(rejected, time.time_ns() // 1_000_000)
    if record is None:
        raise cycles.InvalidRequestError(
            "this record has no event; record its amount with cycles record, then discard it"
        )
    warning = "; it may be charged already, and is charged twice then" if entry.reason == MAY_BE_CHARGED else ""
    if entry.settled_at_ms is not None:
        raise cycles.InvalidRequestError("this record was settled by hand already; discard it, or leave it")
    context.confirm(f"send {entry.amount} of {entry.reservation_id} as an event{warning}?")
    _change(context, entry, lambda view: view.put_rejected_back(record))
    status = _flush_one(context, config, entry)
    if status == DONE:
        _change(context, entry, lambda view: view.mark_settled(entry))
    return status


def _flush_one(context: Context, config: cycles.Config, entry: InspectedRecord) -> int:
    """Flush, and report whether the server rejected this record."""
    known = [found.record for found in context.records() if found.state == "rejected"]
    status = _flush(context, config)
    for found in context.records():
        same = found.id == entry.id and (
            is_url(found.path) or Path(found.path).parent.parent == _partition_folder(entry)
        )
        if same and found.state == "rejected" and found.record not in known:
            say(f"the server rejected the amount: {found.reason}; it is kept in {found.path}")
            return REJECTED
    return status


def _partition_folder(entry: InspectedRecord) -> Path:
    folder = Path(entry.path).parent
    return folder.parent if entry.state == "rejected" else folder


def _flush(context: Context, config: cycles.Config) -> int:
    with cycles.Cycles(config) as client:
        report = client.flush(_FLUSH_S)
    status = print_flush(context.terminal, report)
    require_store(config)
    return status


def _changing(change: Callable[[], T]) -> T:
    try:
        return change()
    except OSError as error:
        raise cycles.ConfigurationError(
            f"the journal cannot be changed: {error.filename} ({error.strerror}); make it writable or choose another"
        ) from error
