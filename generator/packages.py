"""The packages that this project generates, and the document of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True)
class Package:
    """A generated package.

    Attributes:
        name: Name of the package and of its folder.
        document: Name of the document in this repository that it is generated from.
        variable: Variable of `make generate` that names another document.
        next: Name of the document with what a newer protocol version adds, or None.
    """

    name: str
    document: str
    variable: str
    next: str | None = None

    @property
    def spec(self) -> Path:
        """Path of the document."""
        return ROOT / self.document

    @property
    def additions(self) -> Path | None:
        """Path of the document with what a newer protocol version adds, or None."""
        return None if self.next is None else ROOT / self.next

    @property
    def folder(self) -> Path:
        """Path of the committed package."""
        return ROOT / self.name


RUNTIME: Final = Package("cycles_client", "openapi.yaml", "SPEC", "openapi-next.yaml")
ADMIN: Final = Package("cycles_admin_client", "admin-openapi.yaml", "ADMIN_SPEC")
