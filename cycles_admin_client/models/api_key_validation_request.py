from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="ApiKeyValidationRequest")


@_attrs_define
class ApiKeyValidationRequest:
    """An API key to check.

    Attributes:
        key_secret (str): The key itself.
    """

    key_secret: str

    def to_dict(self) -> dict[str, Any]:
        key_secret = self.key_secret

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "key_secret": key_secret,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        key_secret = d.pop("key_secret")

        api_key_validation_request = cls(
            key_secret=key_secret,
        )

        return api_key_validation_request
