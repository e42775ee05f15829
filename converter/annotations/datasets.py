"""The registered datasets: their names and roots as in ReFit, and their peculiarities."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.keep import Keep
from refit_shard.converter.annotations.remaps import Remaps

BEDLAM_PORTRAIT_WIDTH = 720

OnItsSide = Callable[[int, str, NDArray[np.float32] | None], bool]


def bedlam_on_its_side(width: int, imgname: str, principal: NDArray[np.float32] | None) -> bool:
    """True for frames of BEDLAM's closeup scenes, whose labels are portrait (principal point x =
    360) but whose files are landscape.

    ``width``: of the file, px. ``principal``: the row's principal point (x, y), None if the npz has
    no ``img_center``; then the scene's name decides.
    """
    portrait = (
        "closeup" in imgname if principal is None else principal[0] == BEDLAM_PORTRAIT_WIDTH / 2
    )
    return bool(portrait) and width != BEDLAM_PORTRAIT_WIDTH


# Rules that decide which frames are stored on their side. If a rule is changed it must get a new
# name, because the name is a part of the plan of the shards.
_TURNED: dict[str, OnItsSide] = {"bedlam-closeup": bedlam_on_its_side}
NEVER = "never"
TURNS = (NEVER, *_TURNED)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset's peculiarities, which its npz does not state.

    Args:
        name: of the dataset.
        root_variable: what the user sets the root with: the variable in ``data_config.py``, or for
            an own dataset the place of its entry.
        page: where users download the dataset.
        use_pose_3d: True if ReFit trains on its 3D joints.
        cropped: True if its images are ReFit's crops already; they are stored as they are.
        expects_smpl: True if the right npz has SMPL fits.
        turned: name of the rule that decides which frames are stored on their side.
        remaps: of frame names, applied after those of the build.
        keep: own labels that are stored, in addition to those of the build.
        made_by: the command that makes the dataset from another one.
    """

    name: str
    root_variable: str
    page: str = ""
    use_pose_3d: bool = True
    cropped: bool = False
    expects_smpl: bool = False
    turned: str = NEVER
    remaps: Remaps = ()
    keep: tuple[Keep, ...] = ()
    made_by: str = ""

    def on_its_side(self, width: int, imgname: str, principal: NDArray[np.float32] | None) -> bool:
        """True if a stored frame must be turned 90 degrees clockwise to match its labels.

        ``width``: of the file, px. ``principal``: the row's principal point (x, y), if known.
        """
        rule = _TURNED.get(self.turned)
        return rule is not None and rule(width, imgname, principal)


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="coco",
            root_variable="COCO_ROOT",
            page="https://cocodataset.org (2014 train images)",
            use_pose_3d=False,
            expects_smpl=True,
        ),
        Dataset(
            name="mpii",
            root_variable="MPII_ROOT",
            page="http://human-pose.mpi-inf.mpg.de",
            use_pose_3d=False,
            expects_smpl=True,
        ),
        Dataset(
            name="mpi-inf-3dhp",
            root_variable="MPI_INF_3DHP_ROOT",
            page="https://vcai.mpi-inf.mpg.de/3dhp-dataset",
        ),
        Dataset(name="h36m", root_variable="H36M_ROOT", page="http://vision.imar.ro/human3.6m"),
        Dataset(
            name="3dpw",
            root_variable="PW3D_ROOT",
            page="https://virtualhumans.mpi-inf.mpg.de/3DPW",
            expects_smpl=True,
        ),
        Dataset(
            name="3dpw_test",
            root_variable="PW3D_ROOT",
            page="https://virtualhumans.mpi-inf.mpg.de/3DPW",
            expects_smpl=True,
        ),
        Dataset(
            name="3dpw_test_sub",
            root_variable="PW3D_ROOT",
            page="made from 3dpw_test",
            cropped=True,
            expects_smpl=True,
            made_by="refit-shard subset-3dpw",
        ),
        Dataset(
            name="agora",
            root_variable="AGORA_ROOT",
            page="https://agora.is.tue.mpg.de",
            expects_smpl=True,
        ),
        Dataset(
            name="bedlam",
            root_variable="BEDLAM_ROOT",
            page="https://bedlam.is.tue.mpg.de",
            turned="bedlam-closeup",
            expects_smpl=True,
        ),
    )
}
