"""`client.evidence_verdict`: get an envelope and the key set from the client's own server, and verify them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack
from urllib.parse import urlsplit

from cycles._client.call_options import RequestOptions
from cycles._client.operation_context import OperationContext
from cycles._core.messages.outcome import Outcome, RejectedResponse, Success
from cycles._core.messages.requests import Call
from cycles._core.protocol import GET_EVIDENCE, GET_EVIDENCE_KEYS
from cycles._core.results import EvidenceRef
from cycles._errors import InvalidRequestError
from cycles._flows.retry import describe, pause, send_read, success_of

if TYPE_CHECKING:
    from cycles.evidence import EvidenceVerdict, Keys

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0  # between two reads of an envelope that is not signed yet
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


async def evidence_verdict(
    context: OperationContext,
    ref_or_id: EvidenceRef | Mapping[str, Any] | str,
    *,
    wait_ms: int = 0,
    expected_signer: str | None = None,
    server_id: str | None = None,
    **request: Unpack[RequestOptions],
) -> EvidenceVerdict:
    """Get the signed evidence of a response from this client's server, with its key set, and verify it.

    Envelope and key set come from the client's own base URL. No URL in a response or an envelope is followed. A key set
    that cannot be read gives the disposition ``signer_resolution_failed``; so does one over plain HTTP from another
    machine.

    Args:
        ref_or_id: `settlement.evidence`, `cycles_evidence` of a result, `error.evidence`, or the id.
        wait_ms: How long to repeat the read, in milliseconds, while the server has no envelope: it may sign it later.
        expected_signer: The `signer_did` that the envelope must have.
        server_id: The server that must have issued it; the base URL with ``/v1`` by default.

    Raises:
        NotFoundError: if the server has no such envelope, or not yet.
        EvidenceRejectedError: if the document is no envelope, or another one.
        InvalidRequestError: if there is no id, for example because the response has no evidence.
        ConfigurationError: if the extra ``evidence`` is not installed.
        CyclesError: for every other response that is no envelope.
    """
    from cycles.evidence import KEYS_UNAVAILABLE, EvidenceDisposition, verify_evidence

    evidence_id = _id(ref_or_id)
    if isinstance(wait_ms, bool) or not isinstance(wait_ms, int) or wait_ms < 0:
        raise InvalidRequestError(f"wait_ms must be an integer of at least 0 milliseconds, got {wait_ms!r:.80}")
    call = Call(GET_EVIDENCE, {"evidence_id": evidence_id}, options=context.options.of_call)
    context.io.check(call)
    envelope = success_of(await _read_envelope(context, call, wait_ms), call.operation)
    trusted = [context.io.settings.base_url + "/v1" if server_id is None else server_id]

    def verified(keys: Keys) -> EvidenceVerdict:
        return verify_evidence(
            envelope.content,
            keys=keys,
            expected_signer=expected_signer,
            trusted_server_ids=trusted,
            evidence_id=evidence_id,
        )

    # Without keys first: an envelope of another server or signer is rejected without a request for its keys.
    verdict = verified(KEYS_UNAVAILABLE)
    if verdict.disposition is not EvidenceDisposition.SIGNER_RESOLUTION_FAILED:
        return verdict  # decided without a key: nothing is requested for an envelope of another server
    return verified(await _read_keys(context))


async def _read_envelope(context: OperationContext, call: Call, wait_ms: int) -> Outcome:
    """Read the envelope; repeat it with growing pauses while the server has none."""
    end, pause_s = context.io.clock.now_ms() + wait_ms, _FIRST_PAUSE_S
    while True:
        outcome = await send_read(context.io, call)
        left = (end - context.io.clock.now_ms()) / 1000
        if not isinstance(outcome, RejectedResponse) or outcome.status not in (404, 429) or left <= 0:
            return outcome
        least = (outcome.retry_after_ms or 0) / 1000
        await pause(context.io, min(max(pause_s * (0.5 + context.io.clock.random()), least), left))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def _read_keys(context: OperationContext) -> Keys:
    from cycles.evidence import KeysUnavailable

    url = urlsplit(context.io.settings.base_url)
    if url.scheme != "https" and not _is_local(url.hostname or ""):
        return KeysUnavailable("a key set over plain HTTP is not trusted; use an https base_url")
    outcome = await send_read(context.io, Call(GET_EVIDENCE_KEYS, options=context.options.of_call))
    return outcome.content if isinstance(outcome, Success) else KeysUnavailable(describe(outcome))


def _is_local(host: str) -> bool:
    # Names below .invalid never resolve (RFC 2606): a client of an embedded server in this process.
    return host in _LOCAL or host.endswith(".invalid") or (host[:4] == "127." and host.rpartition(".")[2].isdecimal())


def _id(ref_or_id: Any) -> str:
    found = ref_or_id.get("evidence_id") if isinstance(ref_or_id, Mapping) else ref_or_id
    found = getattr(found, "evidence_id", found)
    if not isinstance(found, str):
        raise InvalidRequestError(
            f"ref_or_id must be the evidence of a response or its id, got {ref_or_id!r:.80}; "
            "a response without evidence has None there"
        )
    return found
