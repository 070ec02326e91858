from enum import StrEnum

from ..types import is_known_member, unknown_member


class ListReservationsSortBy(StrEnum):
    """Sort key. Server default: created_at_ms.

    A value newer than this client is kept: it equals its text, and `is_known` is False.
    """

    CREATED_AT_MS = "created_at_ms"
    EXPIRES_AT_MS = "expires_at_ms"
    RESERVATION_ID = "reservation_id"
    RESERVED = "reserved"
    SCOPE_PATH = "scope_path"
    STATUS = "status"
    TENANT = "tenant"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_known(self) -> bool:
        """Whether this client was generated from a document that has this value."""
        return is_known_member(self)

    @classmethod
    def _missing_(cls, value: object) -> "ListReservationsSortBy | None":
        return unknown_member(cls, str, value)
