"""The report: tables of figures, the limits, and how noisy the machine was."""

from __future__ import annotations

from typing import Any

from benchmarks.bars import BARS
from benchmarks.measure import Series

AGAIN = "httpx posts again"
"""The reference, measured twice: the difference between the two is noise."""


def as_values(series: Series, reference: str) -> dict[str, Any]:
    """Return a series as JSON values."""
    cases = {
        name: {
            "cpu_us": series.cpu_us(name),
            "cpu_s_per_1000": series.cpu_us(name) / 1000,
            "per_second": series.per_second(name),
            "p50_us": series.latency_us(name, 50),
            "p99_us": series.latency_us(name, 99),
            "failed": series.failed(name),
        }
        for name in series.samples
    }
    against = [reference, "guard, no journal", "runcycles", "httpx pool"]
    ratios = {
        f"{name} / {to}": ratio._asdict()
        for name in series.samples
        for to in against
        if name != to and (ratio := series.ratio(name, to)) is not None
    }
    return {"workers": series.workers, "reference": reference, "cases": cases, "ratios": ratios}


def text(results: dict[str, Any]) -> str:
    """Return the whole report, as Markdown that is readable in a terminal."""
    parts = [_machine(results)]
    parts += [_series(title, values) for title, values in results.get("series", {}).items()]
    parts += [table(title, results[key]) for key, title in _TABLES.items() if key in results]
    parts += [f"- {note}" for note in results["notes"]]
    parts.append(_bars(results))
    return "\n\n".join(parts) + "\n"


_TABLES = {
    "decorator": "The decorator, in process and without I/O",
    "pools": "Pools",
    "far": "A server 5 ms away",
    "tasks": "Tasks at the same time on one client, a server 20 ms away, 50 ms of work in each guard",
    "imports": "Import",
    "live": "Live guards",
    "providers": "A guarded OpenAI client, beside the SDK without a guard (CPU of the client process)",
    "proxy": "The proxy of cycles run, beside a plain pass-through (CPU of its process)",
    "leases": "Concurrent leases, one heartbeat each 10 s",
    "chaos": "A minute of faults (503, 429, closed connections, slow responses: one extend in four)",
    "embedded": "Embedded server: response time and size",
    "backlog": "Starting on a journal of unfinished settlements",
}


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    noise = [
        f"{title}: {_ratio(values, AGAIN, values['reference'])}"
        for title, values in results.get("series", {}).items()
        if AGAIN in values["cases"]
    ]
    lines = [
        f"{machine['date']}, {machine['what']}, {machine['processor']}, Python {machine['python']},"
        f" {machine['cpus']} CPUs, median of {machine['rounds']} rounds,"
        f" load {machine['load_before']:.1f} before and {machine['load_after']:.1f} after.",
        "The same posts measured twice differ by this much, so smaller differences are not findings: "
        + (", ".join(noise) or "not measured")
        + ".",
    ]
    return "\n".join(lines)


def _series(title: str, values: dict[str, Any]) -> str:
    reference = values["reference"]
    rows = [
        [
            name,
            f"{case['cpu_us']:.0f}",
            _ratio(values, name, reference),
            f"{case['p50_us']:.0f}",
            f"{case['p99_us']:.0f}",
            f"{case['per_second']:.0f}",
        ]
        for name, case in values["cases"].items()
    ]
    head = ["case", "CPU us", f"/ {reference}", "p50 us", "p99 us", "calls/s"]
    kind, workers = title.split()
    failed = [f"{name}: {case['failed']} calls failed." for name, case in values["cases"].items() if case["failed"]]
    what = {"sync": "thread", "async": "task"}[kind] + ("s" if workers != "1" else "")
    return f"### {kind}, {workers} {what}\n\n" + _markdown(head, rows) + "".join(f"\n\n{each}" for each in failed)


def _ratio(values: dict[str, Any], name: str, reference: str) -> str:
    ratio = values["ratios"].get(f"{name} / {reference}")
    return "1" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def table(title: str, rows: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(rows.values())))
    body = [[label, *(_figure(row.get(name)) for name in names)] for label, row in rows.items()]
    return f"### {title}\n\n" + _markdown(["", *(name.replace("_", " ") for name in names)], body)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return "-" if value is None else str(value)


def _bars(results: dict[str, Any]) -> str:
    rows = []
    for bar in BARS:
        try:
            figure = bar.figure(results)
        except (KeyError, TypeError):
            rows.append([bar.what, f"{'>=' if bar.at_least else '<='} {bar.limit:g}", "not measured", ""])
            continue
        rows.append(
            [
                bar.what,
                f"{'>=' if bar.at_least else '<='} {bar.limit:g}",
                _figure(figure),
                "holds" if bar.holds(figure) else "MISSED",
            ]
        )
    return "### Bars\n\n" + _markdown(["measure", "bar", "here", ""], rows)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def row(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([row(head), rule, *(row(cells) for cells in rows)])
