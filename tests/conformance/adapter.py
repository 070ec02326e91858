"""Runs the tests of one scenario of the recovery profile, for an outside conformance suite.

    python tests/conformance/adapter.py CR-DURABLE-001 < request.json

Reads a JSON object from standard input, runs the tests of the scenario in this fresh
process, and prints one JSON object: `scenario_id`, `passed`, `native_tests`. Diagnostics go to standard error. The exit
status is 0 if the scenario passed, 1 if not, 2 if the request was wrong.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parents[2]
SCENARIOS: Final = {
    "CR-CORE-001": [
        "tests/recovery/test_core.py::test_cr_core_001_a_commit_without_a_response_is_repeated_with_its_key",
    ],
    "CR-CORE-002": [
        "tests/recovery/test_core.py::test_cr_core_002_an_expired_commit_becomes_an_event_with_the_same_key",
        "tests/recovery/test_core.py::test_an_event_carries_the_metrics_and_metadata_of_the_commit",
        "tests/recovery/test_core.py::test_the_status_alone_or_the_code_alone_means_expired",
    ],
    "CR-CORE-003": [
        "tests/recovery/test_core.py::test_cr_core_003_a_failed_extend_is_reported_and_repeated_and_the_commit_is_made",
    ],
    "CR-CORE-004": [
        "tests/recovery/test_core.py::test_cr_core_004_only_the_exact_success_is_one",
        "tests/recovery/test_core.py::test_an_event_is_settled_by_201_only",
    ],
    "CR-DURABLE-001": [
        "tests/recovery/test_durable.py::test_cr_durable_001_killed_with_the_first_commit_in_flight",
    ],
    "CR-DURABLE-002": [
        "tests/recovery/test_durable.py::test_cr_durable_002_killed_with_the_event_of_an_expired_commit_in_flight",
    ],
    "CR-DURABLE-003": [
        "tests/recovery/test_durable.py::test_cr_durable_003_a_restart_respects_the_time_a_429_gave",
    ],
    "CR-DURABLE-004": [
        "tests/recovery/test_durable.py::test_cr_durable_004_a_rotated_key_finds_the_records_of_its_tenant",
    ],
    "CR-DURABLE-005": [
        "tests/recovery/test_durable.py::test_cr_durable_005_broken_and_unknown_records_are_quarantined_and_the_others_replay",
    ],
    "CR-DURABLE-006": [
        "tests/recovery/test_durable.py::test_cr_durable_006_two_workers_replay_one_record_at_the_same_time",
    ],
    "CR-DURABLE-007": [
        "tests/recovery/test_durable.py::test_cr_durable_007_a_record_under_a_legacy_name_is_settled",
        "tests/recovery/test_durable.py::test_cr_durable_007_ids_that_look_alike_never_share_a_file",
        "tests/journal/test_records.py::test_ids_that_a_naive_name_would_confuse_have_distinct_names",
        "tests/journal/test_found.py::test_two_ids_with_one_legacy_name_both_come_through",
        "tests/journal/test_found.py::test_a_legacy_file_with_another_settlement_of_the_id_is_kept_aside",
    ],
    "CR-BOUNDARY-001": [
        "tests/recovery/test_core.py::test_cr_boundary_001_a_block_without_a_known_amount_commits_nothing",
        "tests/recovery/test_core.py::test_cr_boundary_001_a_process_killed_before_the_amount_is_known_commits_nothing",
    ],
}
"""The scenarios of the profile, each with the tests that confirm it, named from the root."""


class Results:
    """A pytest plugin: which tests ran, and whether each of them really passed."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        test = report.nodeid.split("[")[0]
        if report.when == "call" and report.outcome == "passed":
            self.passed.add(test)
        elif report.outcome != "passed":  # a skipped test confirms nothing
            self.failed.add(test)


def run(tests: list[str], root: Path = ROOT) -> bool:
    """True if every one of the tests, named from the root, ran and passed."""
    import pytest

    results = Results()
    status = pytest.main(["-q", "--rootdir", str(root), *(str(root / test) for test in tests)], plugins=[results])
    return status == 0 and not results.failed and results.passed == set(tests)


def main(arguments: list[str]) -> int:
    tests = SCENARIOS.get(arguments[0], []) if len(arguments) == 1 else []
    if not tests:
        print(f"usage: adapter.py SCENARIO_ID, one of {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    if not isinstance(json.loads(sys.stdin.read() or "null"), dict):
        print("standard input must hold a JSON object", file=sys.stderr)
        return 2
    # Only the response goes to standard output, not what the tests and their children print.
    answers = os.dup(1)
    os.dup2(2, 1)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    passed = run(tests)
    answer = {"scenario_id": arguments[0], "passed": passed, "native_tests": tests}
    os.write(answers, json.dumps(answer).encode() + b"\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
