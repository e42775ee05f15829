"""What a user can do about each reason for which a row or a frame cannot be used."""

from refit_shard.converter.annotations.datasets import Dataset

NPZ_FIX = "get or make the npz again; it must hold imgname (N,), center (N, 2) and scale (N,)"

_AGAIN = "unpack or download these files again"
# The reason of a frame whose storage failed, which says nothing about the frame.
PASSING = "storage_failed"
FIXES: dict[str, str] = {
    PASSING: "check the machine and its storage, then run the same command again",
    "missing": "unpack what is missing; if the files have other names: build --remap OLD=NEW",
    "empty": _AGAIN,
    "corrupt": _AGAIN,
    "not_an_image": _AGAIN,
    "unsupported": "convert these frames to PNG or to JPEG with 8 bits a channel",
    "lfs_pointer": "these are Git LFS pointers: run `git lfs pull` in their repository",
    "too_large": "these are not frames of this dataset: " + _AGAIN,
    "unreadable": "make these files readable (permissions, disk, network), or unpack their archive",
    "turned_frame": "turn these files a quarter back, or take them from the original download",
    "wrong_size": "these are other or resized frames: take the originals, or the npz for these",
    "box_outside_image": "build leaves these rows out; if many: the labels are of other frames",
    "bad_box": "build leaves these rows out; if many: make the npz again",
    "nonfinite_label": "build leaves these rows out; if many: make the npz again",
    "bad_camera": "correct img_focal in the npz: it is in pixels; if unknown, leave the key out",
    "duplicate_row": "build leaves the repeats out; if many: make the npz again",
    "size_mismatch": "correct orig_shape in the npz: it is [H, W] in pixels",
    "bad_imgname": "correct imgname in the npz: it must be valid UTF-8",
    "other_size": "take frames of the size that the labels are for, or the npz made for these",
    "turned_size": "turn these files a quarter back, or take them from the original download",
    "off_centre_camera": "fine for a lens that is off the middle; else img_center is wrong",
    "huge_box": "scale is the box's side in pixels divided by 200: divide it in the npz",
    "box_in_first_pixel": "center is in pixels of the frame: multiply it by the frame's W and H",
    "center_outside_image": "the labels are for larger frames: take those, or scale the labels",
    "keypoints_off_box": "part and openpose must be x, y in pixels of the whole frame and a "
    "confidence, with rows in the order of imgname: correct them in the npz",
    "blank_pose": "set has_smpl to 0 in the npz where there is no fit, or add the missing poses",
    "pose_not_radians": "pose is 24 axis-angle rotations in radians: convert it in the npz",
    "joints_not_metres": "S is x, y, z from the pelvis in metres: convert it in the npz",
    "path_outside_root": "names must be paths below ROOT: build with --remap OLD=NEW",
}


def fix_of(dataset: Dataset, reason: str) -> str:
    """What a user can do about frames that failed for this reason."""
    if dataset.made_by:
        return f"run {dataset.made_by} again"
    page = f" ({dataset.page})" if dataset.page and FIXES[reason].endswith(_AGAIN) else ""
    if reason == "missing" and dataset.page:
        page = f" ({dataset.page})"
    return FIXES[reason] + page
