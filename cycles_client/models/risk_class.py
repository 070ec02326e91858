from enum import StrEnum

from ..types import is_known_member, unknown_member


class RiskClass(StrEnum):
    """How much harm an action can do, ascending.

    A value newer than this client is kept: it equals its text, and `is_known` is False.
    """

    EXTERNAL_SIDE_EFFECT = "external_side_effect"
    HIGH_RISK = "high_risk"
    LOCAL_MUTATION = "local_mutation"
    READ_ONLY = "read_only"
    SIDE_EFFECT = "side_effect"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_known(self) -> bool:
        """Whether this client was generated from a document that has this value."""
        return is_known_member(self)

    @classmethod
    def _missing_(cls, value: object) -> "RiskClass | None":
        return unknown_member(cls, str, value)
