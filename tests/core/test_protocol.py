"""The tables of `cycles._core.protocol` say what the documents and the schemas say."""

from __future__ import annotations

import re
from pathlib import Path

from cycles import _errors as errors
from cycles._core import protocol
from cycles._core.lease.values import StopReason
from cycles._wire.wire import runtime_tables
from cycles_client import protocol as generated

PAGE = Path(__file__).parents[2] / "docs" / "protocol" / "responses.md"


def rows_of(page: Path, first_column: str) -> list[list[str]]:
    """The rows of the table whose first column has this head, without backticks."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def stops(row: protocol.ErrorCode) -> str:
    return "permanently" if row.stop_reason else "yes" if row.stops_heartbeat else "no"


def test_the_page_prints_the_table_of_error_codes() -> None:
    printed = {row[0]: [re.split(r"[:,]", cell)[0] for cell in row[1:]] for row in rows_of(PAGE, "code")}
    default = printed.pop("any other code, or none", None)
    assert default is not None
    expected = {
        code: [str(row.status), row.error.__name__, "yes" if row.ends_settlement else "no", stops(row)]
        for code, row in protocol.ERROR_CODES.items()
    }
    assert printed == expected


def test_the_page_prints_the_default_rows() -> None:
    defaults = [row[1:] for row in rows_of(PAGE, "code") if row[0] == "any other code, or none"]
    assert [row[0] for row in defaults] == ["4xx", "5xx"]
    for printed, row in zip(defaults, (protocol.UNLISTED_4XX, protocol.UNLISTED_5XX), strict=True):
        assert row.error.__name__ in printed[1]
        assert printed[2] == ("yes" if row.ends_settlement else "no")
        assert printed[3].split(":")[0] == stops(row)


def test_a_code_that_is_not_listed_has_the_default_row_of_its_status() -> None:
    assert protocol.error_code("SOMETHING_NEW", 409) is protocol.UNLISTED_4XX
    assert protocol.error_code(None, 404) is protocol.UNLISTED_4XX
    assert protocol.error_code("SOMETHING_NEW", 503) is protocol.UNLISTED_5XX
    assert protocol.error_code("NOT_FOUND", 404).error is errors.NotFoundError


def test_each_operation_id_is_one_of_the_protocol() -> None:
    words = {
        value for value in vars(protocol).values() if isinstance(value, str) and re.fullmatch(r"[a-z]+[A-Z]\w+", value)
    }
    assert words
    assert words <= set(runtime_tables().OPERATIONS)
    assert words - set(generated.OPERATIONS) <= {"listActionKinds", "getActionKind"}  # of protocol 0.1.26


def test_each_code_of_the_schema_is_listed() -> None:
    listed = set(generated.SCHEMAS["ErrorCode"]["enum"])
    assert listed <= set(protocol.ERROR_CODES)


def test_each_stop_reason_is_one_of_the_planner() -> None:
    named = {row.stop_reason for row in protocol.ERROR_CODES.values() if row.stop_reason}
    assert named <= {str(reason) for reason in StopReason}
