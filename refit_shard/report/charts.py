"""Charts as SVG, drawn by Vega-Lite when the report is made, so the page needs no charting script.

Colours are CSS variables of the page, so charts follow its light or dark theme. Each bar's numbers
are in its ``aria-label``, which the page shows as a tooltip.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import vl_convert
from markupsafe import Markup
from numpy.typing import NDArray

from refit_shard.report.statistics import PLACE_EDGES, SMPL_JOINTS, Histogram

WIDTH, HEIGHT = 300, 170
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_CONFIG: Mapping[str, Any] = {
    "background": None,
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "gridColor": "var(--line)",
        "gridOpacity": 0.6,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "labelOverlap": True,
    },
    "legend": {"labelColor": "var(--ink)", "labelFontSize": 11, "symbolType": "square"},
}

Row = dict[str, Any]


def draw(spec: Mapping[str, Any]) -> Markup:
    """A Vega-Lite chart as an SVG element."""
    return Markup(vl_convert.vegalite_to_svg({**spec, "config": _CONFIG}))


def _by_kind(colours: dict[str, list[str]]) -> dict[str, Any]:
    """A colour channel by the field ``kind``, with a legend. ``colours``: domain and range."""
    legend = {"orient": "top", "title": None}
    return {"field": "kind", "type": "nominal", "scale": colours, "legend": legend}


def _axis(field: str, title: str | None = None, **more: Any) -> dict[str, Any]:
    """A quantitative channel; a layer without a title takes the title of the other layers."""
    named = {} if title is None else {"title": title}
    return {"field": field, "type": "quantitative", **named, **more}


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "0 %"


def _trimmed(histogram: Histogram, least: int = 8) -> slice:
    """The bins from the first to the last non-empty one, extended to at least ``least`` bins."""
    full = np.flatnonzero(histogram.counts)
    bins = histogram.counts.shape[-1]
    if not len(full):
        return slice(0, min(least, bins))
    begin, end = int(full[0]), int(full[-1]) + 1
    missing = max(0, least - (end - begin))
    begin = max(0, min(begin - missing // 2, bins - least))
    return slice(begin, max(end, begin + least))


def _bins(histogram: Histogram, part: slice, unit: str, **more: Any) -> list[Row]:
    """A chart row for each non-empty bin in a part of a histogram."""
    lows, highs = histogram.edges[:-1][part], histogram.edges[1:][part]
    return [
        {
            "low": low,
            "high": high,
            "n": n,
            "tip": f"{low:.4g} to {high:.4g} {unit}: {n:,} rows, {_share(n, histogram.total)}",
            **more,
        }
        for low, high, n in zip(
            lows.tolist(), highs.tolist(), histogram.counts[part].tolist(), strict=True
        )
        if n
    ]


def box_chart(box: Histogram, box_px: int) -> Markup:
    """Sides of the boxes, with a line at ``box_px``: larger boxes are stored scaled down."""
    found = _trimmed(box)
    stored = int(np.clip(np.searchsorted(box.edges, box_px), 1, len(box.counts) - 1))
    part = slice(min(found.start, stored - 1), max(found.stop, stored + 1))
    low, high = float(box.edges[part.start]), float(box.edges[part.stop])
    ticks = [float(2**power) for power in range(2, 15) if low <= 2**power <= high]
    scale = {"type": "log", "base": 2, "domain": [low, high], "nice": False}
    bars = {
        "data": {"values": _bins(box, part, "px")},
        "mark": {"type": "bar", "color": "var(--c1)", "binSpacing": 1},
        "encoding": {
            "x": _axis(
                "low", "side of the box, px", bin="binned", scale=scale, axis={"values": ticks}
            ),
            "x2": {"field": "high"},
            "y": _axis("n", "rows"),
            "description": {"field": "tip"},
        },
    }
    tip = f"crops of boxes larger than {box_px} px are stored scaled down"
    rule = {
        "data": {"values": [{"at": min(max(box_px, low), high), "tip": tip}]},
        "mark": {"type": "rule", "color": "var(--c2)", "strokeWidth": 2, "strokeDash": [4, 3]},
        "encoding": {"x": _axis("at"), "description": {"field": "tip"}},
    }
    return draw({"width": WIDTH, "height": HEIGHT, "layer": [bars, rule]})


def places_chart(places: NDArray[np.int64], joints: int) -> Markup:
    """Positions of visible joints in their frames, as shares of width and height."""
    low, high = float(PLACE_EDGES[0]), float(PLACE_EDGES[-1])
    picture = {
        "data": {"values": [{"x": low, "x2": high, "y": low, "y2": high}]},
        "mark": {"type": "image", "width": WIDTH, "height": WIDTH, "aspect": False},
        "encoding": {
            "x": {"value": WIDTH / 2},
            "y": {"value": WIDTH / 2},
            "url": {"value": _heat(places)},
            "description": {"value": f"{joints:,} visible joints"},
        },
    }
    frame: dict[str, Any] = {
        "data": {"values": [{"x": 0, "x2": 1, "y": 0, "y2": 1}]},
        "mark": {"type": "rect", "fill": None, "stroke": "var(--c2)", "strokeWidth": 1.5},
        "encoding": {
            "x": _axis("x", "share of the frame's width", scale={"domain": [low, high]}),
            "x2": {"field": "x2"},
            "y": _axis("y", "share of its height", scale={"domain": [high, low], "reverse": False}),
            "y2": {"field": "y2"},
        },
    }
    for axis in ("x", "y"):
        frame["encoding"][axis]["axis"] = {"values": [0, 0.5, 1], "format": "%", "grid": False}
    return draw({"width": WIDTH, "height": WIDTH, "layer": [picture, frame]})


def _heat(places: NDArray[np.int64]) -> str:
    """Counts as a data: URL of a PNG.

    It has one colour, whose opacity grows with the square root of the count, so it suits both
    themes.
    """
    share = np.sqrt(places / max(1, int(places.max())))
    pixels = np.empty((*places.shape, 4), np.uint8)
    pixels[..., :3] = (200, 120, 30)  # B, G, R
    pixels[..., 3] = np.round(255 * share)
    large = cv2.resize(pixels, (WIDTH, WIDTH), interpolation=cv2.INTER_LINEAR)
    data = cv2.imencode(".png", large, (cv2.IMWRITE_PNG_COMPRESSION, 9))[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _spread(
    names: Sequence[str],
    histogram: Histogram,
    unit: str,
    title: str,
    step: int,
    domain: Sequence[float] | None = None,
) -> Markup:
    """One line per name: 5 to 95 % thin, 25 to 75 % thick, the median as a tick."""
    rows = []
    for name, found in zip(names, histogram.quantiles(_SHARES).tolist(), strict=True):
        low, first, middle, third, high = found
        tip = (
            f"{name}: median {middle:.3g}{unit}, half of the rows {first:.3g} to {third:.3g}, "
            f"5 to 95 % {low:.3g} to {high:.3g}"
        )
        rows.append(
            {"name": name, "p5": low, "p25": first, "p50": middle, "p75": third, "p95": high}
            | {"tip": tip}
        )
    y = {"field": "name", "type": "nominal", "sort": None, "title": None}
    description = {"field": "tip"}
    scale = {} if domain is None else {"scale": {"domain": domain}}
    return draw(
        {
            "width": WIDTH - 40,
            "height": {"step": step},
            "data": {"values": rows},
            "layer": [
                {
                    "mark": {
                        "type": "bar",
                        "height": size,
                        "color": "var(--c1)",
                        "opacity": opacity,
                    },
                    "encoding": {
                        "y": y,
                        "x": _axis(low, title, **scale),
                        "x2": {"field": high},
                        "description": description,
                    },
                }
                for size, opacity, low, high in ((3, 0.55, "p5", "p95"), (9, 0.9, "p25", "p75"))
            ]
            + [
                {
                    "mark": {"type": "tick", "color": "var(--c2)", "thickness": 3, "height": 13},
                    "encoding": {"y": y, "x": _axis("p50"), "description": description},
                }
            ],
        }
    )


def pose_chart(angles: Histogram) -> Markup:
    """Angles of SMPL's joint rotations, one line per joint."""
    return _spread(SMPL_JOINTS, angles, "°", "angle of the rotation, degrees", 15, [0, 180])


