"""Plans which frame of which video each name of an npz is. No video is opened."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.annotations.source import frame_path
from refit_shard.converter.archives.members import Member
from refit_shard.shards_spec.errors import SourceError, UsageError
from refit_shard.shards_spec.storage.paths import absolute, local_path
from refit_shard.shards_spec.values import hold, one_of, whole

# The number of a video's first frame in the annotations.
NUMBERINGS = {"from-1": 1, "from-0": 0}
_NUMBER = r"(?P<number>\d{1,9})\.(?P<ending>jpg|jpeg|png)"
_FLAGS = re.IGNORECASE | re.DOTALL
_VIDEO_ENDINGS = (".mp4", ".avi", ".mov")
# Human3.6M has two names for two of its actions.
_ACTIONS = (("TakingPhoto", "Photo"), ("WalkingDog", "WalkDog"))
_HELD_OUT = re.compile(r"S(?:9|11)_")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a dataset names its videos and their frames.

    ``frame``: pattern of a frame's path below ROOT, with the group ``number``. ``videos``: returns
    the paths below ROOT where the frame's video may be. ``numbering``: a key of NUMBERINGS.
    ``rate``: frames a second to which the numbers refer, None if any rate may be. ``unsure``:
    pattern of paths for which users must state the numbering, because scripts that make such npz
    files differ. ``example``: a frame's path.
    """

    frame: re.Pattern[str]
    videos: Callable[[re.Match[str]], Sequence[str]]
    numbering: str = "from-1"
    rate: int | None = None
    unsure: re.Pattern[str] | None = None
    example: str

    def places(self, found: re.Match[str]) -> tuple[str, ...]:
        """The paths where the video of a frame may be, also with the ending in capitals."""
        paths = self.videos(found)
        parts = [posixpath.splitext(path) for path in paths]
        return (*paths, *(stem + ending.upper() for stem, ending in parts))


def _videos_3dhp(found: re.Match[str]) -> Sequence[str]:
    return (f"{found['sequence']}/imageSequence/{found['video']}.avi",)


def _videos_h36m(found: re.Match[str]) -> Sequence[str]:
    action = found["action"].replace("_", " ")
    named = [action, found["action"]]
    for one, other in _ACTIONS:
        for old, new in ((one, other), (other, one)):
            if action.split(" ")[0] == old:
                named.append(action.replace(old, new, 1))
    folder = f"{found['subject']}/Videos"
    return tuple(dict.fromkeys(f"{folder}/{name}.{found['camera']}.mp4" for name in named))


def _videos_bedlam(found: re.Match[str]) -> Sequence[str]:
    scene = found["scene"]
    scenes = dict.fromkeys((scene, re.sub(r"_\d+fps$", "", scene)))
    # The last two are for members of <scene>_mp4.tar, with and without a folder mp4 in the tar.
    folders = ("{}/mp4", "{}_mp4/mp4", "{}_mp4")
    return tuple(f"{at.format(one)}/{found['sequence']}.mp4" for at in folders for one in scenes)


def _videos_beside(found: re.Match[str]) -> Sequence[str]:
    return tuple(found["video"] + ending for ending in _VIDEO_ENDINGS)


LAYOUTS: dict[str, Layout] = {
    "mpi-inf-3dhp": Layout(
        frame=re.compile(
            rf"(?P<sequence>.+)/imageFrames/(?P<video>video_\d+)/(?:frame_)?{_NUMBER}",
            _FLAGS,
        ),
        videos=_videos_3dhp,
        example="S1/Seq1/imageFrames/video_0/frame_000619.jpg",
    ),
    "h36m": Layout(
        frame=re.compile(
            rf"images/(?P<subject>S\d+)_(?P<action>[^/]+)\.(?P<camera>\d+)_{_NUMBER}", _FLAGS
        ),
        videos=_videos_h36m,
        unsure=re.compile(rf"images/{_HELD_OUT.pattern}"),
        example="images/S1_Directions_1.54138969_000001.jpg",
    ),
    "bedlam": Layout(
        frame=re.compile(
            rf"(?P<scene>[^/]+)/png/(?P<sequence>seq_\d+)/(?P=sequence)_{_NUMBER}", _FLAGS
        ),
        videos=_videos_bedlam,
        numbering="from-0",
        rate=30,
        example="<scene>/png/seq_000000/seq_000000_0000.png",
    ),
}
# For datasets that are not registered: a folder of frames beside a video of the same name.
BESIDE = Layout(
    frame=re.compile(rf"(?P<video>.+)/[^/]*?{_NUMBER}", _FLAGS),
    videos=_videos_beside,
    example="a/b/000001.jpg of a/b.mp4",
)


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """The frames to extract from the videos of one dataset. Videos and frames are in local or
    mounted folders.

    Args:
        dataset: its name and its peculiarities.
        npz: path or URL of the annotations.
        root: folder below which the videos are.
        out: folder below which the frames are written.
        quality: of the frames' JPEGs, 1 to 100.
        numbering: number of a video's first frame in the annotations, a key of NUMBERINGS; None for
            the dataset's usual one.
        workers: number of Ray workers, None for one a core, 0 to work in this process.
        address: of a Ray cluster, None to start Ray on this machine.
        overwrite: True to write existing frames again.

    Raises:
        UsageError: a value is out of its bounds, or the dataset has no videos.
    """

    dataset: Dataset
    npz: str
    root: str
    out: str
    quality: int = 95
    numbering: str | None = None
    workers: int | None = None
    address: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("root", "out"):
            hold(self, **{name: absolute(str(local_path(getattr(self, name), f"--{name}")))})
        hold(self, quality=whole("--quality", self.quality, 1, 100))
        if self.numbering is not None:
            one_of("--numbering", self.numbering, tuple(NUMBERINGS))
        if self.workers is not None:
            hold(self, workers=whole("--workers", self.workers, 0, 4096))
        if self.workers == 0 and self.address is not None:
            raise UsageError(
                "--workers 0 works in this process and cannot be combined with --address"
            )
        layout_of(self.dataset)


