"""Two small datasets whose names attack the page that shows them, and its report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.small import Own, Result, encoded, picture, refit

SCRIPT = "a/<script>window.hacked=1<"  # below it: /script>…
IMAGE = 'a/"\'><img src=x onerror="window.hacked=1">.jpg'
CLOSING = "a/--></style><svg onload=window.hacked=1>{{ 7*7 }}.jpg"
NAMES = [f"{SCRIPT}/script>.jpg", IMAGE, CLOSING, "a/plain.jpg", "a/cut.jpg", "a/gone.jpg"]
ABOVE = "../secret.jpg"  # a picture that is there, and not below the root
FAR = "a/far.jpg"  # a frame that can be read, of a row whose box is not in it


@dataclass(frozen=True)
class Made:
    """Shards of ``first`` and ``second`` below ``shards``, and a training config of both."""

    folder: Path
    first: Own
    second: Own

    @property
    def shards(self) -> Path:
        """The folder of both sets."""
        return self.folder / "shards"

    @property
    def config(self) -> Path:
        """A training config with a policy of its own."""
        return self.folder / "training.yaml"

    @property
    def roots(self) -> list[object]:
        """Where the frames of both are, as options."""
        pairs = (("first", self.first), ("second", self.second))
        return [word for name, one in pairs for word in ("--root", f"{name}={one.root}")]

    def report(self, *args: object) -> Result:
        """Write a report of the config."""
        return refit("report", self.config, "--shards", self.shards, *self.roots, *args)


def make(folder: Path) -> Made:
    """Two datasets with a frame's name in common; some rows of the first are quarantined."""
    first = Own(folder / "first", [name for name in [*NAMES, ABOVE, FAR] for _ in range(2)])
    cut = first.root / "a/cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (first.root / "a/gone.jpg").unlink()
    center = first.columns["center"]
    center[-1] = 5000.0
    smpl = np.arange(len(center)) % 2 == 0
    first.save(center=center, has_smpl=smpl)
    second = Own(folder / "second", ["a/plain.jpg", "b/0.jpg", "b/1.jpg"])
    second.put("a/plain.jpg", encoded(".jpg", picture(40)))
    for name, one in (("first", first), ("second", second)):
        what = ["build", "--npz", one.npz, "--root", one.root, "--name", name]
        how = ["--out", folder / "shards", "--workers", 0, "--max-bad", 0.9]
        assert refit(*what, *how).code == 0
    made = Made(folder, first, second)
    made.config.write_text(
        "SEED_VALUE: 0\nDATASET:\n  LIST: [first, second]\n  PARTITION: [0.25, 0.75]\n"
        "TRAIN: {BATCH_SIZE: 2}\naugmentation: {rot_sigma: 15, occluder_size: [0.2, 0.6]}\n"
    )
    return made
