from enum import StrEnum

from ..types import is_known_member, unknown_member


class ReservationCreateRequestObserveMode(StrEnum):
    """Whether the reservation is enforced, or only observed; it overrides the mode of the tenant.

    A value newer than this client is kept: it equals its text, and `is_known` is False.
    """

    DISABLED = "DISABLED"
    ENFORCE = "ENFORCE"
    OBSERVE = "OBSERVE"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_known(self) -> bool:
        """Whether this client was generated from a document that has this value."""
        return is_known_member(self)

    @classmethod
    def _missing_(cls, value: object) -> "ReservationCreateRequestObserveMode | None":
        return unknown_member(cls, str, value)
