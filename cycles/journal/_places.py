"""Where the records of a configuration are: the directory of all journals, and the store that a fleet shares."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cycles
from cycles._config import without_password
from cycles._core.settlement.record import partition
from cycles._journal.operators.inspect import InspectedRecord
from cycles._journal.operators.inspect_store import StoreView, is_url, view_of
from cycles.journal import directory_of, inspect
from cycles.journal._terminal import say


def directory(place: str) -> Path:
    """Return the path of a directory, also if it is given as a ``file:`` URL.

    Raises:
        ConfigurationError: It has no name, or would be in the home directory of a user who has none.
    """
    path = unquote(urlsplit(place).path) if place.startswith("file:") else place
    if not path:  # a shell variable that is not set
        raise cycles.ConfigurationError(f"{place[:20]!r} names no directory; write its path, or . for this one")
    return directory_of(path)


def root_of(config: cycles.Config) -> Path:
    """Return the directory of all journals."""
    store = config.journal_store
    if isinstance(store, str) and store.startswith("file://"):
        return directory(store)
    return directory_of(config.journal_dir)


def store_of(config: cycles.Config) -> StoreView | None:
    """Return the configured store; None without one, or if server and key are not configured."""
    url = config.journal_store
    if not isinstance(url, str) or not is_url(url):
        return None
    if not config.base_url or not (config.tenant or config.api_key):
        say(
            f"the records in {without_password(url)} are not shown: set CYCLES_BASE_URL, and CYCLES_TENANT or "
            "CYCLES_API_KEY, to say whose they are"
        )
        return None
    key = config.api_key if isinstance(config.api_key, str) else ""  # a callable needs a tenant
    owner = partition(config.base_url, config.tenant, key)
    return view_of(url, owner, config.journal_store_timeout)


def records_of(config: cycles.Config) -> list[InspectedRecord]:
    """Return the records of all files, and those of the configured server and principal in the store."""
    found = inspect(root_of(config))
    view = store_of(config)
    if view is not None:
        with contextlib.closing(view):
            found += view.records()
    return found


def require_store(config: cycles.Config) -> None:
    """Check that the configured store responds, if there is one.

    Raises:
        StoreError: it does not, so its records were neither seen nor settled.
    """
    view = store_of(config)
    if view is not None:
        with contextlib.closing(view):
            view.store.list("", 1)
