"""The configuration of a client: one frozen value, made from keywords, the environment and the defaults, in this order.

The words that options and settings share (lease policy, durability, `on_unavailable`) are defined here.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, TypeAlias, TypeVar, get_args
from urllib.parse import urlsplit

from attrs import evolve, field, fields_dict, frozen

from cycles._errors import ConfigurationError, did_you_mean, near_names
from cycles._version import public

LeasePolicy: TypeAlias = Literal["warn", "fail_on_finalize", "cancel"]
Durability: TypeAlias = Literal["process", "disk"]
Unavailable: TypeAlias = Literal["raise", "allow"]
OnObserved: TypeAlias = Literal["raise", "run"]
Settle: TypeAlias = Literal["background"]
JournalOutage: TypeAlias = Literal["disk", "memory", "refuse"]

LEASE_POLICIES: Final = get_args(LeasePolicy)
DURABILITIES: Final = get_args(Durability)
UNAVAILABLE: Final = get_args(Unavailable)
ON_OBSERVED: Final = get_args(OnObserved)
SETTLE: Final = get_args(Settle)
JOURNAL_OUTAGES: Final = get_args(JournalOutage)
STORE_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "postgresql", "postgres", "file")
_STORE_METHODS: Final = ("put", "get", "take", "renew", "delete", "list", "close")
VARIABLES: Final = {"journal_store": "JOURNAL_URL"}  # the others are named like their setting

REMOVED: Final = {"queue_timeout": "30 s", "background_commits": "1,024"}
"""Settings of earlier versions. A variable of them is ignored."""

MOST_CONNECTIONS: Final = 10_000  # a process rarely has more descriptors; more is a mistake
MOST_RETRIES: Final = 10  # more would keep a caller waiting for a server that is down
LONGEST_WAIT_S: Final = 86_400.0  # one day: more is a mistake in the unit, and larger values overflow timers

_OTHER_VARIABLES: Final = [
    *("LOG", "PROXY_URL", "PROXY_KEY", "ADMIN_BASE_URL", "ADMIN_API_KEY"),
    *(name.upper() for name in REMOVED),
]
"""Variables of the SDK that are no settings of a client, without `CYCLES_`."""
_warned: Final[set[str]] = set()
_log: Final = logging.getLogger("cycles")

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_NOT_IN_ENVIRONMENT: Final = ("approve", "default_headers")
"""Settings that no variable can hold."""


P = ParamSpec("P")
R = TypeVar("R")


def without_key_in_frames(function: Callable[P, R]) -> Callable[P, R]:
    """Keep the API key out of the traceback of an error: error trackers record the local variables of its frames."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as raised:
            error = raised.with_traceback(None)
        for given in (*args, kwargs):
            if isinstance(given, dict):
                given.clear()
        del args
        raise error from None

    return call


def without_password(url: object) -> str:
    """Return a URL for people: what precedes an "@", and values of a query, may be a password."""
    text = re.sub(r"^(\w+://)?.*@", r"\1[hidden]@", str(url), flags=re.DOTALL)
    return re.sub(r"\?.*", "?[hidden]", text, flags=re.DOTALL)


def _shown_store(store: Any) -> str:
    return repr(without_password(store)) if isinstance(store, str) else repr(store)


def _base_url(value: Any) -> Any:
    return value.strip().rstrip("/") if isinstance(value, str) else value


def _path(value: Any) -> Any:
    # The journal expands a "~": if there is no home directory, it reports that, and everything else works.
    return Path(value) if isinstance(value, str | os.PathLike) else value


