"""The plot of :mod:`benchmarks.bench_peers`: throughput by the number of workers."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.peer_cases import TITLES

_COLOURS = dict(zip(TITLES, ("C3", "C0", "C1", "C4", "C2", "0.4"), strict=True))
_STYLES = {"uint8": "-", "normalized": "--"}


def draw(results: dict[str, Any], path: Path) -> None:
    """Write a PNG with one line for each loader and kind of image, and its lowest and highest
    value.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rates = results["samples_per_second"]
    for contender, image in dict.fromkeys((one["contender"], one["image"]) for one in rates):
        line = [one for one in rates if (one["contender"], one["image"]) == (contender, image)]
        middle = [one["median"] for one in line]
        axes.errorbar(
            [one["workers"] for one in line],
            middle,
            yerr=[
                [one["median"] - one["low"] for one in line],
                [one["high"] - one["median"] for one in line],
            ],
            color=_COLOURS[contender],
            linestyle=_STYLES[image],
            marker="o",
            capsize=3,
            label=f"{TITLES[contender]}, {image}",
        )
    axes.set_xticks(sorted({one["workers"] for one in rates}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("workers (threads of ours and SPDL's, processes of the others)")
    axes.set_ylabel("samples per second")
    axes.set_title(
        f"ReFit's items from the same crops, {results['machine']['cores']} cores", fontsize=11
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
