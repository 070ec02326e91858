"""The configuration of a client: one frozen value, from keywords over the environment over the defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import evolve, field, fields_dict, frozen

from cycles._errors import ConfigurationError
from cycles._version import public

LeasePolicy: TypeAlias = Literal["warn", "fail_on_finalize", "cancel"]
Durability: TypeAlias = Literal["process", "disk"]

LEASE_POLICIES: Final = ("warn", "fail_on_finalize", "cancel")
DURABILITIES: Final = ("process", "disk")


def _base_url(value: str | None) -> str | None:
    return value.strip().rstrip("/") if value is not None else None


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    # The journal expands a "~": where there is no home it says so, once, and everything else works.
    return Path(value) if value is not None else None


@frozen(kw_only=True)
class Config:
    """Everything a client can be told. Frozen: `attrs.evolve` makes a changed copy.

    Attributes:
        base_url: Where the Cycles server is, for example ``https://cycles.example.com``.
        api_key: The key sent as ``X-Cycles-API-Key``; never shown in a repr, a log record or an error.
        tenant, workspace, app, workflow, agent, toolset: Defaults for the subject of every request.
        timeout: Seconds one whole attempt may take, from waiting for a connection to the last byte of the answer.
        connect_timeout: Seconds of it that connecting may take; never more than `timeout`.
        max_connections: Connections kept to the server, for blocking code and for each event loop.
        retry_initial_delay: Seconds before a pending settlement is tried again; doubles, with jitter.
        retry_max_delay: Seconds that delay never exceeds.
        journal: Whether unresolved settlements are kept on disk.
        journal_dir: Where; None is the platform's user state directory.
        durability: ``"process"`` survives the death of the process, ``"disk"`` the loss of power as well.
        flush_timeout: Seconds that leaving the client, or the interpreter, waits for pending settlements.
        lease_policy: What a lost lease does: ``"warn"``, ``"fail_on_finalize"`` or ``"cancel"``.
        shadow: Evaluate reservations without holding anything, and run every block whatever the decision.

    Raises:
        ConfigurationError: naming the setting that is missing or wrong.
    """

    base_url: str | None = field(default=None, converter=_base_url)
    api_key: str | None = field(default=None, repr=False)
    tenant: str | None = None
    workspace: str | None = None
    app: str | None = None
    workflow: str | None = None
    agent: str | None = None
    toolset: str | None = None
    timeout: float = 5.0
    connect_timeout: float = 2.0
    max_connections: int = 32
    retry_initial_delay: float = 0.5
    retry_max_delay: float = 60.0
    journal: bool = True
    journal_dir: Path | None = field(default=None, converter=_path)
    durability: Durability = "process"
    flush_timeout: float = 5.0
    lease_policy: LeasePolicy = "warn"
    shadow: bool = False

    def __attrs_post_init__(self) -> None:
        _one_of("lease_policy", self.lease_policy, LEASE_POLICIES)
        _one_of("durability", self.durability, DURABILITIES)
        for name in ("timeout", "connect_timeout", "retry_initial_delay", "retry_max_delay"):
            _number(name, getattr(self, name), above=0)
        _number("flush_timeout", self.flush_timeout, above=-1e-9)
        if isinstance(self.max_connections, bool) or not isinstance(self.max_connections, int):
            raise ConfigurationError(f"max_connections must be a whole number, got {self.max_connections!r}")
        _number("max_connections", self.max_connections, above=0)
        if self.base_url is not None:
            _check_url(self.base_url)
        if self.api_key is not None:
            _check_key(self.api_key)

    @classmethod
    def from_env(cls, prefix: str = "CYCLES_", **overrides: Any) -> Config:
        """Read ``CYCLES_BASE_URL``, ``CYCLES_API_KEY``, ``CYCLES_TENANT``, ``CYCLES_TIMEOUT`` and so on.

        Every attribute has its variable: its name in capitals behind the prefix. Empty variables count as unset.
        `overrides` win over the environment; None there counts as not given.

        Raises:
            ConfigurationError: naming the variable whose text cannot be read, or the keyword that does not exist.
        """
        values: dict[str, Any] = {}
        for name, attribute in fields_dict(cls).items():
            variable = prefix + name.upper()
            text = os.environ.get(variable, "").strip()
            if text:
                values[name] = _from_text(variable, text, attribute.default)
        return cls(**_without_none(cls, values)).with_settings(**overrides)

    def with_settings(self, **settings: Any) -> Config:
        """A copy with these settings; None counts as not given.

        Raises:
            ConfigurationError: naming the setting that does not exist, or is wrong.
        """
        return evolve(self, **_without_none(type(self), settings))

    @property
    def usable_connect_timeout(self) -> float:
        """Seconds connecting may take: `connect_timeout`, clipped to `timeout`."""
        return min(self.connect_timeout, self.timeout)

    def endpoint(self) -> tuple[str, str]:
        """The base URL and the key, both of which a client needs.

        Raises:
            ConfigurationError: saying which of them is missing and how to give it.
        """
        if not self.base_url:
            raise ConfigurationError(
                "no server address: pass base_url=... or set CYCLES_BASE_URL; for a server to try things with, "
                "run python -m cycles.embedded --budget tenant:acme=10USD"
            )
        if not self.api_key:
            raise ConfigurationError("no API key: pass api_key=... or set CYCLES_API_KEY")
        return self.base_url, self.api_key


def _without_none(cls: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    unknown = set(values) - set(fields_dict(cls))
    if unknown:
        raise ConfigurationError(f"{min(unknown)} is not a setting; there are {', '.join(fields_dict(cls))}")
    return {name: value for name, value in values.items() if value is not None}


def _from_text(variable: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
        raise ConfigurationError(f"{variable}={text!r} is neither true nor false")
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise ConfigurationError(f"{variable}={text!r} is not a number") from None
    return text


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _number(name: str, value: float, *, above: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < float("inf"):
        raise ConfigurationError(f"{name} must be a positive, finite number, got {value!r}")


def _check_url(url: str) -> None:
    wrong = ConfigurationError(f"base_url {url!r} is not an http(s) address; write it like https://host:7878")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and url.isprintable() and " " not in url  # `urlsplit` drops some of these unseen
    except ValueError:
        raise wrong from None
    if not usable:
        raise wrong
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("base_url must carry no user, password, query or fragment")


def _check_key(key: str) -> None:
    # Only what can stand in a header; the key itself must not appear in the message.
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigurationError("the API key is empty or holds blanks, control or non-ASCII characters; copy it again")


public(Config)
