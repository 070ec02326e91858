from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="StandardMetrics")


@_attrs_define
class StandardMetrics:
    """Usage of the action, beside its cost.

    Attributes:
        tokens_input (int | Unset): Tokens read.
        tokens_output (int | Unset): Tokens produced.
        latency_ms (int | Unset): How long the action took, in milliseconds.
        model_version (str | Unset): Exact version of the model that ran.
        custom (Any | Unset): Further measurements.
    """

    tokens_input: int | Unset = UNSET
    tokens_output: int | Unset = UNSET
    latency_ms: int | Unset = UNSET
    model_version: str | Unset = UNSET
    custom: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        tokens_input = self.tokens_input

        tokens_output = self.tokens_output

        latency_ms = self.latency_ms

        model_version = self.model_version

        custom = self.custom

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if tokens_input is not UNSET:
            field_dict["tokens_input"] = tokens_input
        if tokens_output is not UNSET:
            field_dict["tokens_output"] = tokens_output
        if latency_ms is not UNSET:
            field_dict["latency_ms"] = latency_ms
        if model_version is not UNSET:
            field_dict["model_version"] = model_version
        if custom is not UNSET:
            field_dict["custom"] = custom

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        tokens_input = present(d.pop("tokens_input", UNSET))

        tokens_output = present(d.pop("tokens_output", UNSET))

        latency_ms = present(d.pop("latency_ms", UNSET))

        model_version = present(d.pop("model_version", UNSET))

        custom = present(d.pop("custom", UNSET))

        standard_metrics = cls(
            tokens_input=tokens_input,
            tokens_output=tokens_output,
            latency_ms=latency_ms,
            model_version=model_version,
            custom=custom,
        )

        return standard_metrics
