"""The plot of :mod:`benchmarks.soak`: every sampled quantity over time."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw(samples: dict[str, list[float]], path: Path) -> None:
    """Write a PNG with one panel for each quantity."""
    lines = [name for name in samples if name != "seconds"]
    figure = Figure(figsize=(8, 2 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(lines), sharex=True)
    for axes, name in zip(panels, lines, strict=True):
        axes.plot([second / 60 for second in samples["seconds"]], samples[name])
        axes.set_ylim(bottom=0)
        axes.set_ylabel(name.replace("_", " "))
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("minutes")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
