"""`FileStore`: the files of one journal as a store, to move records and for tests. Claims hold within one process.

The fence of a file is a digest of its bytes and of the time of its last change, so that processes which share a folder
agree on it. No lock keeps two of them from replacing one file at the same moment: a client with files alone uses
`Journal`, which needs no fence.
"""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH116, PTH118

from __future__ import annotations

import builtins
import contextlib
import hashlib
import heapq
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cycles._errors import StoreError
from cycles._journal.files.file_calls import NOTHING_THERE
from cycles._journal.files.record_files import REJECTED, SETTLED_AT, SETTLED_KEPT_MS, RecordFiles, key_in
from cycles._journal.stores.store import KEPT, PAGE, KeptState, Owned, Put, Stored


class FileStore:
    """The records of one journal.

    Args:
        root: Directory of all journals; `~` is expanded.
        partition: Returns the name of the subdirectory; called at the first use.
        sync: Whether a record survives a power loss too.
    """

    def __init__(self, root: Path, partition: Callable[[], str], *, sync: bool) -> None:
        self._files = RecordFiles(root, partition, sync=sync)
        self._own: set[str] = set()  # keys that this store has put or taken
        self._lock = threading.RLock()  # a signal handler may use the store in the middle of an operation

    def locate(self) -> str:
        """Return the folder's path with a separator at its end."""
        return self._files.locate()

    def put(self, items: Sequence[Put]) -> builtins.list[str | None]:
        """Save records; None for each one of which another fence is there."""
        with self._use():
            return [self._put(item) for item in items]

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys."""
        with self._use():
            return [self._find(key) for key in keys]

    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        """Return records that this store has neither put nor taken, each once."""
        with self._use():
            left = (key for name in self._files.names() if (key := key_in(name)) and key not in self._own)
            return [taken for key in heapq.nsmallest(limit, left) if (taken := self._take(key))]

    def renew(self, items: Sequence[Owned], claim_ms: int) -> builtins.list[str]:
        """Return the keys that were changed or deleted; a claim of files needs no renewal."""
        with self._use():
            return [key for key, fence in items if (found := self._find(key)) is None or found.fence != fence]

    def delete(self, items: Sequence[Owned]) -> None:
        """Delete records that have these fences."""
        with self._use():
            for key, fence in items:
                found = self._find(key)
                if found is not None and found.fence == fence:
                    self._remove(key, found.kept)

    def list(self, after: str = "", limit: int = PAGE, kept: KeptState | None = None) -> builtins.list[Stored]:
        """Return one page of records, without finishing what another process is writing."""
        with self._use():
            keys = heapq.nsmallest(limit, (key for key in self._keys(kept) if key > after))
            return [found for key in keys if (found := self._find(key)) and found.kept == kept]

    def close(self) -> None:
        """Remove the files that are kept for reuse."""
        self._files.close()

    # --- with the lock held -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (OSError, ValueError) as error:
            raise StoreError(str(error)) from error

    def _put(self, item: Put) -> str | None:
        before = self._find(item.key)
        if (None if before is None else before.fence) != item.fence:
            return None
        self._own.add(item.key)  # first: what this store has put is not taken by it, also if the put fails half-way
        name = _name(item.key)
        members: dict[str, Any] = (
            json.loads(item.record) if item.kept == "rejected" or b'"settled"' in item.record else {}
        )
        if item.kept == "rejected" or "settled" in members:
            kept = {"reason": members.get("rejected") or "rejected", "record": members}
            if "settled" in members:  # by hand, 30 days before it is due
                kept[SETTLED_AT] = time.time_ns() // 1_000_000 + item.due_ms - SETTLED_KEPT_MS
            self._files.keep_rejected(name, kept)
        else:
            self._files.write(name, item.record)
        if item.kept == "quarantined":
            self._files.set_aside(name)
        # The new place first, then the old one: a process that dies in between leaves both, and no amount is lost.
        if before is not None and before.kept != item.kept:
            self._remove(item.key, before.kept)
        found = self._find(item.key)
        return None if found is None else found.fence

    def _take(self, key: str) -> Stored | None:
        if key in self._own:  # a signal handler has taken it in the meantime
            return None
        self._own.add(key)
        path = self._files.path(_name(key))
        with contextlib.suppress(*NOTHING_THERE):
            before = os.stat(path)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # a new fence
            return self._find(key)
        return None

    def _find(self, key: str) -> Stored | None:
        for kept in KEPT.values():
            for place in self._places(key, kept):
                with contextlib.suppress(*NOTHING_THERE):
                    return self._stored(key, place, kept)
        return None

    def _stored(self, key: str, place: str, kept: KeptState | None) -> Stored:
        content, found = self._files.read(place), os.stat(self._files.path(place))
        fence = hashlib.sha256(b"%d %d %b" % (found.st_ino, found.st_mtime_ns, content)).hexdigest()[:32]
        if kept == "rejected":
            content = json.dumps(json.loads(content)["record"], separators=(",", ":")).encode("ascii")
        return Stored(key, content, fence, 0, kept)

    def _remove(self, key: str, kept: KeptState | None) -> None:
        for place in self._places(key, kept):
            self._files.remove(place)

    def _keys(self, kept: KeptState | None) -> set[str]:
        found = self._files.listed() if kept is None else self._files.rejected_names()
        if kept == "quarantined":
            found = [f"{name.partition('.json.')[0]}.json" for name in self._files.set_aside_names()]
        return {key for name in found if (key := key_in(name))}

    def _places(self, key: str, kept: KeptState | None) -> builtins.list[str]:
        """Return where a record in this state is: its names below the folder."""
        if kept == "quarantined":  # each time under another name
            return [name for name in self._files.set_aside_names() if name.startswith(f"{_name(key)}.")]
        return [os.path.join(REJECTED, _name(key)) if kept == "rejected" else _name(key)]


def _name(key: str) -> str:
    return f"v2-{key}.json"
