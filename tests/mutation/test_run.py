"""`make mutate` on a small project: what it finds, what it reports, and that it leaves the working tree as it was."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutation import coverage_map, random_order, run, uses
from tests.mutation.coverage_map import MOST_TESTS, CoverageMap, joined, load, path_of_this_state
from tests.mutation.mutants import Mutant, mutants_of, unchecked_mutants
from tests.mutation.plugin import MAP_FOLDER
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
CODE = """def price(count):
    if count > 10:
        return 7
    return count


def never_tested():
    return 5
"""
TESTS = """from cycles._core.price import price


def test_few():
    assert price(2) == 2


def test_that_fails_anyway():
    raise AssertionError(price(20))


def test_that_hangs_with_a_fault():
    while price(20) != 7:
        pass
"""
LINES = {"cycles/_core/price.py": {"2": [1, 0], "3": [1, 2], "4": [0]}}
IDS = [f"tests/test_price.py::test_{name}" for name in ("few", "that_fails_anyway", "that_hangs_with_a_fault")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one module, whose map of lines is known."""
    folder = tmp_path / "project"
    (folder / "cycles" / "_core").mkdir(parents=True)
    (folder / "tests").mkdir()
    shutil.copytree(ROOT / "tests" / "mutation", folder / "tests" / "mutation", ignore=shutil.ignore_patterns("test_*"))
    for package in ("cycles", "cycles/_core", "tests"):
        (folder / package / "__init__.py").touch()
    (folder / "cycles" / "_core" / "price.py").write_text(CODE)
    (folder / "tests" / "test_price.py").write_text(TESTS)
    (folder / ".gitignore").write_text("__pycache__/\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    commit(folder)
    CoverageMap(IDS, [0.01] * 3, LINES).save(tmp_path / "map.json.gz")
    return folder


def commit(folder: Path) -> None:
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    user = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *user, "commit", "-q", "-m", "change"], cwd=folder, check=True)


def command(project: Path, *arguments: str) -> list[str]:
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    limits = "run.START_S = 5.0; copies.HANGS_S = 2"
    code = f"{start}from tests.mutation import copies, run; {limits}; raise SystemExit(run.main())"
    return [sys.executable, "-c", code, "--map", str(project.parent / "map.json.gz"), *arguments]


def environment(project: Path) -> dict[str, str]:
    temporary = project.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    # The plugin of the real package is not in this one.
    return os.environ | {"PYTHONPATH": str(project), "TMPDIR": str(temporary), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def mutate(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, *arguments), cwd=project, env=environment(project), capture_output=True, text=True, check=False
    )


def is_untouched(project: Path) -> bool:
    status = subprocess.check_output(["git", "status", "--porcelain"], cwd=project, text=True)
    return status == "" and list((project.parent / "temporary").iterdir()) == []


def number_of(old: str, new: str) -> int:
    """Return a number that draws this fault."""
    every = mutants_of("cycles/_core/price.py", CODE)
    (position,) = [place for place, mutant in enumerate(every) if mutant.change == (old, new)]
    return next(n for n in range(1000) if random.Random(n).choice(range(len(every))) == position)


SERVERS = """import contextlib


def are_installed():
    return {installed}


@contextlib.contextmanager
def running():
    yield {{"PRICE_SERVER": "there"}}
"""


@pytest.mark.parametrize(
    ("installed", "said"),
    [(True, "found by tests/test_server.py::test_server"), (False, "PgBouncer or their packages")],
)
def test_a_fault_that_only_a_test_with_a_server_finds(project: Path, installed: bool, said: str) -> None:
    (project / "tests" / "stores").mkdir()
    (project / "tests" / "stores" / "servers.py").write_text(SERVERS.format(installed=installed))
    test = "import os\nfrom cycles._core.price import price\ndef test_server():\n    assert price(20) == 7"
    (project / "tests" / "test_server.py").write_text(f"{test} or 'PRICE_SERVER' not in os.environ\n")
    commit(project)
    lines = {"cycles/_core/price.py": {"3": [0]}}
    CoverageMap(["tests/test_server.py::test_server"], [0.01], lines).save(project.parent / "map.json.gz")
    ran = mutate(project, "--stores", "--sample", "1", "--first", str(number_of("return 7", "return 8")))
    assert said in ran.stdout, ran
    assert ("survived" in ran.stdout) == (not installed)


