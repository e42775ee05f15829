"""The picture of the page *Joints*: OpenPose's 25 and SPIN's 24 on a standing person, by name.

python -m examples.joints_picture            writes docs/reference/joints.svg
"""

import sys
from collections.abc import Iterator, Sequence

from examples.demo import REPOSITORY
from refit_shard.shards_spec.joints import OPENPOSE, PLACE, SPIN

PICTURE = REPOSITORY / "docs/reference/joints.svg"
WIDTH, HEIGHT, HALF = 1080, 620, 540
_MIDDLE, _LABEL, _GAP = 270, 125, 19

# A person who faces the reader: x to the reader's right (the person's left), y down, px.
_MIDLINE = {
    **{"top_of_head": (0, 40), "head": (0, 72), "nose": (0, 92), "jaw": (0, 114), "neck": (0, 140)},
    **{"thorax": (0, 166), "spine": (0, 228), "pelvis": (0, 296), "mid_hip": (0, 300)},
}
_LEFT = {
    **{"eye": (12, 80), "ear": (27, 86), "shoulder": (58, 162), "elbow": (84, 248)},
    **{"wrist": (96, 330), "hip": (30, 310), "knee": (38, 436), "ankle": (40, 552)},
    **{"big_toe": (48, 590), "small_toe": (66, 582), "heel": (36, 572)},
}
_BONES = (
    *(("jaw", "neck"), ("neck", "pelvis"), ("neck", "shoulder"), ("shoulder", "elbow")),
    *(("elbow", "wrist"), ("pelvis", "hip"), ("hip", "knee"), ("knee", "ankle")),
    *(("ankle", "big_toe"), ("ankle", "heel")),
)
_STYLE = """<style>
svg { font: 11px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; --paper: #fff;
  --ink: #24292f; --bone: #d8dee6; --left: #2f7fd0; --right: #d9702b; --middle: #6b7280; }
@media (prefers-color-scheme: dark) { svg { --paper: #1e2129; --ink: #e2e4e9; --bone: #3a4252;
  --left: #6fb3ff; --right: #ff9d5c; --middle: #a8b0bd; } }
.paper { fill: var(--paper); }
text { fill: var(--ink); }
.title { font: 600 14px system-ui, sans-serif; }
.bone { stroke: var(--bone); stroke-width: 16; stroke-linecap: round; }
.head { fill: var(--bone); }
.leader { stroke-width: 0.7; }
.left { fill: var(--left); stroke: var(--left); }
.right { fill: var(--right); stroke: var(--right); }
.middle { fill: var(--middle); stroke: var(--middle); }
</style>"""


def place(name: str) -> tuple[float, float]:
    """Position of a joint: x from the body's midline, y down, px; a prefix ``op_`` is ignored."""
    bare = name.removeprefix("op_")
    for side, sign in (("left_", 1), ("right_", -1)):
        if bare.startswith(side):
            x, y = _LEFT[bare.removeprefix(side)]
            return sign * x, y
    return _MIDLINE[bare]


def side_of(name: str) -> str:
    """The person's side that a joint is on: ``left``, ``right`` or ``middle``."""
    bare = name.removeprefix("op_")
    return bare.split("_")[0] if bare.startswith(("left_", "right_")) else "middle"


def spread(wished: Sequence[float]) -> list[float]:
    """Ascending heights for labels, at least a line apart, near the wished ones."""
    made: list[float] = []
    for y in wished:
        made.append(max(y, made[-1] + _GAP) if made else y)
    over = max(0.0, made[-1] - (HEIGHT - 20))
    return [max(58 + _GAP * n, y - over) for n, y in enumerate(made)]


def figure(names: Sequence[str], title: str, x0: float) -> Iterator[str]:
    """SVG elements of one person with dots, numbers and names."""
    middle = x0 + _MIDDLE
    yield f'<text x="{x0 + 24}" y="28" class="title">{title}</text>'
    for first, second in _BONES:
        for sign in (-1, 1):
            ends = []
            for one in (first, second):
                x, y = _MIDLINE.get(one) or (sign * _LEFT[one][0], _LEFT[one][1])
                ends += [middle + x, y]
            yield '<line x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}" class="bone"/>'.format(*ends)
    yield f'<ellipse cx="{middle:g}" cy="82" rx="27" ry="40" class="head"/>'
    midline = sorted((name for name in names if side_of(name) == "middle"), key=place)
    right = [name for name in names if side_of(name) == "right"] + midline[::2]
    left = [name for name in names if side_of(name) == "left"] + midline[1::2]
    for column, sign, anchor in ((right, -1, "end"), (left, 1, "start")):
        ordered = sorted(column, key=lambda name: place(name)[1])
        for name, height in zip(ordered, spread([place(name)[1] for name in ordered]), strict=True):
            joint_x, joint_y = place(name)
            end, kind = middle + sign * _LABEL, side_of(name)
            yield (
                f'<line x1="{middle + joint_x:g}" y1="{joint_y}" x2="{end:g}" y2="{height:g}" '
                f'class="leader {kind}"/>'
                f'<circle cx="{middle + joint_x:g}" cy="{joint_y}" r="4" class="{kind}"/>'
                f'<text x="{end + 4 * sign:g}" y="{height + 4:g}" text-anchor="{anchor}">'
                f"{f'{PLACE[name]} {name}' if sign > 0 else f'{name} {PLACE[name]}'}</text>"
            )


def picture() -> str:
    """The picture as SVG."""
    said = "The 49 joints by place and name on two standing people who face the reader"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{said}">',
        f"<title>{said}</title>",
        _STYLE,
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" class="paper"/>',
        *figure(OPENPOSE, "OpenPose’s 25: places 0 to 24", 0),
        *figure(SPIN, "SPIN’s 24: places 25 to 48", HALF),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Write the picture."""
    PICTURE.write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
