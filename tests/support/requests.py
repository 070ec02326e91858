"""What the requests that an embedded server has received reserve, commit and release."""

from __future__ import annotations

from typing import Any

import cycles


class Requests:
    """The amounts and reasons in the requests that `server` has received."""

    server: cycles.EmbeddedServer

    @property
    def reserved(self) -> list[int]:
        """The amount of each reservation."""
        return [request.json["estimate"]["amount"] for request in self.server.requests.of("reserve")]

    @property
    def commits(self) -> list[tuple[int, dict[str, Any]]]:
        """Amount and metadata of each commit."""
        bodies = [request.json for request in self.server.requests.of("commit")]
        return [(body["actual"]["amount"], body.get("metadata", {})) for body in bodies]

    @property
    def releases(self) -> list[str]:
        """The reason of each release."""
        return [request.json["reason"] for request in self.server.requests.of("release")]
