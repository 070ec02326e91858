"""Responses as frozen values: absent members are None, amounts are `Amount`.

They are read from bodies that satisfy the schema (`schema.py`). A member that is newer than this SDK is in `extra`; the
parsed body is in `raw`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

from attrs import field, fields_dict, frozen

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.protocol import is_allowed
from cycles._core.subjects import LEVELS, Action, Subject
from cycles._version import public

R = TypeVar("R", bound="Result")
Readers: TypeAlias = dict[str, Callable[..., Any]]


@frozen(kw_only=True)
class Result:
    """Base of every response.

    Attributes:
        request_id: The server's id of the request, for its logs.
        trace_id: Trace id of the request (32 hex digits).
        raw: The JSON object of the response, unchanged.
    """

    request_id: str | None = field(default=None, eq=False, repr=False)
    trace_id: str | None = field(default=None, eq=False, repr=False)
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)

    _read: ClassVar[Readers] = {}

    @property
    def extra(self) -> dict[str, Any]:
        """Members of the response that this SDK does not know yet."""
        known = fields_dict(type(self))
        return {name: value for name, value in self.raw.items() if name not in known}

    @property
    def additional_properties(self) -> dict[str, Any]:
        """The same as `extra`, under the name that the generated models use."""
        return self.extra

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the response, unchanged."""
        return dict(self.raw)

    @classmethod
    def read(cls, body: Mapping[str, Any], *, request_id: str | None = None, trace_id: str | None = None) -> Self:
        """Return the response in a body that satisfies its schema; null members count as absent."""
        known, members = _members(cls), {}
        for name, value in body.items():
            if value is not None and name in known:
                reader = known[name]
                members[name] = reader(value) if reader is not None else value
        return cls(**members, request_id=request_id, trace_id=trace_id, raw=body)


_MEMBERS: dict[type[Result], dict[str, Callable[..., Any] | None]] = {}
_OURS = frozenset({"request_id", "trace_id", "raw"})


def _members(cls: type[Result]) -> dict[str, Callable[..., Any] | None]:
    try:
        return _MEMBERS[cls]
    except KeyError:
        _MEMBERS[cls] = {name: cls._read.get(name) for name in fields_dict(cls) if name not in _OURS}
        return _MEMBERS[cls]


def _amount(body: Mapping[str, Any]) -> Amount:
    return Amount(body["unit"], body["amount"])


def _signed(body: Mapping[str, Any]) -> SignedAmount:
    return SignedAmount(body["unit"], body["amount"])


def _many(cls: type[R]) -> Callable[[list[Mapping[str, Any]]], list[R]]:
    return lambda items: [cls.read(item) for item in items]


def _subject(body: Mapping[str, Any]) -> Subject:
    levels = {level: body.get(level) for level in LEVELS}
    return Subject(**levels, dimensions=body.get("dimensions"))


def _action(body: Mapping[str, Any]) -> Action:
    return Action(body["kind"], body["name"], body.get("tags"))


@frozen(kw_only=True)
class EvidenceRef(Result):
    """Reference to the signed evidence of a response: `evidence_id` is 64 hex digits."""

    evidence_id: str
    cycles_evidence_url: str


@frozen(kw_only=True)
class ReservationEvidence(Result):
    """The evidence of each step in the life of a reservation, if there is one."""

    reserve: EvidenceRef | None = None
    commit: EvidenceRef | None = None
    release: EvidenceRef | None = None

    _read: ClassVar[Readers] = {"reserve": EvidenceRef.read, "commit": EvidenceRef.read, "release": EvidenceRef.read}


@frozen(kw_only=True)
class Caps(Result):
    """Limits under which an action is allowed; None means no limit. `cooldown_ms` is in milliseconds."""

    max_tokens: int | None = None
    max_steps_remaining: int | None = None
    tool_allowlist: list[str] | None = None
    tool_denylist: list[str] | None = None
    cooldown_ms: int | None = None

    _read: ClassVar[Readers] = {"tool_allowlist": list, "tool_denylist": list}


@frozen(kw_only=True)
class Balance(Result):
    """One budget: `remaining = allocated - spent - reserved - debt`, in one unit.

    Attributes:
        scope: The last segment of the scope, for example ``agent:bot``.
        scope_path: The whole scope, for example ``tenant:acme/agent:bot``.
        remaining: What is left; may be below zero.
    """

    scope: str
    scope_path: str
    remaining: SignedAmount
    reserved: Amount | None = None
    spent: Amount | None = None
    debt: Amount | None = None
    allocated: Amount | None = None
    overdraft_limit: Amount | None = None
    is_over_limit: bool | None = None

    _read: ClassVar[Readers] = {"remaining": _signed} | dict.fromkeys(
        ("reserved", "spent", "debt", "allocated", "overdraft_limit"), _amount
    )


_balances = _many(Balance)


