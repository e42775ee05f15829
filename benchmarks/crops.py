"""Stored crops and occluders for the benchmarks of the stream, made once in the cache.

The crops are built from :func:`benchmarks.build_cases.cached_tree`, the occluders are imported from
a small generated Pascal VOC folder, both by the project's own code.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image as PillowImage

from benchmarks.build_cases import SEED, cached_tree, made_by, repeated, request
from benchmarks.harness import REPOSITORY
from benchmarks.photographs import Image, photo_frame
from refit_shard.converter.build.driver import build, prepare
from refit_shard.loaders.items.occluder_import import read_voc
from refit_shard.loaders.items.occluders import occluder_bytes
from refit_shard.shards_spec.names import MANIFEST

_VOC_SIDE_PX = (60, 501)  # the import scales them to half
_VOC_QUALITY = 90
_ANNOTATION = """<annotation><segmented>1</segmented><object><name>thing</name><bndbox>
<xmin>0</xmin><ymin>0</ymin><xmax>{width}</xmax><ymax>{height}</ymax></bndbox></object></annotation>
"""


@dataclass(frozen=True, kw_only=True)
class CropSizes:
    """Numbers of crops and occluders; the base class of benchmarks' settings.

    Crops are those of all people in ``frames`` frames, repeated ``passes`` times.
    """

    frames: int = 200
    passes: int = 5
    samples_per_shard: int = 256
    occluders: int = 60


@dataclass(frozen=True)
class Crops:
    """Paths of the crops' shards, of the occluders' file, and of the frames' folder."""

    shards: Path
    rows: int
    occluders: Path
    frames: Path


def _silhouette(width: int, height: int, rng: np.random.Generator) -> Image:
    """A mask (height, width) of an irregular object that fills most of it: 255 inside, else 0."""
    coarse = rng.uniform(-0.45, 0.45, (5, 5)).astype(np.float32)
    waves = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    y = np.linspace(-1.0, 1.0, height)[:, None]
    x = np.linspace(-1.0, 1.0, width)[None, :]
    return np.where(np.hypot(x, y) + waves < 0.9, np.uint8(255), np.uint8(0))


def make_voc(folder: Path, objects: int, *, seed: int = SEED) -> None:
    """Write a folder like Pascal VOC 2012's: ``objects`` pictures with one object each."""
    parts = [folder / name for name in ("Annotations", "JPEGImages", "SegmentationObject")]
    for part in parts:
        part.mkdir(parents=True)
    annotations, pictures, labels = parts
    for number in range(objects):
        rng = np.random.default_rng([seed, number])
        width, height = (int(side) for side in rng.integers(*_VOC_SIDE_PX, 2))
        stem = f"2012_{number:06d}"
        mask = _silhouette(width, height, rng)
        PillowImage.fromarray(mask // 255).save(labels / f"{stem}.png")
        picture = np.ascontiguousarray(photo_frame(640, 640, rng)[:height, :width])
        (pictures / f"{stem}.jpg").write_bytes(
            simplejpeg.encode_jpeg(picture, _VOC_QUALITY, "RGB", "420")
        )
        (annotations / f"{stem}.xml").write_text(_ANNOTATION.format(width=width, height=height))


def _make_occluders(path: Path, objects: int) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        make_voc(Path(folder) / "VOC2012", objects)
        cut_outs = list(read_voc(Path(folder) / "VOC2012"))
    partial = path.with_suffix(".partial")
    partial.write_bytes(occluder_bytes(cut_outs))
    partial.rename(path)


def cached_crops(cache: Path, sizes: CropSizes) -> Crops:
    """Crops and occluders of these sizes.

    They are made once for each version of the code that makes them; each pass has its own copies.
    """
    cache.mkdir(parents=True, exist_ok=True)
    tree = cached_tree(cache, sizes.frames)
    packages = ("converter", "shards_spec")
    sources = [one for name in packages for one in sorted((REPOSITORY / name).rglob("*.py"))]
    key = made_by([Path(__file__), *sources])
    folder = tree.root.parent / f"crops-{sizes.passes}-{sizes.samples_per_shard}-{key}"
    shards, frames_of = folder / "bedlam", folder / "passes"
    if not (shards / MANIFEST).exists():  # it is written last
        shutil.rmtree(folder, ignore_errors=True)
        many = repeated(tree, frames_of, sizes.passes)
        wanted = request(many, shards, workers=0, samples_per_shard=sizes.samples_per_shard)
        build(prepare(wanted), lambda _: None)
    items = REPOSITORY / "loaders" / "items"
    importers = [items / name for name in ("occluder_import.py", "occluders.py")]
    stem = f"occluders-{sizes.occluders}-{made_by([Path(__file__), *importers])}.arrow"
    path = tree.root.parent / stem
    if not path.exists():
        _make_occluders(path, sizes.occluders)
    return Crops(shards, tree.rows * sizes.passes, path, frames_of)
