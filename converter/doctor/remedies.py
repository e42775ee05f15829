"""What a user can do about each reason for which a row or a frame cannot be used."""

from refit_shard.converter.annotations.datasets import Dataset

NPZ_FIX = "get or make the npz again; it must hold imgname (N,), center (N, 2) and scale (N,)"

_AGAIN = "unpack or download these files again"
# The reason of a frame whose storage failed, which says nothing of the frame.
PASSING = "storage_failed"
FIXES: dict[str, str] = {
    PASSING: "see to the machine or its storage, then run the same command again",
    "missing": "unpack what is missing; names that do not fit the files: build --remap OLD=NEW",
    "empty": _AGAIN,
    "corrupt": _AGAIN,
    "not_an_image": _AGAIN,
    "unsupported": "save these frames anew, as PNG or as JPEG of 8 bits a sample",
    "lfs_pointer": "these are Git LFS pointers: run `git lfs pull` where they come from",
    "too_large": "these are no frames of this dataset: " + _AGAIN,
    "unreadable": "make these files readable (permissions, disk, network); or unpack their archive",
    "turned_frame": "turn these files a quarter back, or take them from the original download",
    "wrong_size": "these are other frames, or resized: take the original size, or the labels' npz",
    "box_outside_image": "build leaves these rows out; many: the labels are of other frames",
    "bad_box": "build leaves these rows out; many: make the npz again",
    "nonfinite_label": "build leaves these rows out; many: make the npz again",
    "bad_camera": "mend img_focal in the npz: it is in pixels; leave the key out if it is unknown",
    "duplicate_row": "build leaves the repeats out; many: make the npz again",
    "size_mismatch": "mend orig_shape in the npz: it is [H, W] in pixels",
    "bad_imgname": "mend imgname in the npz: it must be valid UTF-8",
    "other_size": "take frames of the size that the labels were made for, or the labels' own npz",
    "turned_size": "turn these files a quarter back, or take them from the original download",
    "off_centre_camera": "right for a lens that is off the middle; else img_center is another's",
    "huge_box": "scale is the box's side in pixels divided by 200: divide it in the npz",
    "box_in_first_pixel": "center is in pixels of the frame: multiply it by the frame's W and H",
    "center_outside_image": "the labels are of larger frames: take those, or scale the labels",
    "keypoints_off_box": "part and openpose are x, y in pixels of the whole frame and a confidence"
    ", in the order of imgname, as center and scale are: mend them in the npz",
    "blank_pose": "pose is 0 where has_smpl says that a fit is there: mend either in the npz",
    "pose_not_radians": "pose is 24 axis-angle rotations in radians: convert it in the npz",
    "joints_not_metres": "S is x, y, z from the pelvis in metres: convert it in the npz",
    "path_outside_root": "names must lie below ROOT: build with --remap OLD=NEW",
}


def fix_of(dataset: Dataset, reason: str) -> str:
    """The remedy for a frame's reason."""
    if dataset.made_by:
        return f"run {dataset.made_by} again"
    page = f" ({dataset.page})" if dataset.page and FIXES[reason].endswith(_AGAIN) else ""
    if reason == "missing" and dataset.page:
        page = f" ({dataset.page})"
    return FIXES[reason] + page
