from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.cycles_evidence_envelope_artifact_type import CyclesEvidenceEnvelopeArtifactType
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="CyclesEvidenceEnvelope")


@_attrs_define
class CyclesEvidenceEnvelope:
    """A signed record of one response, which a third party can verify.

    Attributes:
        schema_version (str): Version of the envelope format.
        artifact_type (CyclesEvidenceEnvelopeArtifactType): Kind of the recorded response.
        server_id (str): The server that sent the response.
        signer_did (str): Decentralised identifier of the signer.
        issued_at_ms (int): When the envelope was signed, in milliseconds since the epoch.
        payload (Any): The recorded response.
        evidence_id (str): SHA-256 of the content, in hex.
        signature (str): Ed25519 signature of the content, in hex.
        trace_id (str | Unset): Trace id of the request.
    """

    schema_version: str
    artifact_type: CyclesEvidenceEnvelopeArtifactType
    server_id: str
    signer_did: str
    issued_at_ms: int
    payload: Any
    evidence_id: str
    signature: str
    trace_id: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        schema_version = self.schema_version

        artifact_type = CyclesEvidenceEnvelopeArtifactType(self.artifact_type).value

        server_id = self.server_id

        signer_did = self.signer_did

        issued_at_ms = self.issued_at_ms

        payload = self.payload

        evidence_id = self.evidence_id

        signature = self.signature

        trace_id = self.trace_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "schema_version": schema_version,
                "artifact_type": artifact_type,
                "server_id": server_id,
                "signer_did": signer_did,
                "issued_at_ms": issued_at_ms,
                "payload": payload,
                "evidence_id": evidence_id,
                "signature": signature,
            }
        )
        if trace_id is not UNSET:
            field_dict["trace_id"] = trace_id

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        schema_version = d.pop("schema_version")

        artifact_type = CyclesEvidenceEnvelopeArtifactType(d.pop("artifact_type"))

        server_id = d.pop("server_id")

        signer_did = d.pop("signer_did")

        issued_at_ms = d.pop("issued_at_ms")

        payload = d.pop("payload")

        evidence_id = d.pop("evidence_id")

        signature = d.pop("signature")

        trace_id = present(d.pop("trace_id", UNSET))

        cycles_evidence_envelope = cls(
            schema_version=schema_version,
            artifact_type=artifact_type,
            server_id=server_id,
            signer_did=signer_did,
            issued_at_ms=issued_at_ms,
            payload=payload,
            evidence_id=evidence_id,
            signature=signature,
            trace_id=trace_id,
        )

        cycles_evidence_envelope.additional_properties = d
        return cycles_evidence_envelope

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