@dataclass(frozen=True, kw_only=True)
class VideoTask:
    """One video.

    ``videos``: the paths below the root where it may be. ``frames``: path below ``out`` and number
    of each wanted frame, sorted by number. ``member``: if the video is in an archive, the one of
    its paths that was found, and the archive's member.
    """

    index: int
    videos: tuple[str, ...]
    frames: tuple[tuple[str, int], ...]
    member: tuple[str, Member] | None = None

    @property
    def name(self) -> str:
        """The video's first possible path, which identifies it in records and messages."""
        return self.videos[0]


@dataclass(frozen=True, kw_only=True)
class VideoPlan:
    """The videos and frames to extract.

    ``first``: number of a video's first frame. ``rate``: frames a second that the videos must have,
    None for any. ``rows``: rows of the npz by the frame's path. ``others``: rows whose name is not
    that of a video's frame. ``renamed``: True if the npz's names end in .png, because the frames
    are written as .jpg.
    """

    request: VideoRequest
    first: int
    rate: int | None
    tasks: tuple[VideoTask, ...]
    rows: Mapping[str, Sequence[int]]
    others: tuple[int, ...]
    renamed: bool

    @property
    def frames(self) -> int:
        """Number of wanted frames."""
        return len(self.rows)


def layout_of(dataset: Dataset) -> Layout:
    """How the dataset's videos and frames are named.

    Raises:
        UsageError: the dataset consists of images, not of videos.
    """
    if dataset.name in LAYOUTS:
        return LAYOUTS[dataset.name]
    if dataset.root_variable.startswith("--"):
        return BESIDE
    raise UsageError(
        f"{dataset.name}: consists of images, not of videos; extract-frames knows "
        f"{', '.join(LAYOUTS)} and your own datasets (--npz, --root, --name)"
    )


def _names(npz_path: str) -> list[str]:
    """The npz's names of frames. A name that is not UTF-8 becomes "", which is not a
    video's frame.
    """
    with closing(Npz(npz_path)) as npz:
        if "imgname" not in npz.entries:
            found = ", ".join(npz.entries) or "none"
            raise SourceError(f"{npz_path}: key 'imgname' is missing; found: {found}")
        values = npz.read("imgname")
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise SourceError(
            f"{npz_path}: 'imgname' must be strings of shape (N,), got {values.dtype} of shape "
            f"{values.shape}"
        )
    names = []
    for value in values.tolist():
        try:  # as text it may hold half a surrogate pair
            names.append((value if isinstance(value, bytes) else value.encode()).decode())
        except UnicodeError:
            names.append("")
    return names


def _first(request: VideoRequest, layout: Layout, paths: Sequence[str]) -> int:
    """The number of a video's first frame.

    Raises:
        UsageError: scripts that make such npz files differ, and the request does not state it.
    """
    if request.numbering is None and layout.unsure is not None:
        unsure = [path for path in paths if layout.unsure.match(path)]
        if unsure:
            raise UsageError(
                f"{request.npz}: {len(unsure)} frames are of S9 or S11, such as {unsure[0]}: state "
                "how they are numbered. In SPIN's validation files (h36m_valid_protocol1.npz and "
                "2) the second frame of a video has number 1: pass --numbering from-0; in others "
                "the first frame has number 1: pass --numbering from-1"
            )
    return NUMBERINGS[request.numbering or layout.numbering]


def plan_videos(request: VideoRequest) -> VideoPlan:
    """Plan which frames of which videos the npz names. No video is opened.

    Raises:
        SourceError: the npz cannot be read, or none of its names is that of a video's frame.
        UsageError: the request must state how the frames are numbered.
        StorageError: the npz's storage failed.
    """
    layout = layout_of(request.dataset)
    videos: dict[tuple[str, ...], dict[str, int]] = {}
    rows: dict[str, list[int]] = {}
    others = []
    renamed = False
    names = _names(request.npz)
    for row, name in enumerate(names):
        path = frame_path(name, request.root, ())
        found = None if path is None else layout.frame.fullmatch(path)
        if path is None or found is None:
            others.append(row)
            continue
        if found["ending"].lower() == "png":
            renamed = True
            path = posixpath.splitext(path)[0] + ".jpg"
        rows.setdefault(path, []).append(row)
        videos.setdefault(layout.places(found), {})[path] = int(found["number"])
    if not rows:
        such = f", such as {names[0]!r:.100}" if names else ""
        raise SourceError(
            f"{request.npz}: none of its {len(names)} names is that of a video's frame{such}; "
            f"{request.dataset.name} has names like {layout.example}"
        )
    return VideoPlan(
        request=request,
        first=_first(request, layout, list(rows)),
        rate=layout.rate,
        tasks=tuple(
            VideoTask(
                index=index,
                videos=where,
                frames=tuple(sorted(frames.items(), key=lambda frame: (frame[1], frame[0]))),
            )
            for index, (where, frames) in enumerate(sorted(videos.items()))
        ),
        rows=rows,
        others=tuple(others),
        renamed=renamed,
    )
