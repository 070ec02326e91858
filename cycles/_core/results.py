"""Responses as frozen values: absent members are None, amounts are `Amount`.

They are read from bodies that satisfy the schema (`schema.py`). A member that is newer than this SDK is in `extra`; the
parsed body is in `raw`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import field, frozen

from cycles._core.amounts import Amount, SignedAmount, amount_of, signed_of
from cycles._core.protocol import is_allowed
from cycles._core.subjects import LEVELS, Action, Subject
from cycles._core.values.action_kinds import PolicyKeys
from cycles._core.values.caps import Caps as Caps
from cycles._core.values.deny_detail import DenyDetail, read_deny_detail
from cycles._core.values.result_base import Readers as Readers, Result as Result, many
from cycles._version import public


def _subject(body: Mapping[str, Any]) -> Subject:
    # Newer levels of the server are in `raw` of the result; a `Subject` would reject them.
    levels = {level: body.get(level) for level in LEVELS}
    return Subject(**levels, dimensions=body.get("dimensions"))


def _action(body: Mapping[str, Any]) -> Action:
    keys = body.get("policy_keys")
    return Action(body["kind"], body["name"], body.get("tags"), PolicyKeys.read(keys) if keys is not None else None)


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

    _read: ClassVar[Readers] = {"remaining": signed_of} | dict.fromkeys(
        ("reserved", "spent", "debt", "allocated", "overdraft_limit"), amount_of
    )


_balances = many(Balance)


@frozen(kw_only=True)
class DecisionResponse(Result):
    """The response to `decide`. `decision` is ALLOW, ALLOW_WITH_CAPS or DENY; nothing is reserved."""

    decision: str
    caps: Caps | None = None
    reason_code: str | None = None
    retry_after_ms: int | None = None
    affected_scopes: list[str] | None = None
    deny_detail: DenyDetail | None = None
    cycles_evidence: EvidenceRef | None = None

    _read: ClassVar[Readers] = {
        "caps": Caps.read,
        "affected_scopes": list,
        "deny_detail": read_deny_detail,
        "cycles_evidence": EvidenceRef.read,
    }

    @property
    def allowed(self) -> bool:
        """True for ALLOW and ALLOW_WITH_CAPS; a decision that this SDK does not know counts as a denial."""
        return is_allowed(self.decision)

    @property
    def denial_code(self) -> str | None:
        """The reason of a DENY: `reason_code`, or that of `deny_detail` if it is missing."""
        return self.reason_code or (None if self.deny_detail is None else self.deny_detail.reason_code)


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

    _read: ClassVar[Readers] = DecisionResponse._read | {"reserved": amount_of, "balances": _balances}


@frozen(kw_only=True)
class CommitResponse(Result):
    """The response to a commit: what was charged, and what was returned to the budget, if any."""

    status: str
    charged: Amount
    released: Amount | None = None
    balances: list[Balance] | None = None
    cycles_evidence: EvidenceRef | None = None

    _read: ClassVar[Readers] = {
        "charged": amount_of,
        "released": amount_of,
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

    _read: ClassVar[Readers] = {"released": amount_of, "balances": _balances, "cycles_evidence": EvidenceRef.read}


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

    _read: ClassVar[Readers] = {"charged": amount_of, "balances": _balances}


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
        "reserved": amount_of,
        "committed": amount_of,
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
        from cycles._evidence.bodies import attests

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

    _read: ClassVar[Readers] = {"keys": many(EvidenceKey)}


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