def shape_chart(shape: Histogram) -> Markup:
    """SMPL's betas, one line each."""
    names = [f"beta {number}" for number in range(1, len(shape.counts) + 1)]
    return _spread(names, shape, "", "standard deviations of SMPL's shape space", 30)


def view_chart(known: Histogram, guessed: Histogram) -> Markup:
    """Horizontal fields of view, bars of known and of guessed cameras stacked."""
    both = Histogram(edges=known.edges, counts=known.counts + guessed.counts)
    part = _trimmed(both, 16)
    rows = []
    for kind, one in (("from the source", known), ("guessed", guessed)):
        rows += _bins(one, part, f"degrees, {kind}", kind=kind)
    colours = {"domain": ["from the source", "guessed"], "range": ["var(--c1)", "var(--c4)"]}
    return draw(
        {
            "width": WIDTH,
            "height": HEIGHT - 24,
            "data": {"values": rows},
            "mark": {"type": "bar", "binSpacing": 1},
            "encoding": {
                "x": _axis(
                    "low", "horizontal field of view, degrees", bin={"binned": True, "step": 2}
                ),
                "x2": {"field": "high"},
                "y": _axis("n", "rows", stack="zero"),
                "color": _by_kind(colours),
                "description": {"field": "tip"},
            },
        }
    )


