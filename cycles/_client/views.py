"""What a client or a view of it shows of itself: its repr, and `describe`."""

from __future__ import annotations

from typing import Any, Final

from attrs import fields_dict

from cycles._client.call_options import ViewOptions
from cycles._config import Config
from cycles._core.subjects import LEVELS, Subject
from cycles._version import PROTOCOL_VERSION, __version__

_SHOWN_ELSEWHERE: Final = ("base_url", "api_key", "default_headers", *LEVELS)


def describe(config: Config, options: ViewOptions, *, http_client: str | None, closed: bool) -> dict[str, Any]:
    """Return the description of a client.

    Args:
        config: Its configuration.
        options: What a view of it changes.
        http_client: The kind of the user's own HTTP client, if there is one.
        closed: Whether it is closed.
    """
    # Only attributes that are no secret; a new one appears without an edit here.
    settings = {name: getattr(config, name) for name in fields_dict(Config) if name not in _SHOWN_ELSEWHERE}
    settings |= _changed(options)
    return {
        "base_url": config.base_url,
        "api_key": "a callable" if callable(config.api_key) else "a str",
        "subject": subject_of(config, options).to_dict(),
        "headers": sorted({*(config.default_headers or {}), *options.extra_headers}),  # names only
        "settings": {name: _shown(value) for name, value in settings.items()},
        "http_client": http_client,
        "closed": closed,
        "version": __version__,
        "protocol": PROTOCOL_VERSION,
    }


def short(config: Config, options: ViewOptions) -> str:
    """Return the repr of a client."""
    subject = ", ".join(f"{name} {value}" for name, value in subject_of(config, options).to_dict().items())
    more = "".join(f", {name}={value}" for name, value in _changed(options).items())
    return f"<Cycles {config.base_url}{', ' if subject else ''}{subject}{more}>"


def _changed(options: ViewOptions) -> dict[str, Any]:
    names = ("timeout", "lease_policy", "max_retries", "overage_policy")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def subject_of(config: Config, options: ViewOptions) -> Subject:
    """Return the subject that requests have without an own one."""
    return options.subject.over(Subject(**{level: getattr(config, level) for level in LEVELS}))


def _shown(value: Any) -> Any:
    """Return a value that a person can read and that can be encoded as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return "a callable" if callable(value) else str(value)
