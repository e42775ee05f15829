"""The page of a report: one HTML file that loads nothing else.

Names in the data may be hostile text: the template escapes all of them, and a content security
policy lets the browser run only the page's own script, identified by its hash, and load nothing.
"""

import base64
import hashlib
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refit_shard import __version__
from refit_shard.console import human_bytes
from refit_shard.loaders.items.policy import AugmentationPolicy
from refit_shard.report import charts
from refit_shard.report.facts import Facts, Mix, SetFacts
from refit_shard.report.pictures import Reason, SheetRow
from refit_shard.shards_spec.joints import JOINTS, OPENPOSE

_HERE = "refit_shard.report"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of a page.

    Attributes:
        title: the page's title.
        facts: statistics and duplicates.
        quarantine: quarantined rows of each dataset, by reason.
        sheet: samples before and after augmentation.
        policy: the augmentation policy of the sheet.
        policy_of: whose policy it is: a config's file name, or ReFit.
        occluders: the number of cut-outs.
        where: the condition that chose the rows; empty for all rows.
        mix: the mix of an epoch; None without a training config.
    """

    title: str
    facts: Facts
    quarantine: tuple[tuple[Reason, ...], ...]
    sheet: tuple[SheetRow, ...]
    policy: AugmentationPolicy
    policy_of: str
    occluders: int
    where: str = ""
    mix: Mix | None = None


def _text(name: str) -> str:
    return resources.files(_HERE).joinpath(name).read_text("utf-8")


def share(part: float, whole: float) -> str:
    """A part of a whole as a text in per cent."""
    if not whole or not part:
        return "–" if not whole else "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if percent < 99.95 or part == whole else "> 99.9 %"


def whole(count: float) -> str:
    """A number rounded, with commas between thousands; a dash for NaN."""
    return "–" if np.isnan(count) else f"{count:,.0f}"


def _charts(one: SetFacts) -> list[dict[str, Any]]:
    """The charts of a dataset, each with its title and a text that explains it."""
    found, box_px = one.statistics, one.data_set.manifest.box_px
    with_smpl = f"of the {found.smpl:,} rows with SMPL parameters"
    parts = [
        ("SMPL", _known(found.smpl, found.rows)),
        ("3D joints", _known(found.pose_3d, found.rows)),
        ("camera", _known(found.camera, found.rows)),
        ("gender", list(zip(("male", "female", "unknown"), found.gender, strict=True))),
    ]
    made = [
        {
            "title": "Box sizes",
            "chart": charts.box_chart(found.box, box_px),
            "text": "Side of the square box in the frame. Crops of boxes right of the dashed line "
            f"({box_px} px) are stored scaled down; those far left of it are blurred in training.",
        },
        {
            "title": "Labels",
            "chart": charts.parts_chart(parts),
            "text": "Rows with SMPL parameters, with 3D joints, with a camera from the source, "
            "and with a gender.",
        },
        {
            "title": "Cameras",
            "chart": charts.view_chart(found.view, found.view_guessed),
            "text": "Horizontal field of view. If the source has no focal length, the frame's "
            "diagonal is used as a guess.",
        },
        {
            "title": "Joints in the frame",
            "chart": charts.places_chart(found.places, found.joints),
            "text": f"Positions of the {found.joints:,} visible joints; the outline is the frame. "
            f"{share(found.outside, found.joints)} are outside of it.",
        },
    ]
    if found.smpl:
        made += [
            {
                "title": "Pose",
                "chart": charts.pose_chart(found.angles),
                "text": "Rotation of each joint from the rest pose: median, 25 to 75 % and "
                f"5 to 95 % {with_smpl}. The pelvis has its rotation relative to the camera.",
            },
            {
                "title": "Shape",
                "chart": charts.shape_chart(found.shape),
                "text": f"SMPL's betas: median, 25 to 75 % and 5 to 95 % {with_smpl}.",
            },
        ]
    return made


def _known(rows: int, of: int) -> list[tuple[str, int]]:
    """Parts of a bar: rows that have a label (first colour) and rows without it (third colour)."""
    return [("known", rows), ("", 0), ("unknown", of - rows)]


def _joints(facts: Facts) -> list[dict[str, Any]]:
    """One entry per joint: its name, its source, and the rows of each dataset in which it is
    visible.
    """
    return [
        {
            "name": name,
            "source": "OpenPose" if place < len(OPENPOSE) else "SPIN",
            "seen": [
                (int(one.statistics.visible[place]), one.statistics.rows) for one in facts.sets
            ],
        }
        for place, name in enumerate(JOINTS)
    ]


def _sets(report: Report) -> list[dict[str, Any]]:
    """The template's values for each dataset."""
    found = []
    for number, one in enumerate(report.facts.sets):
        manifest = one.data_set.manifest
        middle = float(one.statistics.box_sides([0.5])[0])
        files = sum(entry.tar_bytes + entry.arrow_bytes for entry in manifest.shards)
        found.append(
            {
                "id": f"set-{number}",
                "name": one.name,
                "place": one.data_set.folder.url,
                "manifest": manifest,
                "found": one.statistics,
                "box": (one.statistics.box_range[0], middle, one.statistics.box_range[1]),
                "files": files,
                "own": [str(field) for field in manifest.own],
                "charts": _charts(one) if one.statistics.rows else [],
                "quarantined": sum(manifest.quarantined.values()),
                "reasons": report.quarantine[number],
            }
        )
    return found


def _policy(policy: AugmentationPolicy) -> list[tuple[str, str, bool]]:
    """Fields of a policy: name, value, and True if it differs from ReFit's."""
    usual = asdict(AugmentationPolicy())

    def said(value: Any) -> str:
        return (
            " to ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else f"{value:g}"
        )

    return [(name, said(value), value != usual[name]) for name, value in asdict(policy).items()]


def make_page(report: Report) -> str:
    """The page as HTML. The same report gives the same text."""
    environment = Environment(
        loader=PackageLoader(_HERE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": human_bytes, "whole": whole}
    environment.globals["share"] = share
    script = _text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    names = [one.name for one in report.facts.sets]
    mix = report.mix
    return environment.get_template("page.html").render(
        report=report,
        sets=_sets(report),
        joints=_joints(report.facts),
        policy=_policy(report.policy),
        mix_chart=None
        if mix is None
        else charts.mix_chart(
            names, [one.rows for one in mix.shares], [one.drawn for one in mix.shares]
        ),
        style=Markup(_text("page.css")),
        script=Markup(script),
        script_hash=digest,
        version=__version__,
    )
