"""Which frame of which video each name of an npz is: a plan, made before any video is opened."""

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

# What the annotations call a video's first frame.
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

    ``frame``: a frame's path below ROOT; its group ``number`` is the frame's. ``videos``: paths
    below ROOT where the frame's video may be. ``numbering``: a key of NUMBERINGS. ``rate``: frames
    a second that the numbers count, where only a video of that rate can be meant. ``unsure``: paths
    whose numbering must be said, as scripts differ. ``example``: a frame's path.
    """

    frame: re.Pattern[str]
    videos: Callable[[re.Match[str]], Sequence[str]]
    numbering: str = "from-1"
    rate: int | None = None
    unsure: re.Pattern[str] | None = None
    example: str

    def places(self, found: re.Match[str]) -> tuple[str, ...]:
        """Paths where the video of a frame may be, also with an ending in capitals."""
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
    # The latter two as members of <scene>_mp4.tar, whatever folder of its own that has.
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
# Of a dataset that is not registered: a folder of frames beside a video of the same name.
BESIDE = Layout(
    frame=re.compile(rf"(?P<video>.+)/[^/]*?{_NUMBER}", _FLAGS),
    videos=_videos_beside,
    example="a/b/000001.jpg of a/b.mp4",
)


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """The frames to extract of one dataset. Everything is on this machine or mounted there.

    ``npz``: path or URL of the annotations. ``root``: folder that the videos are below. ``out``:
    folder that the frames go below. ``quality``: of their JPEGs. ``numbering``: what the
    annotations call a video's first frame, a key of NUMBERINGS, None for the dataset's own.
    ``workers``: None for all cores, 0 for this process. ``overwrite``: make frames anew that stand.

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
    """One video: ``videos`` are the paths below the root that it may have; ``frames`` the path
    below ``out`` and the number of each frame that is wanted, by their number. ``member``: where
    it is no file, which of the paths it has in an archive, and where it lies there.
    """

    index: int
    videos: tuple[str, ...]
    frames: tuple[tuple[str, int], ...]
    member: tuple[str, Member] | None = None

    @property
    def name(self) -> str:
        """What the video is called."""
        return self.videos[0]


@dataclass(frozen=True, kw_only=True)
class VideoPlan:
    """``first``: the number of a video's first frame. ``rows``: rows of the npz by frame's path.
    ``others``: rows whose name is of no video. ``renamed``: frames get another ending than the npz
    says, as they are JPEGs.
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
        """Frames that are wanted."""
        return len(self.rows)


def layout_of(dataset: Dataset) -> Layout:
    """How the dataset's videos and frames are named.

    Raises:
        UsageError: it is one of pictures.
    """
    if dataset.name in LAYOUTS:
        return LAYOUTS[dataset.name]
    if dataset.root_variable.startswith("--"):
        return BESIDE
    raise UsageError(
        f"{dataset.name}: its frames are no videos'; extract-frames knows {', '.join(LAYOUTS)} and "
        "your own (--npz, --root, --name)"
    )


def _names(npz_path: str) -> list[str]:
    """The npz's names; one that is not UTF-8 is empty, which is of no video."""
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
        UsageError: scripts differ in what it is, and nobody said.
    """
    if request.numbering is None and layout.unsure is not None:
        unsure = [path for path in paths if layout.unsure.match(path)]
        if unsure:
            raise UsageError(
                f"{request.npz}: {len(unsure)} frames are of S9 or S11, such as {unsure[0]}: say "
                "how they are numbered. SPIN's validation files (h36m_valid_protocol1.npz and 2) "
                "call the second frame of a video 1: --numbering from-0; others call the first "
                "one 1: --numbering from-1"
            )
    return NUMBERINGS[request.numbering or layout.numbering]


def plan_videos(request: VideoRequest) -> VideoPlan:
    """Say which frames of which videos the npz names; no video is looked at.

    Raises:
        SourceError: the npz cannot be read, or none of its names is of a video.
        UsageError: how the frames are numbered must be said.
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
            f"{request.npz}: none of its {len(names)} names is of a video's frame{such}; "
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
