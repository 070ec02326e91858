from enum import StrEnum

from ..types import is_known_member, unknown_member


class Unit(StrEnum):
    """Unit of an amount; one US dollar is 100,000,000 microcents.

    A value newer than this client is kept: it equals its text, and `is_known` is False.
    """

    CREDITS = "CREDITS"
    RISK_POINTS = "RISK_POINTS"
    TOKENS = "TOKENS"
    USD_MICROCENTS = "USD_MICROCENTS"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_known(self) -> bool:
        """Whether this client was generated from a document that has this value."""
        return is_known_member(self)

    @classmethod
    def _missing_(cls, value: object) -> "Unit | None":
        return unknown_member(cls, str, value)