def test_a_fault_that_a_test_finds(project: Path) -> None:
    number = number_of("return 7", "return 8")
    ran = mutate(project, "--sample", "1", "--first", str(number))
    assert "found by no end within" in ran.stdout, ran
    assert "together          1     1  100.0%  90%" in ran.stdout
    assert ran.returncode == 0
    assert is_untouched(project)


def test_a_test_that_a_fault_makes_hang_fails_before_the_others_have_had_their_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p pytest_timeout")
    CoverageMap(IDS, [0.01, 0.01, 14.0], LINES).save(project.parent / "map.json.gz")
    ran = mutate(project, "--sample", "1", "--first", str(number_of("return 7", "return 8")))
    assert f"found by {IDS[2]}" in ran.stdout, ran


def test_a_fault_of_the_engine_that_only_the_simulation_finds(project: Path) -> None:
    """Its runs are processes of their own, so the map does not know which lines they run."""
    (project / "tests" / "simulation").mkdir()
    test = "from cycles._core.price import price\ndef test_seeds():\n    assert price(20) == 7\n"
    (project / "tests" / "simulation" / "test_simulation.py").write_text(test)
    commit(project)
    seeds = "tests/simulation/test_simulation.py::test_seeds"
    lines = {"cycles/_core/price.py": {"3": [0]}}
    CoverageMap([IDS[0], seeds], [0.01, 1.0], lines).save(project.parent / "map.json.gz")
    ran = mutate(project, "--sample", "1", "--first", str(number_of("return 7", "return 8")))
    assert f"found by {seeds}" in ran.stdout, ran


