"""Which addresses webhooks may have: `/v1/admin/config/webhook-security`.

The reference server rejects plain HTTP and private addresses until an operator allows them. This server is for
development, where receivers are on loopback, so it allows them until an operator rejects them. Names are not resolved.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from cycles.embedded.records import Body
from cycles.embedded.webhook_subscriptions import InvalidUrlError, split

PLACE: Final = ("config", "webhook-security")
DEFAULT: Final[Body] = {"blocked_cidr_ranges": [], "allow_http": True}
_ABSENT: Final[Body] = {
    "blocked_cidr_ranges": [
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "::1/128", "fc00::/7",
    ],
    "allow_http": False,
}  # fmt: skip


def replaced(form: Body) -> Body:
    """Return the configuration of a request. Absent members get the values of the reference server."""
    return _ABSENT | form


def check(url: str, config: Body) -> None:
    """Check the address of a subscription.

    Raises:
        InvalidUrlError: The configuration does not allow it.
    """
    parts = split(url)
    if parts.scheme == "http" and not config["allow_http"]:
        raise InvalidUrlError(f"url: {url!r:.120} has no TLS, and the configuration requires https")
    patterns = config.get("allowed_url_patterns", ())
    if patterns and not any(fnmatchcase(url, pattern) for pattern in patterns):
        raise InvalidUrlError(f"url: {url!r:.120} matches none of allowed_url_patterns")
    if (blocked := _blocking(parts.hostname or "", config["blocked_cidr_ranges"])) is not None:
        raise InvalidUrlError(f"url: {url!r:.120} is in the blocked range {blocked}")


def _blocking(host: str, ranges: Iterable[str]) -> str | None:
    """Return the range that blocks a host, or None. A text that is no range blocks nothing."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return None
    for text in ranges:
        try:
            if address in ipaddress.ip_network(text, strict=False):
                return text
        except ValueError:
            continue
    return None