@frozen(kw_only=True)
class DecisionResponse(Result):
    """The response to `decide`. `decision` is ALLOW, ALLOW_WITH_CAPS or DENY; nothing is reserved."""

    decision: str
    caps: Caps | None = None
    reason_code: str | None = None
    retry_after_ms: int | None = None
    affected_scopes: list[str] | None = None
    cycles_evidence: EvidenceRef | None = None

    _read: ClassVar[Readers] = {"caps": Caps.read, "affected_scopes": list, "cycles_evidence": EvidenceRef.read}

    @property
    def allowed(self) -> bool:
        """True for ALLOW and ALLOW_WITH_CAPS; a decision that this SDK does not know counts as a denial."""
        return is_allowed(self.decision)


@frozen(kw_only=True)
class ReservationCreateResponse(DecisionResponse):
    """The response to a reservation, live or dry run. `expires_at_ms` is server time, not local time."""

    affected_scopes: list[str] = field(factory=list)
    reservation_id: str | None = None
    reserved: Amount | None = None
    expires_at_ms: int | None = None
    remaining_ttl_ms: int | None = None
    scope_path: str | None = None
    balances: list[Balance] | None = None

    _read: ClassVar[Readers] = DecisionResponse._read | {"reserved": _amount, "balances": _balances}


@frozen(kw_only=True)
class CommitResponse(Result):
    """The response to a commit: what was charged, and what was returned to the budget, if any."""

    status: str
    charged: Amount
    released: Amount | None = None
    balances: list[Balance] | None = None
    cycles_evidence: EvidenceRef | None = None

    _read: ClassVar[Readers] = {
        "charged": _amount,
        "released": _amount,
        "balances": _balances,
        "cycles_evidence": EvidenceRef.read,
    }


@frozen(kw_only=True)
class ReleaseResponse(Result):
    """The response to a release: what was returned to the budget."""

    status: str
    released: Amount
    balances: list[Balance] | None = None
    cycles_evidence: EvidenceRef | None = None

    _read: ClassVar[Readers] = {"released": _amount, "balances": _balances, "cycles_evidence": EvidenceRef.read}


@frozen(kw_only=True)
class ReservationExtendResponse(Result):
    """The response to an extension. `remaining_ttl_ms` counts from the moment when the server wrote it."""

    status: str
    expires_at_ms: int
    remaining_ttl_ms: int | None = None
    balances: list[Balance] | None = None

    _read: ClassVar[Readers] = {"balances": _balances}


@frozen(kw_only=True)
class EventCreateResponse(Result):
    """The response to an event. `charged` is set only if less than the actual was charged."""

    status: str
    event_id: str
    charged: Amount | None = None
    balances: list[Balance] | None = None

    _read: ClassVar[Readers] = {"charged": _amount, "balances": _balances}


@frozen(kw_only=True)
class ReservationSummary(Result):
    """One row of the list of reservations. Times are milliseconds of server time since the epoch."""

    reservation_id: str
    status: str
    subject: Subject
    action: Action
    reserved: Amount
    created_at_ms: int
    expires_at_ms: int
    scope_path: str
    affected_scopes: list[str]
    idempotency_key: str | None = None
    committed: Amount | None = None
    finalized_at_ms: int | None = None
    metadata: Mapping[str, Any] | None = None
    committed_metadata: Mapping[str, Any] | None = None
    evidence: ReservationEvidence | None = None

    _read: ClassVar[Readers] = {
        "subject": _subject,
        "action": _action,
        "reserved": _amount,
        "committed": _amount,
        "affected_scopes": list,
        "evidence": ReservationEvidence.read,
    }


@frozen(kw_only=True)
class ReservationDetail(ReservationSummary):
    """One reservation, read by its id."""


@frozen(kw_only=True)
class EvidenceEnvelope(Result):
    """A signed statement of the server about one response; verify `signature` with a key of `evidence_keys()`."""

    schema_version: str
    artifact_type: str
    server_id: str
    signer_did: str
    issued_at_ms: int
    payload: Mapping[str, Any]
    evidence_id: str
    signature: str

    def attests(self, response: Any) -> bool:
        """Return whether this envelope attests `response`; it verifies no signature. See `cycles.evidence.attests`."""
        from cycles._core.evidence_bodies import attests

        return attests(self, response)


@frozen(kw_only=True)
class EvidenceKey(Result):
    """One public key evidence is signed with; `cycles_nbf_ms` and `cycles_exp_ms` bound its life (ms, server time)."""

    kty: str
    crv: str
    x: str
    kid: str
    cycles_nbf_ms: int
    alg: str | None = None
    cycles_exp_ms: int | None = None
    status: str | None = None


@frozen(kw_only=True)
class EvidenceKeys(Result):
    """The server's evidence keys. Keys of a kind this SDK does not know are left out, the others stay usable."""

    keys: list[EvidenceKey] = field(factory=list)

    _read: ClassVar[Readers] = {"keys": _many(EvidenceKey)}


public(
    Balance,
    Caps,
    CommitResponse,
    DecisionResponse,
    EventCreateResponse,
    EvidenceEnvelope,
    EvidenceKey,
    EvidenceKeys,
    EvidenceRef,
    ReleaseResponse,
    ReservationCreateResponse,
    ReservationDetail,
    ReservationEvidence,
    ReservationExtendResponse,
    ReservationSummary,
)
