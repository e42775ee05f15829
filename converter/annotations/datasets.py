"""The registered datasets, one entry each: where ReFit keeps them, and what is peculiar to them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.keep import Keep
from refit_shard.converter.annotations.remaps import Remaps

BEDLAM_PORTRAIT_WIDTH = 720

OnItsSide = Callable[[int, str, NDArray[np.float32] | None], bool]


def bedlam_on_its_side(width: int, imgname: str, principal: NDArray[np.float32] | None) -> bool:
    """BEDLAM's closeup scenes have portrait labels (principal point x = 360) but landscape files.

    ``width`` is that of the file. Where the npz has no ``img_center``, the scene's name tells.
    """
    portrait = (
        "closeup" in imgname if principal is None else principal[0] == BEDLAM_PORTRAIT_WIDTH / 2
    )
    return bool(portrait) and width != BEDLAM_PORTRAIT_WIDTH


# Rules that tell which frames are stored on their side. A rule that changes gets a new name: the
# name is a part of the plan of the shards.
_TURNED: dict[str, OnItsSide] = {"bedlam-closeup": bedlam_on_its_side}
NEVER = "never"
TURNS = (NEVER, *_TURNED)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What the converter must know of a dataset beyond its npz.

    ``root_variable``: what sets its root: its ROOT in ``data_config.py``, or of a dataset of one's
    own the place of its entry. ``use_pose_3d``: ReFit trains on its 3D
    joints. ``cropped``: its images are ReFit's crops already and are stored as they are.
    ``turned``: name of the rule that tells which frames are stored on their side; most datasets
    store all of them as their labels see them. ``page``: where users get it. ``expects_smpl``:
    its npz holds SMPL fits, so one without them is not the right one. ``remaps``: of frame names,
    after those of the build. ``keep``: labels that are carried along, beside those of the build.
    ``made_by``: the command that makes it from another dataset.
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
        """Whether a stored frame must be turned 90 degrees clockwise to match its labels.

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
