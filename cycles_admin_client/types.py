"""Contains some shared types for properties"""

from collections.abc import Mapping, MutableMapping
from enum import Enum
from typing import IO, Any, BinaryIO, Generic, Literal, TypeVar

from attrs import define


class Unset:
    def __bool__(self) -> Literal[False]:
        return False

    def __reduce__(self) -> str:
        # A copy or pickle refers to UNSET by name, because UNSET is compared by identity.
        return "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Unset = Unset()

E = TypeVar("E", bound=Enum)


def present(value: Any) -> Any:
    """Return UNSET for None: an optional member that is null counts as absent."""
    return UNSET if value is None else value


def unknown_member(enum: type[E], plain: Any, value: object) -> E | None:
    """Return a new member for an unknown value. For a value of another type return None, so that Enum raises."""
    if not isinstance(value, plain) or isinstance(value, bool):
        return None
    member: E = plain.__new__(enum, value)
    member._name_ = str(value)
    member._value_ = value
    return member


def is_known_member(member: Enum) -> bool:
    """Return whether the document this client was generated from has this value."""
    return member.value in type(member)._value2member_map_


# The types that `httpx.Client(files=)` can accept, copied from that library.
FileContent = IO[bytes] | bytes | str
FileTypes = (
    # (filename, file (or bytes), content_type)
    tuple[str | None, FileContent, str | None]
    # (filename, file (or bytes), content_type, headers)
    | tuple[str | None, FileContent, str | None, Mapping[str, str]]
)
RequestFiles = list[tuple[str, FileTypes]]


@define
class File:
    """Contains information for file uploads"""

    payload: BinaryIO
    file_name: str | None = None
    mime_type: str | None = None

    def to_tuple(self) -> FileTypes:
        """Return a tuple representation that httpx will accept for multipart/form-data"""
        return self.file_name, self.payload, self.mime_type


T = TypeVar("T")


@define
class Response(Generic[T]):
    """A response from an endpoint"""

    status_code: int
    content: bytes
    headers: MutableMapping[str, str]
    parsed: T | None
    parse_error: Exception | None = None


# Exceptions that reading a response may raise if the response does not match the document.
PARSE_ERRORS = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


__all__ = [
    "UNSET",
    "File",
    "FileTypes",
    "RequestFiles",
    "Response",
    "Unset",
    "present",
    "unknown_member",
    "is_known_member",
    "PARSE_ERRORS",
]
