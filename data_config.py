"""The paths of your datasets. This is the only file of the project that you edit.

Fill in the roots of the datasets that you have. The path of an image is ROOT + "/" + imgname.
The names are ReFit's, so ReFit's ``data_config.py`` works here unchanged, and this one works in
ReFit. An environment variable of the same name overrides a root: ``BEDLAM_ROOT=/data/bedlam``.
"""

from os.path import join

H36M_ROOT = ""
MPII_ROOT = ""
COCO_ROOT = ""
MPI_INF_3DHP_ROOT = ""
PW3D_ROOT = ""
BEDLAM_ROOT = ""
AGORA_ROOT = ""

# The SPIN-format annotations, relative to the folder of this file.
DATASET_NPZ_PATH = "data/dataset_extras"

# Index 0: evaluation, index 1: training.
DATASET_FILES = [
    {
        "3dpw_test": join(DATASET_NPZ_PATH, "3dpw_test.npz"),
        "3dpw_test_sub": join(DATASET_NPZ_PATH, "3dpw_test_sub.npz"),
    },
    {
        "coco": join(DATASET_NPZ_PATH, "coco_2014_eft.npz"),
        "mpii": join(DATASET_NPZ_PATH, "mpii_train_eft.npz"),
        "mpi-inf-3dhp": join(DATASET_NPZ_PATH, "mpii3d_train.npz"),
        "h36m": join(DATASET_NPZ_PATH, "h36m_train.npz"),
        "3dpw": join(DATASET_NPZ_PATH, "3dpw_train.npz"),
        "bedlam": join(DATASET_NPZ_PATH, "bedlam_train.npz"),
        "agora": join(DATASET_NPZ_PATH, "agora_train.npz"),
    },
]

DATASET_FOLDERS = {
    "coco": COCO_ROOT,
    "mpii": MPII_ROOT,
    "mpi-inf-3dhp": MPI_INF_3DHP_ROOT,
    "h36m": H36M_ROOT,
    "3dpw": PW3D_ROOT,
    "3dpw_test": PW3D_ROOT,
    "3dpw_test_sub": PW3D_ROOT,
    "bedlam": BEDLAM_ROOT,
    "agora": AGORA_ROOT,
}

# Your own datasets, by name: {"npz": …, "root": …, "keep": ["smplx_pose"]}; see
# docs/guides/own-data.md.
DATASETS: dict[str, dict[str, object]] = {}

PASCAL_OCCLUDERS = "data/dataset_extras/pascal_occluders.pkl"
JOINT_REGRESSOR_TRAIN_EXTRA = "data/smpl/J_regressor_extra.npy"
JOINT_REGRESSOR_H36M = "data/smpl/J_regressor_h36m.npy"
SMPL_MEAN_PARAMS = "data/smpl/smpl_mean_params.npz"
SMPL_MODEL_DIR = "data/smpl"
