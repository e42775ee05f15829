"""The layout of each dataset on disk: places of frames and npz, and the arrays of the npz."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Frames of one kind.

    ``size``: (W, H) of the labels' frame, px. ``people``: (min, max). ``imgname`` may use {nth} (in
    the scene), {number} (1, 6, 11 … over the dataset), {seq} and {shot}. ``focal``: range, px;
    without it the focal length is the frame's diagonal. ``turned``: the file is stored rotated, so
    that a rotation by 90 degrees clockwise gives the labels' frame.
    """

    imgname: str
    size: tuple[int, int]
    people: tuple[int, int]
    focal: tuple[float, float] | None = None
    turned: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One dataset. Frame i belongs to scene i modulo the number of scenes; ``keys``: its npz's
    arrays.
    """

    root: str
    npz: str
    scenes: tuple[Scene, ...]
    keys: tuple[str, ...]
    by_track: bool = False  # rows ordered by person, then frame


COMMON_KEYS = ("imgname", "center", "scale", "part", "openpose")
_CAMERA_KEYS = ("img_focal", "img_center", "orig_shape")


def _bedlam_scene(name: str, turned: bool = False) -> Scene:
    return Scene(
        imgname=name + "/png/seq_{seq:06d}/seq_{seq:06d}_{shot:04d}.png",
        size=(720, 1280) if turned else (1280, 720),
        people=(1, 4),
        focal=(1000.0, 2000.0),
        turned=turned,
    )


def _agora_scene(stem: str, focal: float) -> Scene:
    imgname = stem + "_{nth:05d}_1280x720.png"
    return Scene(imgname=imgname, size=(1280, 720), people=(1, 4), focal=(focal, focal))


def _pw3d(npz: str, *sequences: tuple[str, int]) -> Layout:
    """Sequences are (name, number of people)."""
    return Layout(
        root="3dpw",
        npz=npz,
        scenes=tuple(
            Scene(
                imgname="imageFiles/" + name + "/image_{nth:05d}.jpg",
                size=(1080, 1920),
                people=(people, people),
            )
            for name, people in sequences
        ),
        keys=("pose", "shape", "S", "gender"),
        by_track=True,
    )


LAYOUTS = {
    "bedlam": Layout(
        root="bedlam",
        npz="bedlam_train",
        scenes=(
            _bedlam_scene("20221010_3-10_500_batch01hand_zoom_suburb_d_6fps"),
            _bedlam_scene("20221011_1_250_batch01hand_closeup_suburb_a_6fps", turned=True),
            _bedlam_scene("20221013_3_250_batch01hand_orbit_bigOffice_6fps"),
            _bedlam_scene("20221024_3-10_100_batch01handhair_static_highSchoolGym_30fps"),
        ),
        keys=("pose", "shape", "S", *_CAMERA_KEYS),
    ),
    "agora": Layout(
        root="agora",
        npz="agora_train",
        scenes=(
            _agora_scene("train_0/ag_trainset_3dpeople_bfh_archviz_5_10_cam00", 640.0),
            _agora_scene("train_1/ag_trainset_renderpeople_bfh_hdri_50mm_5_10", 1777.8),
            _agora_scene("train_2/ag_trainset_axyz_bfh_brushifygrasslands_5_15", 995.6),
        ),
        keys=("pose", "shape", "S", "has_smpl", "gender", "is_kid", "kid_shape", *_CAMERA_KEYS),
    ),
    "coco": Layout(
        root="coco",
        npz="coco_2014_eft",
        scenes=tuple(
            Scene(
                imgname="train2014/COCO_train2014_{number:012d}.jpg",
                size=size,
                people=(1, 3),
            )
            for size in ((640, 480), (640, 480), (480, 640))
        ),
        keys=("pose", "shape", "has_smpl"),
    ),
    "mpii": Layout(
        root="mpii",
        npz="mpii_train_eft",
        scenes=(Scene(imgname="images/{number:09d}.jpg", size=(1280, 720), people=(1, 2)),),
        keys=("pose", "shape", "has_smpl"),
    ),
    "mpi-inf-3dhp": Layout(
        root="mpi_inf_3dhp",
        npz="mpii3d_train",
        scenes=tuple(
            Scene(
                imgname=f"S1/Seq1/imageFrames/video_{video}/frame_{{number:06d}}.jpg",
                size=(2048, 2048),
                people=(1, 1),
            )
            for video in (0, 1, 2)
        ),
        keys=("S",),
    ),
    "h36m": Layout(
        root="h36m",
        npz="h36m_train",
        scenes=tuple(
            Scene(
                imgname=f"images/S1_Directions_1.{camera}_{{number:06d}}.jpg",
                size=(1000, 1002),
                people=(1, 1),
            )
            for camera in (54138969, 55011271, 58860488, 60457274)
        ),
        keys=("pose", "shape", "S", "cam_R", "cam_t", "trans"),
    ),
    "3dpw": _pw3d("3dpw_train", ("courtyard_arguing_00", 2), ("outdoors_slalom_00", 1)),
    "3dpw_test": _pw3d("3dpw_test", ("downtown_arguing_00", 2), ("downtown_runForBus_01", 1)),
}