def test_the_tests_of_a_fault_are_in_no_map(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of this tool run under it, and their small projects must not become a part of the map."""
    (notes := tmp_path / "notes").mkdir()
    monkeypatch.setenv(MAP_FOLDER, str(notes))
    mutate(project, "--sample", "1", "--first", str(number_of("if count > 10:", "if count >= 10:")), "_core/price.py")
    assert list(notes.iterdir()) == []


def test_a_fault_that_ends_pytest_itself_is_found(project: Path) -> None:
    """Exit code 3, an internal error: a late interrupt of its thread, for example."""
    few = "import os\n\nfrom cycles._core.price import price\n\n\ndef test_few():\n    price(11) == 7 or os._exit(3)\n"
    (project / "tests" / "test_price.py").write_text(few)
    seconds = [15.0]  # so that a busy machine has a minute to start pytest
    CoverageMap(IDS[:1], seconds, {"cycles/_core/price.py": {"3": [0]}}).save(project.parent / "map.json.gz")
    commit(project)
    ran = mutate(project, "--sample", "1", "--first", str(number_of("return 7", "return 8")))
    assert "found by pytest exit code 3" in ran.stdout, ran
    assert is_untouched(project)


def test_a_fault_that_survives_is_shown_as_a_diff(project: Path) -> None:
    number = number_of("if count > 10:", "if count >= 10:")
    ran = mutate(project, "--sample", "1", "--first", str(number), "_core/price.py")
    assert f"{number}: comparison, survived 2 tests" in ran.stdout, ran  # the one that fails anyway finds nothing
    assert "-    if count > 10:\n+    if count >= 10:" in ran.stdout
    assert ran.returncode == 1
    assert is_untouched(project)


def test_a_line_that_no_test_runs_is_a_survivor(project: Path) -> None:
    number = number_of("return 5", "return 6")
    ran = mutate(project, "--sample", "1", "--first", str(number), "--changed", "1")
    assert f"{number}: constant, no test runs this line" in ran.stdout, ran
    assert ran.returncode == 0  # only what changed lately: for information


def test_a_fault_without_effect_is_not_drawn(project: Path) -> None:
    every = mutants_of("cycles/_core/price.py", CODE)
    lines = ["\t".join([mutant.path, *mutant.change, "a reason"]) for mutant in every]
    (project / "tests" / "mutation" / "no_effect.txt").write_text("# a comment\n" + "\n".join(lines) + "\n")
    commit(project)
    assert mutate(project).stdout == "mutate: there is nothing to change in these files\n"


def test_each_listed_fault_is_one_that_its_file_can_have() -> None:
    listed = run.without_effect()
    drawn = {(each.path, *each.change) for path in {path for path, _, _ in listed} for each in _faults_of(path)}
    gone = sorted(listed - drawn)
    assert not gone, f"{run.NO_EFFECT.name} lists faults that no longer exist, remove their lines: {gone}"


def _faults_of(path: str) -> list[Mutant]:
    source = run.ROOT / path
    return unchecked_mutants(path, source.read_text("utf-8")) if source.exists() else []


def test_a_changed_working_tree_is_rejected(project: Path) -> None:
    (project / "new.txt").touch()
    ran = mutate(project, "--sample", "1")
    assert (ran.returncode, ran.stdout) == (2, "mutate: the working tree has changes, commit them first:\n?? new.txt\n")


@pytest.mark.parametrize("module", ["nonsense", "_core/nonsense.py", "../tests", "cli"])
def test_a_module_that_does_not_exist_names_the_packages(project: Path, module: str) -> None:
    ran = mutate(project, module)
    assert ran.returncode == 2
    assert ran.stdout.startswith(f"mutate: there is no module {module!r}; choose from: _core, or files in them")


@pytest.mark.skipif(sys.platform == "win32", reason="has no process groups")
def test_an_interrupted_run_leaves_nothing(project: Path) -> None:
    number = number_of("return 7", "return 8")
    arguments = command(project, "--sample", "1", "--first", str(number))
    with subprocess.Popen(arguments, cwd=project, env=environment(project), stderr=subprocess.DEVNULL) as process:
        temporary = project.parent / "temporary"
        until(lambda: any("return 8" in each.read_text() for each in temporary.rglob("project/cycles/_core/price.py")))
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode != 0
    assert is_untouched(project)


def test_the_packages_are_those_of_the_engine_and_two_more() -> None:
    engine = {"_core", "_flows", "_drivers", "_journal", "_client", "_http", "_wire"}
    assert engine | {"providers", "embedded"} <= set(run.packages())


def test_a_number_draws_the_same_fault_again() -> None:
    paths = run.sources(["_http/exchange.py"])
    assert run.drawn(paths, 40, 20) == run.drawn(paths, 40, 20)
    assert run.drawn(paths, 45, 1) == run.drawn(paths, 40, 20)[5:6]
    assert run.drawn(paths, 40, 20) != run.drawn(paths, 60, 20)


def test_the_list_of_faults_without_effect_can_be_read() -> None:
    assert all((ROOT / path).exists() for path, _, _ in run.without_effect())


def test_the_best_tests_of_a_line_are_those_that_run_little_else(tmp_path: Path) -> None:
    lines = {str(number): [0, 1] for number in range(1, 40)} | {"50": [0, 1, 2]}
    note = {
        "tests": ["wide", "slow", "narrow"],
        "seconds": [0.01, 5.0, 0.01],
        "files": {"cycles/_core/price.py": lines},
    }
    known = joined([note])
    mutant = mutants_of("cycles/_core/price.py", "def f():\n    a = 1\n")[0]
    assert known.tests_of(mutant._replace(first=50, last=50)) == ["narrow", "wide", "slow"]
    assert known.tests_of(mutant._replace(first=60, last=60, statement=(50, 60))) == ["narrow", "wide", "slow"]
    assert known.tests_of(mutant._replace(first=60, last=60, statement=(60, 61))) == []
    assert set(known.tests_of(mutant._replace(first=60, last=60, in_function=False))) == {"narrow", "wide", "slow"}
    joined([note, note]).save(tmp_path / "map")  # a child of a worker has written the same tests
    assert set(load(tmp_path / "map").tests_of(mutant._replace(first=50, last=50))) == {"narrow", "wide", "slow"}


def test_a_line_keeps_few_cases_of_a_test_and_prefers_tests_that_run_rare_lines_near_it() -> None:
    many = MOST_TESTS + 100
    ids = [f"tests/test_a.py::test_many[{number}]" for number in range(many)] + ["tests/test_b.py::test_rare"]
    seconds = [0.01] * many + [2.0]
    files = {"cycles/_core/price.py": {"2": list(range(many + 1)), "3": [many]}}
    mutant = mutants_of("cycles/_core/price.py", "def f():\n    if a:\n        b = c\n")[0]
    assert mutant.first == 2
    found = joined([{"tests": ids, "seconds": seconds, "files": files}]).tests_of(mutant)
    assert found == ["tests/test_b.py::test_rare", *ids[: MOST_TESTS - 1]]  # a line may be the only one of its case
    others = [f"tests/test_c.py::test_{number}" for number in range(MOST_TESTS)]
    every = range(2 * MOST_TESTS)
    note = {
        "tests": [*ids[:MOST_TESTS], *others],
        "seconds": [0.01 for _ in every],
        "files": {mutant.path: {"2": list(every)}},
    }
    found = joined([note]).tests_of(mutant)
    assert found == [*ids[:2], *others[:-2]]


def test_all_cases_of_a_test_run_after_those_that_a_line_keeps() -> None:
    tests = [f"tests/test_a.py::test_{name}" for name in ("of[1]", "of[2]", "of[3]", "offer[1]", "one")]
    known = CoverageMap(tests, [0.01] * len(tests), {})
    assert known.other_cases([tests[4], tests[1]]) == [tests[0], tests[2]]
    assert known.other_cases([]) == []


def test_a_fault_that_only_another_case_finds(project: Path) -> None:
    test = "import pytest\nfrom cycles._core.price import price\n\n\n@pytest.mark.parametrize('count', [20, 10])\n"
    test += "def test_price(count):\n    assert price(count) == (7 if count > 10 else count)\n"
    (project / "tests" / "test_price.py").write_text(test)
    commit(project)
    cases = [f"tests/test_price.py::test_price[{count}]" for count in (20, 10)]
    CoverageMap(cases, [0.01] * 2, {"cycles/_core/price.py": {"2": [0]}}).save(project.parent / "map.json.gz")
    ran = mutate(project, "--sample", "1", "--first", str(number_of("if count > 10:", "if count >= 10:")))
    assert f"found by {cases[1]}" in ran.stdout, ran


@pytest.mark.parametrize(
    ("expected", "said"), [("7", "found by tests/test_price.py::test_price[8]"), ("few", "survived")]
)
def test_a_fault_that_changes_the_ids_of_cases_is_found_by_their_assertions_only(
    project: Path, expected: str, said: str
) -> None:
    test = "import pytest\nfrom cycles._core.price import price\n\nfew = price(11)\n\n\n"
    test += "@pytest.mark.parametrize('value', [few])\n"
    (project / "tests" / "test_price.py").write_text(f"{test}def test_price(value):\n    assert value == {expected}\n")
    commit(project)
    seconds = [15.0]  # so that a busy machine has a minute to start pytest
    known = CoverageMap(["tests/test_price.py::test_price[7]"], seconds, {"cycles/_core/price.py": {"3": [0]}})
    known.save(project.parent / "map.json.gz")
    ran = mutate(project, "--sample", "1", "--first", str(number_of("return 7", "return 8")))
    assert said in ran.stdout, ran
    assert is_untouched(project)


def test_the_tests_of_a_line_are_of_all_files() -> None:
    quick = [f"tests/test_a.py::test_{number}" for number in range(2 * MOST_TESTS)]
    tests = [*quick, "tests/test_b.py::test_slow", "tests/test_c.py::test_slow"]
    mutant = mutants_of("cycles/_core/price.py", "def f():\n    a = 1\n")[0]
    note = {
        "tests": tests,
        "seconds": [0.01 for _ in quick] + [1.0, 1.0],
        "files": {mutant.path: {"2": list(range(len(tests)))}},
    }
    assert set(tests[-2:]) < set(joined([note]).tests_of(mutant))


def test_the_tests_of_a_rare_line_near_it_run_also_if_the_line_itself_has_too_many() -> None:
    quick = [f"tests/test_a.py::test_{number}" for number in range(2 * MOST_TESTS)]
    tests = [*quick, "tests/test_a.py::test_slow"]
    mutant = mutants_of("cycles/_core/price.py", "def f():\n    a = 1\n")[0]
    note = {
        "tests": tests,
        "seconds": [0.01 for _ in quick] + [1.0],
        "files": {mutant.path: {"2": list(range(len(tests))), "4": [len(tests) - 1]}},
    }
    assert joined([note]).tests_of(mutant)[0] == tests[-1]


def test_the_tests_of_a_module_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("import cycles\n")
    (tmp_path / "tests" / "test_b.py").write_text("from cycles._core.price import price\n")
    monkeypatch.setattr(coverage_map, "ROOT", tmp_path)
    tests = ["tests/test_a.py::test_quick", "tests/test_b.py::test_slow"]
    mutant = mutants_of("cycles/_core/price.py", "def f():\n    a = 1\n")[0]
    known = joined([{"tests": tests, "seconds": [0.01, 1.0], "files": {mutant.path: {"2": [0, 1]}}}])
    assert known.tests_of(mutant) == tests[::-1]


def test_the_tests_of_a_module_stay_in_the_map_of_a_line_that_many_files_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_own.py").write_text("from cycles._core.price import price\n")
    monkeypatch.setattr(coverage_map, "ROOT", tmp_path)
    own = ["tests/test_own.py::test_slow", *(f"tests/test_own.py::test_wide[{n}]" for n in range(2))]
    tests = [*(f"tests/test_{number}.py::test_quick" for number in range(2 * MOST_TESTS)), *own]
    mutant = mutants_of("cycles/_core/price.py", "def f():\n    a = 1\n")[0]
    seconds = [0.01 for _ in tests[:-3]] + [1.0] * 3
    note = {"tests": tests, "seconds": seconds, "files": {mutant.path: {"2": list(range(len(tests)))}}}
    assert joined([note]).tests_of(mutant) == [*own, *tests[: MOST_TESTS - 3]]


def test_a_fault_in_a_table_is_found_by_the_tests_that_compare_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tests").mkdir()
    for name, text in (
        ("kit.py", "from cycles._core import amounts, price\n"),
        ("test_page.py", "from tests.kit import price\n"),
        ("test_price.py", "from cycles._core.price import TABLE\n"),
        ("test_other.py", "from cycles._core.prices import TABLE\n"),
    ):
        (tmp_path / "tests" / name).write_text(text)
    monkeypatch.setattr(coverage_map, "ROOT", tmp_path)
    tests = [f"tests/test_{name}.py::test_table" for name in ("other", "page", "price")]
    known = CoverageMap(tests, [0.1] * 3, {})
    assert known.tests_of(mutants_of("cycles/_core/price.py", "TABLE = {1: 2}\n")[0]) == tests[1:]


def test_a_test_with_many_cases_does_not_keep_those_that_compare_a_table_from_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_price.py").write_text("from cycles._core.price import TABLE\n")
    monkeypatch.setattr(coverage_map, "ROOT", tmp_path)
    cases = [f"tests/test_price.py::test_row[{number}]" for number in range(MOST_TESTS)]
    known = CoverageMap([*cases, "tests/test_price.py::test_page"], [0.1] * MOST_TESTS + [0.2], {})
    found = known.tests_of(mutants_of("cycles/_core/price.py", "TABLE = {1: 2}\n")[0])
    assert found[:4] == [*cases[:2], "tests/test_price.py::test_page", cases[2]]


def test_a_fault_in_a_table_is_found_by_the_tests_that_run_its_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = "LIMIT = 7\nTABLE = {1: LIMIT}\n\n\ndef f(key, other=8):\n    return (\n        TABLE[key])\n"
    other = (
        "from cycles._core.price import TABLE\nclass A:\n    def g(self):\n        if TABLE:\n            return 3\n"
    )
    folder = tmp_path / "cycles" / "_core"
    folder.mkdir(parents=True)
    for name, text in (("price", table), ("b", other), ("c", "def g():\n    TABLE\n")):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(uses, "ROOT", tmp_path)
    tests = ["tests/test_a.py::test_uses", "tests/test_a.py::test_uses_elsewhere", "tests/test_a.py::test_imports"]
    lines = {"cycles/_core/price.py": {"7": [0], "1": [2]}, "cycles/_core/b.py": {"4": [1]}}
    known = CoverageMap(tests, [0.1] * 3, lines)
    constant, *_, default = mutants_of("cycles/_core/price.py", table)
    assert set(known.tests_of(constant)) == set(tests[:2])
    assert known.tests_of(default) == tests[:1]
    unused = mutants_of("cycles/_core/price.py", "A = 1\n")[0]
    assert set(known.tests_of(unused)) == {tests[0], tests[2]}


def test_a_fault_in_a_function_that_makes_the_rows_of_a_table_is_found_by_the_tests_that_run_the_uses_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "def _row(a):\n    return a + 1\n\n\nTABLE = (_row(1),)\n\n\ndef first():\n    return TABLE[0]\n"
    path = "cycles/_core/price.py"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(code)
    monkeypatch.setattr(coverage_map, "ROOT", tmp_path)
    monkeypatch.setattr(uses, "ROOT", tmp_path)
    mutant = next(each for each in mutants_of(path, code) if each.first == 2)
    known = joined([{"tests": ["tests/test_price.py::test_first"], "seconds": [0.01], "files": {path: {"9": [0]}}}])
    monkeypatch.setattr(coverage_map, "AROUND", 5)  # in a longer file, the uses are not near
    assert known.tests_of(mutant) == []
    assert known.tests_near(mutant) == ["tests/test_price.py::test_first"]


def test_the_share_of_a_package_below_its_bar_fails() -> None:
    mutant = mutants_of("cycles/_core/price.py", "a = 1")[0]
    found = [run.Result(number, mutant, "a test", 1) for number in range(27)]
    survived = [run.Result(number, mutant, None, 1) for number in range(3)]
    assert run.report(found + survived)[1]
    text, is_kept = run.report(found[:-1] + survived)
    assert not is_kept
    assert "_core            26    29   89.7%  90%" in text


class Item:
    """A test of pytest, of which only the id counts."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


def test_a_random_order_keeps_the_tests_of_a_file_together_and_repeats() -> None:
    def order(seed: int) -> list[str]:
        items: list[Any] = [Item(f"tests/test_{file}.py::test_{number}") for file in "abc" for number in range(5)]
        random_order.shuffle(items, seed)
        return [item.nodeid for item in items]

    assert order(3) == order(3)
    assert len({tuple(order(seed)) for seed in range(5)}) == 5
    files = [nodeid.partition("::")[0] for nodeid in order(3)]
    assert len([file for file, _ in itertools.groupby(files)]) == 3
    assert sorted(order(3)) == sorted(order(4))


def test_a_slow_test_does_not_keep_quick_ones_from_running() -> None:
    half = run.TESTS_S / 2
    seconds = {"slow": 100.0, "quick": 1.0, "half": half, "other half": half}
    assert run.affordable(seconds, seconds) == ["quick", "half"]
    assert run.affordable(["half", "other half"], seconds) == ["half", "other half"]


def test_a_fault_that_is_listed_changes_no_other_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = [run.ROOT / "cycles/_core/lease/arithmetic.py"]
    before = dict(run.drawn(paths, 0, 30))
    listed = before[7]
    (tmp_path / "no_effect.txt").write_text("\t".join((listed.path, *listed.change, "for this test")))
    monkeypatch.setattr(run, "NO_EFFECT", tmp_path / "no_effect.txt")
    after = dict(run.drawn(paths, 0, 30))
    changed = [number for number in before if before[number] != after[number]]
    assert changed == [number for number in before if before[number].change == listed.change]
    assert 7 in changed


def test_the_map_of_changed_files_is_another_one() -> None:
    whole, part = path_of_this_state(), path_of_this_state(20)
    assert part.name == whole.name.replace(".json.gz", "-changed-20.json.gz")
