from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.cycles_evidence_jwk_status import CyclesEvidenceJwkStatus
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="CyclesEvidenceJwk")


@_attrs_define
class CyclesEvidenceJwk:
    """One public signing key in JSON Web Key form.

    Attributes:
        kty (str): Key type, always an octet key pair.
        crv (str): Curve of the key.
        x (str): The public key, base64url without padding.
        kid (str): Id of the key.
        cycles_nbf_ms (int): First moment the key signs, in milliseconds since the epoch.
        alg (str | Unset): Signature algorithm.
        cycles_exp_ms (int | None | Unset): Last moment the key signs, in milliseconds since the epoch; null while it
            has no end.
        status (CyclesEvidenceJwkStatus | Unset): Whether the key still signs or only verifies.
    """

    kty: str
    crv: str
    x: str
    kid: str
    cycles_nbf_ms: int
    alg: str | Unset = UNSET
    cycles_exp_ms: int | None | Unset = UNSET
    status: CyclesEvidenceJwkStatus | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        kty = self.kty

        crv = self.crv

        x = self.x

        kid = self.kid

        cycles_nbf_ms = self.cycles_nbf_ms

        alg = self.alg

        cycles_exp_ms: int | None | Unset
        if isinstance(self.cycles_exp_ms, Unset):
            cycles_exp_ms = UNSET
        else:
            cycles_exp_ms = self.cycles_exp_ms

        status: str | Unset = UNSET
        if not isinstance(self.status, Unset):
            status = CyclesEvidenceJwkStatus(self.status).value

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "kty": kty,
                "crv": crv,
                "x": x,
                "kid": kid,
                "cycles_nbf_ms": cycles_nbf_ms,
            }
        )
        if alg is not UNSET:
            field_dict["alg"] = alg
        if cycles_exp_ms is not UNSET:
            field_dict["cycles_exp_ms"] = cycles_exp_ms
        if status is not UNSET:
            field_dict["status"] = status

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        kty = d.pop("kty")

        crv = d.pop("crv")

        x = d.pop("x")

        kid = d.pop("kid")

        cycles_nbf_ms = d.pop("cycles_nbf_ms")

        alg = present(d.pop("alg", UNSET))

        def _parse_cycles_exp_ms(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        cycles_exp_ms = _parse_cycles_exp_ms(d.pop("cycles_exp_ms", UNSET))

        _status = present(d.pop("status", UNSET))
        status: CyclesEvidenceJwkStatus | Unset
        if isinstance(_status, Unset):
            status = UNSET
        else:
            status = CyclesEvidenceJwkStatus(_status)

        cycles_evidence_jwk = cls(
            kty=kty,
            crv=crv,
            x=x,
            kid=kid,
            cycles_nbf_ms=cycles_nbf_ms,
            alg=alg,
            cycles_exp_ms=cycles_exp_ms,
            status=status,
        )

        cycles_evidence_jwk.additional_properties = d
        return cycles_evidence_jwk

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
