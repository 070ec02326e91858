"""Draw the plots of docs/performance.md from the figures of a run: `python -m benchmarks.plots figures.json docs`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

NAMES = {
    "httpx posts": "two httpx posts",
    "guard": "Cycles SDK",
    "runcycles": "runcycles",
    "pooled": "Cycles SDK, pooled",
}
MARKS = {"httpx posts": "o--", "guard": "o-", "runcycles": "s-", "pooled": "^-"}


def points(results: dict[str, Any], kind: str, figure: str) -> dict[str, tuple[list[int], list[float]]]:
    """Return a figure of each case against the number of threads or tasks."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for title, series in results["series"].items():
        if title.split()[0] != kind:
            continue
        for name, case in series["cases"].items():
            if name in NAMES:
                xs, ys = found.setdefault(name, ([], []))
                xs.append(series["workers"])
                ys.append(case[figure])
    return found


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write one image for each figure; threads on the left, tasks on the right."""
    importlib.import_module("matplotlib").use("agg")  # only `make bench` installs it
    pyplot: Any = importlib.import_module("matplotlib.pyplot")

    written = []
    for figure, label, name in (("cpu_us", "CPU of one call, us", "cpu"), ("p50_us", "median latency, us", "latency")):
        image, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        for axis, kind, what in zip(axes, ("sync", "async"), ("threads", "tasks"), strict=True):
            for case, (xs, ys) in points(results, kind, figure).items():
                axis.plot(xs, ys, MARKS[case], label=NAMES[case])
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks([1, 16, 64], ["1", "16", "64"])
            axis.set_xlabel(f"{what} at the same time")
            axis.grid(alpha=0.3, which="both")
        axes[0].set_ylabel(label)
        image.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=len(NAMES), fontsize=9)
        image.tight_layout(rect=(0, 0, 1, 0.93))
        path = folder / f"performance-{name}.png"
        image.savefig(path, dpi=100, metadata={"Software": None})
        written.append(path)
    return written


if __name__ == "__main__":
    for path in draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])):
        print(path)