def parts_chart(parts: Sequence[tuple[str, Sequence[tuple[str, int]]]]) -> Markup:
    """Shares of the rows: one stacked bar per name, its parts in the order of the colours."""
    rows: list[Row] = []
    for name, counts in parts:
        total, begin = sum(n for _, n in counts), 0.0
        for order, (part, n) in enumerate(counts):
            tip = f"{name}: {part}, {n:,} rows, {_share(n, total)}"
            share = n / total if total else 0.0
            place = {"begin": begin, "end": begin + share}
            rows.append({"name": name, "colour": order, "part": part, "tip": tip} | place)
            begin += share
    colours = {"domain": [0, 1, 2], "range": ["var(--c1)", "var(--c3)", "var(--c4)"]}
    bars = {
        "mark": {"type": "bar", "height": 18},
        "encoding": {
            "x": _axis(
                "begin", "share of the rows", axis={"format": "%"}, scale={"domain": [0, 1]}
            ),
            "x2": {"field": "end"},
            "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
            "color": {"field": "colour", "type": "nominal", "scale": colours, "legend": None},
            "description": {"field": "tip"},
        },
    }
    wide = [row for row in rows if row["end"] - row["begin"] > 0.14]
    names = {
        "data": {"values": wide},
        "transform": [{"calculate": "(datum.begin + datum.end) / 2", "as": "middle"}],
        "mark": {"type": "text", "color": "var(--on)", "fontSize": 11},
        "encoding": {
            "x": _axis("middle"),
            "y": {"field": "name", "type": "nominal", "sort": None},
            "text": {"field": "part"},
        },
    }
    return draw(
        {
            "width": WIDTH - 40,
            "height": {"step": 30},
            "data": {"values": [row for row in rows if row["end"] > row["begin"]]},
            "layer": [bars, names],
        }
    )


def mix_chart(names: Sequence[str], rows: Sequence[int], drawn: Sequence[int]) -> Markup:
    """Each dataset's share of all rows beside its share of the stream."""
    kinds = {"of all rows": rows, "of the stream": drawn}
    values = [
        {
            "name": name,
            "kind": kind,
            "share": n / max(1, sum(counts)),
            "tip": f"{name}: {n:,} {kind}, {_share(n, sum(counts))}",
        }
        for kind, counts in kinds.items()
        for name, n in zip(names, counts, strict=True)
    ]
    colours = {"domain": list(kinds), "range": ["var(--c4)", "var(--c1)"]}
    return draw(
        {
            "width": 760,
            "height": {"step": 17},
            "data": {"values": values},
            "mark": {"type": "bar"},
            "encoding": {
                "y": {"field": "name", "type": "nominal", "sort": None, "title": None},
                "yOffset": {"field": "kind", "sort": list(kinds)},
                "x": _axis("share", "share", axis={"format": "%"}),
                "color": _by_kind(colours),
                "description": {"field": "tip"},
            },
        }
    )
