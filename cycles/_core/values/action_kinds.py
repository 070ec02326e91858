"""Policy keys, action kinds and quota windows of protocol 0.1.26. See `docs/protocol.md#action-kinds-and-quotas`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import field, fields_dict, frozen

from cycles._core.values.result_base import Result
from cycles._errors import InvalidRequestError
from cycles._version import public

_LONGEST: Final = {"host": 253, "recipient_domain": 253, "resource_type": 128, "path_prefix": 512}
_MOST_CUSTOM, _LONGEST_CUSTOM = 8, 256

# Window: the form of its key, and its length.
_WINDOWS: Final[dict[str, tuple[str, timedelta]]] = {
    "per_minute_tumbling": ("%Y-%m-%dT%H:%M", timedelta(minutes=1)),
    "per_hour_tumbling": ("%Y-%m-%dT%H", timedelta(hours=1)),
    "per_day_tumbling": ("%Y-%m-%d", timedelta(days=1)),
    "per_tenant_per_day": ("%Y-%m-%d", timedelta(days=1)),
}
PER_RUN: Final = "per_run"
WINDOWS: Final = (PER_RUN, *_WINDOWS)
RISK_CLASSES: Final = ("read_only", "local_mutation", "side_effect", "external_side_effect", "high_risk")
"""Risk classes, ascending."""


def window_key(window: str, now: datetime) -> str:
    """Return the key of the calendar window that contains `now`, an aware datetime."""
    return now.astimezone(UTC).strftime(_WINDOWS[window][0])


def window_end(window: str | None, key: str | None) -> datetime | None:
    """Return when a calendar window ends; None for another window or a key of another form."""
    if window not in _WINDOWS or key is None:
        return None
    form, length = _WINDOWS[window]
    try:
        return datetime.strptime(key, form).replace(tzinfo=UTC) + length
    except (ValueError, OverflowError):
        return None


def _custom(value: Mapping[str, str] | None) -> dict[str, str]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequestError(f"policy_keys.custom must be a mapping of strings, got {value!r:.80}")
    custom = dict(value or {})
    if len(custom) > _MOST_CUSTOM:
        raise InvalidRequestError(f"policy_keys.custom has {len(custom)} entries: pass at most {_MOST_CUSTOM}")
    for name, text in custom.items():
        if not isinstance(name, str) or not isinstance(text, str) or len(text) > _LONGEST_CUSTOM:
            raise InvalidRequestError(
                f"policy_keys.custom[{name!r:.40}] must be a string of at most {_LONGEST_CUSTOM} characters, "
                f"got {text!r:.80}"
            )
    return custom


@frozen(kw_only=True)
class PolicyKeys:
    """What quota rules of the server look at, beside the kind of an action. All are optional (protocol 0.1.26).

    A rule for some hosts applies only to actions with one of these hosts. An omitted key never denies anything; it may
    let an action past a quota. A server of protocol 0.1.25 rejects a request with policy keys.

    Attributes:
        host: Host that the action contacts, without scheme and port.
        recipient_domain: Domain of the recipients of a message.
        resource_type: Kind of the resource, for example the name of a table.
        path_prefix: Absolute path that the action works below.
        custom: At most 8 further pairs of strings.

    Raises:
        InvalidRequestError: A value is wrong. The message names it.
    """

    host: str | None = None
    recipient_domain: str | None = None
    resource_type: str | None = None
    path_prefix: str | None = None
    custom: Mapping[str, str] = field(factory=dict, converter=_custom, hash=False)

    def __attrs_post_init__(self) -> None:
        for name, longest in _LONGEST.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= longest):
                raise InvalidRequestError(
                    f"policy_keys.{name} must be a string of 1 to {longest} characters, got {value!r:.80}"
                )
        for name in ("host", "recipient_domain"):
            value = getattr(self, name) or ""
            if "/" in value or ":" in value:
                raise InvalidRequestError(
                    f"policy_keys.{name} must be a host name without scheme, port and path, got {value!r:.80}"
                )
        if self.path_prefix is not None and not self.path_prefix.startswith("/"):
            raise InvalidRequestError(
                f"policy_keys.path_prefix must be an absolute path, got {self.path_prefix!r:.80}; begin it with /"
            )

    def to_dict(self) -> dict[str, Any]:
        """The policy keys as the request carries them: those that are set."""
        keys: dict[str, Any] = {name: value for name in _LONGEST if (value := getattr(self, name)) is not None}
        return keys | ({"custom": dict(self.custom)} if self.custom else {})

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> PolicyKeys | None:
        """Return the policy keys of a response; None if their form is newer than this SDK."""
        known = {name: value for name, value in body.items() if name in fields_dict(cls)}
        try:
            return cls(**known)
        except InvalidRequestError:
            return None


@frozen(kw_only=True)
class ActionKind(Result):
    """One kind of action in the server's registry (protocol 0.1.26).

    Attributes:
        kind: For example ``message.email.send``.
        risk_class: read_only, local_mutation, side_effect, external_side_effect or high_risk.
        policy_key_spec: The policy keys that this kind declares, in the server's form.
        mcp_tool_prefixes: Names of MCP tools that begin with one of these are of this kind.
        replacement_kind: The kind to use instead, if this one is deprecated.
    """

    kind: str
    risk_class: str
    policy_key_spec: Any = None
    description: str | None = None
    mcp_tool_prefixes: list[str] | None = None
    deprecated: bool | None = None
    replacement_kind: str | None = None


public(ActionKind, PolicyKeys)
