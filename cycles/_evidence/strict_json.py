"""Read JSON without the lenience of the standard parser.

Two readers of one document must see the same members. So doubled member names, NaN, Infinity, numbers beyond a double,
invalid UTF-8 and nesting that exhausts the parser are errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


class StrictJsonError(ValueError):
    """The document is not strict JSON; the message says why."""


def read_strict(
    document: bytes | str,
    *,
    parse_int: Callable[[str], Any] | None = None,
    parse_float: Callable[[str], Any] | None = None,
) -> Any:
    """Return the JSON value in `document`. Bytes must be UTF-8.

    Args:
        document: The complete document.
        parse_int: Called with each integer literal; `int` by default.
        parse_float: Called with each literal that has a fraction or an exponent; `float` by default.

    Raises:
        StrictJsonError: if the document is not strict JSON, or a literal is not accepted.
    """
    try:
        text = document if isinstance(document, str) else bytes(document).decode("utf-8")
        return json.loads(
            text,
            object_pairs_hook=_members,
            parse_constant=_constant,
            parse_int=parse_int,
            parse_float=parse_float or _finite,
        )
    except StrictJsonError:
        raise
    except UnicodeDecodeError:
        raise StrictJsonError("the document is not UTF-8") from None
    except RecursionError:
        raise StrictJsonError("the document is nested too deeply") from None
    except ValueError as error:
        raise StrictJsonError(f"the document is not JSON: {error}") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise StrictJsonError(f"the member {doubled[:60]!r} occurs twice")
    return members


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise StrictJsonError(f"the number {literal[:60]} is too large")
    return number


def _constant(name: str) -> Any:
    raise StrictJsonError(f"{name} is not JSON")