@frozen(kw_only=True)
class Config:
    """All settings of a client. Frozen: `attrs.evolve` makes a changed copy.

    Attributes:
        base_url: Address of the Cycles server, for example ``https://cycles.example.com``.
        api_key: The key that is sent as ``X-Cycles-API-Key``, or a function or coroutine function that returns it. That
            is called again after a 401. No repr, log record or error contains the key.
        tenant, workspace, app, workflow, agent, toolset: Defaults for the subject of every request.
        timeout: Seconds that one whole attempt may take, from the moment it holds a connection to the last byte.
        connect_timeout: Seconds that connecting may take, at most `timeout`.
        max_connections: Connections kept to the server, for sync code and for each event loop, at most 10,000.
        default_headers: Headers that are sent with every request. No variable sets them.
        max_retries: How often a write is sent again with the same key after an inconclusive response.
        retry_initial_delay: Seconds before the first retry of a pending settlement. Each retry doubles it, with jitter.
        retry_max_delay: Longest delay between two retries, in seconds.
        journal: Whether unresolved settlements are saved on disk.
        journal_dir: Directory of the journal. None is the platform's user state directory.
        durability: ``"process"`` survives the death of the process, ``"disk"`` also the loss of power.
        journal_store: A store that a fleet shares: a URL (variable ``CYCLES_JOURNAL_URL``) or a `JournalStore`.
        journal_claim_ms: How long a record in a store belongs to its owner without a renewal, in milliseconds.
        journal_store_timeout: Seconds that one operation of the store may take.
        journal_outage: Where records are kept while the store fails: on ``"disk"`` or in ``"memory"``. With
            ``"refuse"`` they are kept on disk, and nothing is reserved.
        journal_checkpoint_ms: How often the sum of an open chunk of a pool is put into the store, in milliseconds.
        flush_timeout: Seconds that closing the client, or the interpreter's exit, waits for pending settlements.
        lease_policy: What happens if a lease is lost: ``"warn"``, ``"fail_on_finalize"`` or ``"cancel"``.
        shadow: Evaluate reservations without holding budget, and run every block with any decision.
        on_observed: ``"raise"`` or ``"run"``: what happens if the server only observed a reservation and holds nothing.
        approve: A function or a coroutine function that approves reservations when most of a budget is used. It gets an
            `ApprovalRequest`, and returns True, False, or an amount up to which reservations of the subject pass.
        approve_above: The used fraction of a budget from which `approve` is called, 0 to 1.

    Raises:
        ConfigurationError: A setting is missing or wrong. The message names it.
    """

    base_url: str | None = field(default=None, converter=_base_url)
    api_key: str | Callable[[], Any] | None = field(default=None, repr=False)
    tenant: str | None = None
    workspace: str | None = None
    app: str | None = None
    workflow: str | None = None
    agent: str | None = None
    toolset: str | None = None
    timeout: float = 5.0
    connect_timeout: float = 2.0
    max_connections: int = 32
    default_headers: Mapping[str, str] | None = field(default=None, repr=False, hash=False)
    max_retries: int = 1
    retry_initial_delay: float = 0.5
    retry_max_delay: float = 60.0
    journal: bool = True
    journal_dir: Path | None = field(default=None, converter=_path)
    durability: Durability = "process"
    journal_store: Any = field(default=None, repr=_shown_store)
    journal_claim_ms: int = 30_000
    journal_store_timeout: float = 0.5
    journal_outage: JournalOutage = "disk"
    journal_checkpoint_ms: int = 200
    flush_timeout: float = 5.0
    lease_policy: LeasePolicy = "warn"
    shadow: bool = False
    on_observed: OnObserved = "raise"
    approve: Callable[[Any], Any] | None = field(default=None, repr=False)
    approve_above: float = 0.9

    def __attrs_post_init__(self) -> None:
        for name, check in _CHECKS.items():
            check(name, getattr(self, name))

    @classmethod
    @without_key_in_frames
    def from_env(cls, prefix: str = "CYCLES_", **overrides: Any) -> Config:
        """Read ``CYCLES_BASE_URL``, ``CYCLES_API_KEY``, ``CYCLES_TENANT``, ``CYCLES_TIMEOUT`` and so on.

        The variable of a setting is `prefix` and the setting's name in capitals. An empty variable counts as unset.
        `overrides` override the environment; None counts as not given.

        Raises:
            ConfigurationError: A variable has a wrong value, or there is no such setting. The message names it.
        """
        _warn_of_misspelled_variables()
        values = {}
        for name, attribute in fields_dict(cls).items():
            if name in _NOT_IN_ENVIRONMENT:
                continue
            variable = prefix + VARIABLES.get(name, name.upper())
            text = os.environ.get(variable, "").strip()
            if text and overrides.get(name) is None:
                values[name] = _from_text(variable, text, attribute.default)
                _CHECKS[name](variable, _base_url(values[name]) if name == "base_url" else values[name])
        return cls(**values).with_settings(**overrides)

    @without_key_in_frames
    def with_settings(self, **settings: Any) -> Config:
        """Return a copy with these settings; None counts as not given.

        Raises:
            ConfigurationError: There is no such setting, or its value is wrong. The message names it.
            TypeError: It was a setting of an earlier version.
        """
        for name in REMOVED.keys() & settings.keys():
            raise TypeError(f"{name} is no setting any longer: it is always {REMOVED[name]}; remove the keyword")
        unknown = set(settings) - set(fields_dict(type(self)))
        if unknown:
            known, wrong = list(fields_dict(type(self))), min(unknown)
            near = did_you_mean(wrong, known)
            raise ConfigurationError(f"{wrong} is not a setting of a client: use one of {', '.join(known)}{near}")
        return evolve(self, **{name: value for name, value in settings.items() if value is not None})

    @property
    def usable_connect_timeout(self) -> float:
        """Seconds that connecting may take: `connect_timeout`, at most `timeout`."""
        return min(self.connect_timeout, self.timeout)

    def endpoint(self) -> tuple[str, str]:
        """Return the base URL and the API key. Every client needs both. The key of a callable is an empty string.

        Raises:
            ConfigurationError: One of them is missing. The message says how to set it.
        """
        if not self.base_url:
            raise ConfigurationError(
                "no server address: pass base_url=... or set CYCLES_BASE_URL; to run a server for development, "
                "use python -m cycles.embedded --budget tenant:acme=10USD"
            )
        if not self.api_key:
            raise ConfigurationError("no API key: pass api_key=... or set CYCLES_API_KEY")
        if not callable(self.api_key):
            return self.base_url, self.api_key
        if self.journal and not self.tenant:
            raise ConfigurationError(
                "api_key is a callable and the journal is on: set tenant=... or CYCLES_TENANT, because without a "
                "tenant the key names the journal's partition; or set journal=False"
            )
        return self.base_url, ""


