"""Open the journal that a configuration describes: files, or a store that a fleet shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from cycles._config import STORE_SCHEMES, Config, Durability, without_password
from cycles._core.settlement.record import partition
from cycles._errors import ConfigurationError
from cycles._journal.journal import Journal, JournalIssue, default_root
from cycles._journal.records import AnyJournal, NoJournal
from cycles._journal.stores.shared import Later, StoreJournal
from cycles._journal.stores.store import BindableStore, JournalStore

_REDIS: Final = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
_POSTGRES: Final = ("postgresql", "postgres")


def open_journal(config: Config, report: Callable[[JournalIssue], None], later: Later) -> AnyJournal:
    """Return the journal of a client.

    Args:
        config: Its configuration.
        report: Called with each problem.
        later: Calls a function after some seconds, in a thread that may block on the store.

    Raises:
        ConfigurationError: the URL of the store is wrong, or a package is missing.
    """
    if not config.journal:
        return NoJournal()
    base_url = config.endpoint()[0]  # the key is in no variable: a wrong store raises in this frame
    given = config.journal_store
    folder = config.journal_dir or default_root()
    if isinstance(given, str) and urlsplit(given).scheme == "file":
        folder, given = Path(unquote(urlsplit(given).path)), None
    # The local journal is made in any case: it takes what a shared store does not take during an outage.
    local = Journal(
        folder,
        base_url=base_url,
        tenant=config.tenant,
        api_key=config.endpoint()[1],
        durability=config.durability,
        report=report,
    )
    if given is None:
        return local
    store = open_store(given) if isinstance(given, str) else given
    # Derived as the folder of a local journal, so that workers with the same server and tenant share records.
    owner = partition(base_url, config.tenant, config.endpoint()[1])
    return StoreJournal(
        bound(store, owner, config.durability, config.journal_store_timeout),
        local,
        claim_ms=config.journal_claim_ms,
        timeout_s=config.journal_store_timeout,
        outage=config.journal_outage,
        report=report,
        name=without_password(given) if isinstance(given, str) else type(given).__name__,
        owns_store=isinstance(given, str),
        later=later,
    )


def bound(store: JournalStore, owner: str, durability: Durability, timeout_s: float) -> JournalStore:
    """Return the part of a store that belongs to one server and principal. `timeout_s` bounds each operation."""
    if not isinstance(store, BindableStore):
        return store
    return store.bind(owner, durability=durability, timeout_s=timeout_s)


def open_store(url: str) -> JournalStore:
    """Return the store of a URL. It connects when it is used.

    Raises:
        ConfigurationError: there is no such store, or its package is not installed. The message never has the URL's
            password.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in _REDIS and separator:
        from cycles._journal.stores.redis import RedisStore

        return RedisStore(f"{_REDIS[scheme]}://{rest}")
    if scheme in _POSTGRES and separator:
        from cycles._journal.stores.postgres import PostgresStore

        return PostgresStore(url)
    raise ConfigurationError(
        f"journal_store has an unknown scheme: {scheme[:20]!r}; write it with one of "
        f"{', '.join(f'{known}://' for known in STORE_SCHEMES)}"
    )
