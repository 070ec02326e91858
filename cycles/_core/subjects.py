"""The subject and the action of a request. See `docs/protocol/amounts-and-subjects.md#subject-levels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from cycles._core.values.action_kinds import PolicyKeys
from cycles._errors import InvalidRequestError
from cycles._version import public

LEVELS: Final = ("tenant", "workspace", "app", "workflow", "agent", "toolset")
"""The standard levels, outermost first; the server derives its scopes in this order."""


def _strings(value: Mapping[str, str] | None) -> dict[str, str]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequestError(f"subject.dimensions must be a mapping of strings, got {value!r:.80}")
    return dict(value or {})


@frozen(kw_only=True)
class Subject:
    """Whose budget pays: up to six levels, outermost first, and free-form dimensions that never select a budget.

    Each level is at most 128 characters of letters, digits, ``_``, ``.`` and ``-``; at least one level must be known
    when a request is made, from here, from `cycles.subject(...)` or from the client's configuration.
    """

    tenant: str | None = None
    workspace: str | None = None
    app: str | None = None
    workflow: str | None = None
    agent: str | None = None
    toolset: str | None = None
    dimensions: Mapping[str, str] = field(factory=dict, converter=_strings, hash=False)

    def over(self, base: Subject) -> Subject:
        """This subject, with what it leaves out taken from `base`; dimensions are merged key by key."""
        # Each level by itself: an agent below a configured tenant keeps the tenant.
        levels = {level: getattr(self, level) or getattr(base, level) for level in LEVELS}
        return Subject(**levels, dimensions={**base.dimensions, **self.dimensions})

    def to_dict(self) -> dict[str, Any]:
        """The subject as it goes over the wire: levels that are known, dimensions if there are any."""
        wire: dict[str, Any] = {level: value for level in LEVELS if (value := getattr(self, level)) is not None}
        if self.dimensions:
            wire["dimensions"] = dict(self.dimensions)
        return wire


def as_subject(value: Subject | Mapping[str, Any] | None) -> Subject:
    """A `Subject` from what users may pass for one.

    Raises:
        InvalidRequestError: naming the member that no subject has.
    """
    if value is None:
        return Subject()
    if isinstance(value, Subject):
        return value
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"subject must be a cycles.Subject or a mapping, got {value!r:.80}")
    unknown = set(value) - {*LEVELS, "dimensions"}
    # A mistyped level would charge another budget.
    if unknown:
        name = min(unknown, key=str)
        raise InvalidRequestError(f"subject.{name!s:.80} is not a level of a subject: use one of {', '.join(LEVELS)}")
    return Subject(**value)


def _tags(value: Sequence[str] | None) -> list[str]:
    if isinstance(value, str):
        raise InvalidRequestError(f"action.tags must be a list of tags, got the single string {value!r:.80}")
    return list(value or ())


def _policy_keys(value: Any) -> PolicyKeys | None:
    if value is not None and not isinstance(value, PolicyKeys):
        raise InvalidRequestError(f"action.policy_keys must be a cycles.PolicyKeys, got {value!r:.80}")
    return value


@frozen
class Action:
    """What is about to be done: its kind (up to 64 characters), its name (up to 256) and up to ten tags.

    `policy_keys` needs a server of protocol 0.1.26; an older one rejects the request. It is sent only if it is passed.
    """

    kind: str
    name: str
    tags: list[str] = field(default=None, converter=_tags, hash=False)
    policy_keys: PolicyKeys | None = field(default=None, converter=_policy_keys)

    def to_dict(self) -> dict[str, Any]:
        """The action as it goes over the wire."""
        wire: dict[str, Any] = {"kind": self.kind, "name": self.name}
        if self.tags:
            wire["tags"] = list(self.tags)
        # Only if passed: the schema of an older server is closed, and would reject the request.
        if self.policy_keys is not None:
            wire["policy_keys"] = self.policy_keys.to_dict()
        return wire


def as_action(value: Action | tuple[str, str]) -> Action:
    """An `Action` from what users may pass for one.

    Raises:
        InvalidRequestError: if it is neither an Action nor a (kind, name) pair.
    """
    if isinstance(value, Action):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return Action(*value)
    raise InvalidRequestError(f"action must be a cycles.Action or a (kind, name) pair, got {value!r:.80}")


public(Action, Subject)