# `__init__` is generated by attrs, so it can only be wrapped afterwards.
setattr(Config, "__init__", without_key_in_frames(Config.__init__))  # noqa: B010


def _warn_of_misspelled_variables() -> None:
    """Log one warning of all variables that are probably misspelled, once in a process."""
    known = [*(VARIABLES.get(name, name.upper()) for name in fields_dict(Config)), *_OTHER_VARIABLES]
    given = {name: name.removeprefix("CYCLES_") for name in sorted(os.environ) if name.startswith("CYCLES_")}
    wrong = {name: rest for name, rest in given.items() if rest not in known and name not in _warned}
    _warned.update(wrong)
    near = {name: word[0] for name, rest in wrong.items() if (word := near_names(rest, known))}
    if near:
        named = ", ".join(f"{name} (did you mean CYCLES_{word}?)" for name, word in near.items())
        _log.warning("variables that no setting has: %s; correct or unset them", named)


def _from_text(variable: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigurationError(f"{variable} must be true or false, got {_shown(text)}: write 1 or 0, or unset it")
        return text.lower() in _TRUE
    if isinstance(default, int | float):
        kind = type(default)
        try:
            return kind(text)
        except ValueError:
            number = "an integer" if kind is int else "a number"
            raise ConfigurationError(
                f"{variable} must be {number}, got {_shown(text)}: correct it or unset it"
            ) from None
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_of(choices: tuple[str, ...]) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if value not in choices:
            raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, got {_shown(value)}")

    return check


def is_seconds(value: object) -> bool:
    """Return whether a value can be used as a time in seconds: a number of 0 to one day."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= LONGEST_WAIT_S


def _positive_seconds(name: str, value: Any) -> None:
    if not is_seconds(value) or value <= 0:
        raise ConfigurationError(
            f"{name} must be seconds, more than 0 and at most {LONGEST_WAIT_S:.0f}, got {_shown(value)}"
        )


def _seconds(name: str, value: Any) -> None:
    if not is_seconds(value):
        raise ConfigurationError(f"{name} must be seconds, 0 to {LONGEST_WAIT_S:.0f}, got {_shown(value)}")


def _count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be an integer of 1 or more, got {_shown(value)}")


def _connections(name: str, value: Any) -> None:
    _count(name, value)
    if value > MOST_CONNECTIONS:
        raise ConfigurationError(f"{name} must be an integer of at most {MOST_CONNECTIONS}, got {_shown(value)}")


def _integer(least: int, most: int, what: str = "an integer from") -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigurationError(f"{name} must be {what} {least} to {most}, got {_shown(value)}")

    return check


def _headers(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Mapping):  # a value may be a secret
        raise ConfigurationError(f"{name} must map names to values, got a value of type {type(value).__name__}")


def _boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {_shown(value)}")


def _string(name: str, value: Any) -> None:
    if not isinstance(value, str | None):
        raise ConfigurationError(f"{name} must be a str, got {_shown(value)}")


def _callable(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} must be a function that takes an ApprovalRequest, got {_shown(value)}")


def _fraction(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must be a fraction of a budget, 0 to 1, got {_shown(value)}")


def _directory(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, str | os.PathLike) or "\0" in str(value)):
        shown = _shown(str(value) if isinstance(value, os.PathLike) else value)
        raise ConfigurationError(f"{name} must be the path of a directory, a str or a Path, got {shown}")


def _milliseconds(least: int, most: int) -> Callable[[str, Any], None]:
    return _integer(least, most, "milliseconds,")


def _store(name: str, value: Any) -> None:
    if isinstance(value, str):
        scheme = value.partition("://")[0]
        if "://" not in value or scheme not in STORE_SCHEMES:
            known, shown = ", ".join(f"{each}://" for each in STORE_SCHEMES), _shown(without_password(value))
            raise ConfigurationError(f"{name} is not the URL of a store: {shown}; begin it with one of {known}")
    elif value is not None:
        missing = [method for method in _STORE_METHODS if not callable(getattr(value, method, None))]
        if missing:
            what = f"{type(value).__name__} has no method {missing[0]}"
            raise ConfigurationError(f"{name} must be a URL or a cycles.journal.JournalStore: {what}")


def _url(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a str, got {_shown(value)}: write it like https://host:7878")
    # What precedes an "@" may be a password, also in an address that is otherwise wrong.
    shown = _shown(re.sub(r"^(\w+://)?.*@", r"\1[hidden]@", value, flags=re.DOTALL))
    wrong = ConfigurationError(f"{name} is not an http or https address: {shown}; write it like https://host:7878")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and value.isprintable() and " " not in value  # `urlsplit` drops some of these silently
    except ValueError:
        raise wrong from None
    if not usable:
        raise wrong
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(f"{name} must not contain a user, a password, a query or a fragment; remove it")


def checked_key(name: str, value: Any) -> None:
    # The message must not contain the key. A header can only carry these characters.
    if value is None or callable(value):
        return
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a str or a callable, got a value of type {type(value).__name__}")
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigurationError(
            f"{name} is empty, or it contains a blank at an end, a control or a non-ASCII character; copy it again"
        )


_CHECKS: Final[dict[str, Callable[[str, Any], None]]] = {
    "base_url": _url,
    "api_key": checked_key,
    **dict.fromkeys(("tenant", "workspace", "app", "workflow", "agent", "toolset"), _string),
    **dict.fromkeys(("timeout", "connect_timeout", "retry_initial_delay", "retry_max_delay"), _positive_seconds),
    "flush_timeout": _seconds,
    "max_connections": _connections,
    "default_headers": _headers,
    "max_retries": _integer(0, MOST_RETRIES),
    "journal": _boolean,
    "journal_dir": _directory,
    "durability": _one_of(DURABILITIES),
    "journal_store": _store,
    "journal_claim_ms": _milliseconds(1_000, 600_000),
    "journal_store_timeout": _positive_seconds,
    "journal_outage": _one_of(JOURNAL_OUTAGES),
    "journal_checkpoint_ms": _milliseconds(1, 600_000),
    "lease_policy": _one_of(LEASE_POLICIES),
    "shadow": _boolean,
    "on_observed": _one_of(ON_OBSERVED),
    "approve": _callable,
    "approve_above": _fraction,
}
"""The check of each setting: it gets the name to show, of the setting or of its variable, and the value."""


public(Config)
