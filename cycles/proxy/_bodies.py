"""Read the bodies of requests as the provider will, and write those that must change. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.parser import BytesHeaderParser
from typing import Any, Final

from attrs import field, frozen

from cycles._usage.estimating import Files
from cycles.providers._provider import Endpoint
from cycles.proxy._targets import RejectedError

_BOUNDARY: Final = re.compile(r'boundary="?([^";,]{1,200})"?', re.IGNORECASE)


@frozen
class Body:
    """A request's body.

    Attributes:
        content: The members that decide the price.
        raw: The bytes that were received.
        must_change: The bytes can be read in another way than they are priced, so the members are sent instead.
        files: What is uploaded.
    """

    content: dict[str, Any]
    raw: bytes
    must_change: bool = False
    files: Files = field(factory=Files)

    def changed(self, content: Mapping[str, Any] | None) -> bytes:
        """Return the bytes to send: those that were received, if nothing must change."""
        if content is None and not self.must_change:
            return self.raw
        return json.dumps(self.content if content is None else content, ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )


def read_body(raw: bytes, headers: Mapping[str, str], endpoint: Endpoint) -> Body:
    """Read a body: a JSON object, or the form of a file upload.

    Raises:
        ValueError: if it is neither.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ValueError("the body is compressed: send it without Content-Encoding")
    kind = headers.get("content-type", "")
    if "multipart/form-data" in kind.lower():
        return _form(raw, kind)
    doubled = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubled
        found = dict(pairs)
        doubled = doubled or len(found) != len(pairs)
        return found

    try:
        content = json.loads(raw, object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}; send a JSON object") from None
    if not isinstance(content, dict):
        raise ValueError("the body is not a JSON object; send one")
    if not endpoint.spellings:
        return Body(content, raw, doubled)
    renamed = _respelled(content, endpoint.spellings)
    return Body(renamed, raw, doubled or renamed.keys() != content.keys() or renamed != content)


def _respelled(content: dict[str, Any], spellings: Mapping[str, str]) -> dict[str, Any]:
    """Return the members, and those of objects in them, under the names that limits and prices are read from."""
    renamed = {spellings.get(name, name): value for name, value in content.items()}
    for outer in {limit.partition(".")[0] for limit in spellings.values()}:
        inner = renamed.get(outer)
        if isinstance(inner, dict):
            renamed[outer] = {spellings.get(name, name): value for name, value in inner.items()}
    return renamed


def _form(raw: bytes, kind: str) -> Body:
    found = _BOUNDARY.search(kind)
    if found is None:
        raise ValueError("the form has no boundary; send it in the header Content-Type")
    content: dict[str, Any] = {}
    sizes: list[int] = []
    for part in raw.split(b"--" + found.group(1).encode("latin-1"))[1:-1]:
        head, separator, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if not separator:
            raise ValueError("a part of the form has no content; send a blank line after its headers")
        header = BytesHeaderParser().parsebytes(head)
        name = header.get_param("name", header="content-disposition")
        value = value.removesuffix(b"\r\n")
        if header.get_filename() is not None:
            sizes.append(len(value))
        elif isinstance(name, str):
            if name in content and name in ("model", "n"):
                raise ValueError(f"the form has {name} twice; send it once")
            content[name] = _form_value(value.decode("utf-8", "replace"))
    return Body(content, raw, False, Files(len(sizes), sum(sizes)))


def _form_value(text: str) -> Any:
    if text.isdecimal() and len(text) < 10:
        return int(text)
    return {"true": True, "false": False}.get(text, text)


def rejected_body(name: str, error: ValueError) -> RejectedError:
    """Return the 400 of a body that cannot be priced."""
    return RejectedError(400, f"{error}; nothing was sent", name)
