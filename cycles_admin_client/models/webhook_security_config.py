from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="WebhookSecurityConfig")


@_attrs_define
class WebhookSecurityConfig:
    """Which addresses webhooks may use.

    Attributes:
        blocked_cidr_ranges (list[str] | Unset): Address ranges that are rejected.
        allowed_url_patterns (list[str] | Unset): URL patterns that are allowed.
        allow_http (bool | Unset): Whether URLs without TLS are allowed.
    """

    blocked_cidr_ranges: list[str] | Unset = UNSET
    allowed_url_patterns: list[str] | Unset = UNSET
    allow_http: bool | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        blocked_cidr_ranges: list[str] | Unset = UNSET
        if not isinstance(self.blocked_cidr_ranges, Unset):
            blocked_cidr_ranges = self.blocked_cidr_ranges

        allowed_url_patterns: list[str] | Unset = UNSET
        if not isinstance(self.allowed_url_patterns, Unset):
            allowed_url_patterns = self.allowed_url_patterns

        allow_http = self.allow_http

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if blocked_cidr_ranges is not UNSET:
            field_dict["blocked_cidr_ranges"] = blocked_cidr_ranges
        if allowed_url_patterns is not UNSET:
            field_dict["allowed_url_patterns"] = allowed_url_patterns
        if allow_http is not UNSET:
            field_dict["allow_http"] = allow_http

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        blocked_cidr_ranges = cast(list[str], present(d.pop("blocked_cidr_ranges", UNSET)))

        allowed_url_patterns = cast(list[str], present(d.pop("allowed_url_patterns", UNSET)))

        allow_http = present(d.pop("allow_http", UNSET))

        webhook_security_config = cls(
            blocked_cidr_ranges=blocked_cidr_ranges,
            allowed_url_patterns=allowed_url_patterns,
            allow_http=allow_http,
        )

        webhook_security_config.additional_properties = d
        return webhook_security_config

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
