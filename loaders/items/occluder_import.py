"""Cut-outs for occlusion, read from ReFit's pickle or from a Pascal VOC 2012 folder."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from refit_shard.body_models.plain_pickle import PlainArray, read_plain_pickle
from refit_shard.loaders.items.occluders import MAX_SIDE
from refit_shard.shards_spec.errors import SourceError, UsageError

Image = NDArray[np.uint8]

MIN_OBJECT_PIXELS = 500
_SOFT_EDGE_PX = 8
_SOFT_EDGE_ALPHA = 192


def read_pickle(path: Path) -> list[Image]:
    """The (H, W, 4) uint8 cut-outs of ReFit's ``pascal_occluders.pkl`` (joblib's or plain).

    Raises:
        UsageError: no such file.
        SourceError: it contains anything but a list of such arrays; no code in it is executed.
    """
    found = read_plain_pickle(path)
    if not isinstance(found, (list, tuple)) or not found:
        raise SourceError(f"{path}: must contain a non-empty list of arrays")
    if not all(isinstance(one, PlainArray) for one in found):
        raise SourceError(f"{path}: must contain a list of (H, W, 4) arrays and nothing else")
    return [_checked(one, path) for one in found]


def _checked(found: PlainArray, path: Path) -> Image:
    array = found.array()
    if array.dtype != np.uint8:
        raise SourceError(f"{path}: an array has dtype {array.dtype}; occluders are uint8")
    if array.ndim != 3 or array.shape[2] != 4 or not 0 < max(array.shape) <= MAX_SIDE:
        raise SourceError(
            f"{path}: an array has shape {array.shape}; occluders are (H, W, 4), "
            f"with sides of 1 to {MAX_SIDE} px"
        )
    return array


def _wanted_objects(annotation: Path) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Number and box (x0, y0, x1, y1) of each object of a VOC annotation that is usable."""
    root = ElementTree.parse(annotation).getroot()
    if root.findtext("segmented") != "1":
        return []
    wanted = []
    for number, item in enumerate(root.findall("object"), start=1):
        if item.findtext("name") == "person" or "1" in (
            item.findtext("difficult"),
            item.findtext("truncated"),
        ):
            continue
        sides = [item.findtext(f"bndbox/{side}") or "" for side in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = (int(float(side)) for side in sides)
        wanted.append((number, (x0, y0, x1, y1)))
    return wanted


def _cut_out(image: Image, mask: Image) -> Image:
    """The object as RGBA at half size, its border partly transparent against hard edges."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SOFT_EDGE_PX, _SOFT_EDGE_PX))
    inner = cv2.erode(mask, kernel)
    alpha = np.where((mask > 0) & (inner == 0), np.uint8(_SOFT_EDGE_ALPHA), mask)
    rgba = np.dstack([image, alpha])
    size = max(1, round(rgba.shape[1] / 2)), max(1, round(rgba.shape[0] / 2))
    return np.asarray(cv2.resize(rgba, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_voc(folder: Path) -> Iterator[Image]:
    """Cut-outs from a Pascal VOC 2012 folder: segmented objects other than people that are neither
    truncated nor marked as difficult.


    Raises:
        UsageError: the folder does not have the subfolders of VOC2012.
        SourceError: a file in it is damaged.
    """
    for name in ("Annotations", "JPEGImages", "SegmentationObject"):
        if not (folder / name).is_dir():
            raise UsageError(f"--voc {folder}: has no folder {name}; give VOC2012 itself")
    for annotation in sorted((folder / "Annotations").glob("[!.]*.xml")):  # macOS adds ._*.xml
        try:
            wanted = _wanted_objects(annotation)
        except (ElementTree.ParseError, ValueError) as error:
            raise SourceError(f"{annotation}: damaged ({error})") from error
        if not wanted:
            continue
        picture = folder / "JPEGImages" / f"{annotation.stem}.jpg"
        labels = folder / "SegmentationObject" / f"{annotation.stem}.png"
        try:
            with PillowImage.open(picture) as opened:
                image = np.asarray(opened.convert("RGB"))
            with PillowImage.open(labels) as opened:
                segments = np.asarray(opened)
        except OSError as error:
            raise SourceError(f"{annotation.stem}: {error}") from error
        for number, (x0, y0, x1, y1) in wanted:
            part = segments[y0:y1, x0:x1]
            mask = np.where(part == number, np.uint8(255), np.uint8(0))
            if np.count_nonzero(mask) >= MIN_OBJECT_PIXELS:
                yield _cut_out(image[y0:y1, x0:x1], mask)
