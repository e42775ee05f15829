"""Annotation files in the layouts of the datasets' sites, with seeded or given numbers."""

import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import cdflib
import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[Any]


def eft_entry(name: str, seed: int = 0, **changed: Any) -> dict[str, Any]:
    """One entry of EFT's ``data``."""
    rng = np.random.default_rng(seed)
    return {
        "parm_pose": Rotation.from_rotvec(rng.normal(0, 0.8, (24, 3))).as_matrix().tolist(),
        "parm_shape": rng.normal(size=10).tolist(),
        "parm_cam": [0.9, 0.0, 0.1],
        "bbox_scale": float(rng.uniform(0.5, 2)),
        "bbox_center": rng.uniform(0, 500, 2).tolist(),
        "gt_keypoint_2d": rng.uniform(0, 500, (49, 3)).tolist(),
        "joint_validity_openpose18": [True] * 18,
        "smpltype": "smpl",
        "annotId": seed,
        "imageName": name,
        **changed,
    }


def write_eft(path: Path, entries: Sequence[Any], dbname: str = "COCO2014-All") -> Path:
    """Write EFT's JSON file."""
    path.write_text(json.dumps({"ver": 0.1, "meta": {"dbname": dbname}, "data": list(entries)}))
    return path


def bedlam_scene(rows: int, seed: int = 0, pose: int = 72) -> dict[str, Array]:
    """The arrays of one BEDLAM scene, including some that no importer reads."""
    rng = np.random.default_rng(seed)
    cam_int = np.tile(np.array([[900.0, 0, 640], [0, 904.0, 360], [0, 0, 1]]), (rows, 1, 1))
    cam_ext = np.tile(np.eye(4), (rows, 1, 1))
    cam_ext[:, :3, 3] = rng.normal((0, 0, 2), 0.5, (rows, 3))
    return {
        "imgname": np.array([f"seq_000000/seq_000000_{i // 4:04d}.png" for i in range(rows)]),
        "center": rng.uniform(100, 600, (rows, 2)),
        "scale": rng.uniform(0.4, 2, rows),
        "pose_cam": rng.normal(0, 0.5, (rows, pose)),
        "pose_world": rng.normal(0, 0.5, (rows, pose)),
        "shape": rng.normal(0, 1, (rows, 11)),
        "trans_cam": rng.normal((0, 0, 4), 0.3, (rows, 3)),
        "cam_ext": cam_ext,
        "cam_int": cam_int,
        "gender": np.array(["neutral"] * rows),
        "sub": np.array(["subject"] * rows),
    }


def write_npz(path: Path, arrays: Mapping[str, Array]) -> Path:
    """Write an npz with numpy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **cast(Any, arrays))
    return path


def write_zip(path: Path, files: Mapping[str, Path], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip of files under new names."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, file in files.items():
            info = zipfile.ZipInfo(name)  # with a fixed date, so that the bytes are always the same
            info.compress_type = method
            archive.writestr(info, file.read_bytes())
    return path


def write_annot(
    root: Path,
    subject: int,
    sequence: int,
    annot2: Mapping[int, Array],
    annot3: Mapping[int, Array],
    **options: Any,
) -> Path:
    """Write MPI-INF-3DHP's annot.mat of one sequence, with a cell for each of 14 cameras."""
    folder = root / f"S{subject}" / f"Seq{sequence}"
    folder.mkdir(parents=True)
    cells = {}
    for key, given in (("annot2", annot2), ("annot3", annot3)):
        cells[key] = np.empty((14, 1), object)
        width = 56 if key == "annot2" else 84
        for camera in range(14):
            cells[key][camera, 0] = given.get(camera, np.zeros((0, width)))
    frames = np.arange(3, dtype=np.uint16)[:, None]
    scipy.io.savemat(folder / "annot.mat", {**cells, "frames": frames}, **options)
    return folder / "annot.mat"


def sequence_3dpw(
    frames: int, people: int, seed: int = 0, name: str = "downtown"
) -> dict[str, Any]:
    """The content of one of 3DPW's pickles."""
    rng = np.random.default_rng(seed)
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.7, (frames, 3))).as_matrix()
    points = rng.uniform(0, 1000, (people, frames, 3, 18))
    points[:, :, 2] = np.where(rng.random((people, frames, 18)) < 0.3, 0, 0.8)
    return {
        "sequence": name,
        "genders": ["m", "f", "f", "m"][:people],
        "poses": list(rng.normal(0, 0.5, (people, frames, 72))),
        "betas": list(rng.normal(0, 1, (people, 300))),
        "trans": list(rng.normal(0, 1, (people, frames, 3))),
        "poses2d": list(points),
        "cam_poses": cameras,
        "campose_valid": [(rng.random(frames) < 0.8).astype(int) for _ in range(people)],
        "cam_intrinsics": np.eye(3),
        "img_frame_ids": np.arange(frames),
        "texture_maps": [],
    }


def write_pickle(path: Path, content: Any) -> Path:
    """Write a pickle of protocol 2, as Python 2 did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def write_cdf(path: Path, values: Array, compress: int = 0) -> Path:
    """Write a CDF file of Human3.6M: one record ``Pose`` (frames, numbers)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = {
        "Variable": "Pose",
        "Data_Type": 45,  # double
        "Num_Elements": 1,
        "Rec_Vary": True,
        "Dim_Sizes": list(values.shape),
        "Compress": compress,
    }
    with cdflib.cdfwrite.CDF(path, cdf_spec={"Compressed": 0}, delete=True) as file:
        file.write_var(spec, var_data=values[None].astype(np.float64))
    return path


def write_masks(path: Path, masks: Sequence[Array]) -> Path:
    """Write Human3.6M's masks (H, W) in MATLAB's format 7.3, as references to transposed arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        held = file.create_group("#refs#")
        references = np.empty((len(masks), 1), h5py.ref_dtype)
        for number, mask in enumerate(masks):
            packed = {"data": mask.T.astype(np.uint8), "compression": "gzip"}
            data = held.create_dataset(f"m{number}", **packed)
            references[number, 0] = data.ref
        file.create_dataset("Masks", data=references)
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as stream:
        stream.write(head)
    return path


def write_h36m(
    root: Path, subject: int, name: str, d3: Array, d2: Array, masks: Sequence[Array]
) -> None:
    """Write the files of one sequence and camera of Human3.6M; ``name`` is ACTION.CAMERA."""
    base = root / f"S{subject}"
    write_cdf(base / f"MyPoseFeatures/D3_Positions_mono/{name}.cdf", d3)
    write_cdf(base / f"MyPoseFeatures/D2_Positions/{name}.cdf", d2)
    write_masks(base / f"MySegmentsMat/ground_truth_bb/{name}.mat", masks)
