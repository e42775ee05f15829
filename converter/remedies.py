"""What a user can do about each reason for which a row or a frame cannot be used."""

from converter.datasets import Dataset

NPZ_FIX = "get or make the npz again; it must hold imgname (N,), center (N, 2) and scale (N,)"

_AGAIN = "unpack or download these files again"
FIXES: dict[str, str] = {
    "missing": "unpack what is missing; names that do not fit the folders: build --remap OLD=NEW",
    "empty": _AGAIN,
    "corrupt": _AGAIN,
    "not_an_image": _AGAIN,
    "unsupported": "save these frames anew, as PNG or as JPEG of 8 bits a sample",
    "lfs_pointer": "these are Git LFS pointers: run `git lfs pull` where they come from",
    "too_large": "these are no frames of this data set: " + _AGAIN,
    "unreadable": "make these files readable (permissions, disk, network)",
    "turned_frame": "turn these files a quarter back, or take them from the original download",
    "wrong_size": "these are other frames, or resized: take the original size, or the labels' npz",
    "box_outside_image": "build leaves these rows out; many: the labels are of other frames",
    "bad_box": "build leaves these rows out; many: make the npz again",
    "nonfinite_label": "build leaves these rows out; many: make the npz again",
    "bad_camera": "mend img_focal in the npz: it is in pixels; leave the key out if it is unknown",
    "duplicate_row": "build leaves the repeats out; many: make the npz again",
    "size_mismatch": "mend orig_shape in the npz: it is [H, W] in pixels",
    "bad_imgname": "mend imgname in the npz: it must be valid UTF-8",
    "path_outside_root": "names must lie below ROOT: build with --remap OLD=NEW",
}
_CROPPED = "run refit-shard subset-3dpw again"


def fix_of(dataset: Dataset, reason: str) -> str:
    """The remedy for a frame's reason."""
    if dataset.cropped:
        return _CROPPED
    page = f" ({dataset.page})" if dataset.page and FIXES[reason].endswith(_AGAIN) else ""
    if reason == "missing" and dataset.page:
        page = f" ({dataset.page})"
    return FIXES[reason] + page
