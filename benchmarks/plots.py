"""Draw the plots of docs/performance.md from the figures of a run: `python -m benchmarks.plots figures.json docs`."""

from __future__ import annotations

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
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cycles"  # the same figures give the same file
    from matplotlib import pyplot

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
        axes[0].legend(fontsize=8)
        image.tight_layout()
        path = folder / f"performance-{name}.svg"
        image.savefig(path, metadata={"Date": None})
        written.append(path)
    return written


if __name__ == "__main__":
    for path in draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])):
        print(path)
