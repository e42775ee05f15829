"""Frames of videos: the right picture under each name, whatever the video, its damage or a kill."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.videos.decode import open_video
from refit_shard.converter.videos.plan import VideoRequest, VideoTask, plan_videos
from refit_shard.converter.videos.work import VideoRecipe, VideoResult, extract_video
from refit_shard.shards_spec.errors import SourceError
from tests.converter.made_video import KINDS, Kind, make, packets, read_file
from tests.searches import examples
from tests.small import Result, error_line, hashes, refit, refit_command

AVI = KINDS["mpeg4, B-frames, avi"]
MP4 = KINDS["h264, B-frames, mp4"]


def write_npz(folder: Path, names: Sequence[str]) -> Path:
    """An npz that names these frames."""
    count = len(names)
    path = folder / "names.npz"
    np.savez(
        path,
        imgname=np.array(names),
        center=np.tile([96.0, 64.0], (count, 1)),
        scale=np.full(count, 0.4),
    )
    return path


def extract(folder: Path, names: Sequence[str], *args: object, workers: int = 0) -> Result:
    """Extract frames of videos of one's own below ``folder``, in this process."""
    npz = write_npz(folder, names)
    what = ["--npz", npz, "--root", folder, "--name", "own"]
    return refit("extract-frames", *what, "--workers", workers, *args)


def config_3dhp(folder: Path, names: Sequence[str]) -> Path:
    """A data_config.py of MPI-INF-3DHP below ``folder``, whose npz names these frames."""
    files = [{}, {"mpi-inf-3dhp": str(write_npz(folder, names))}]
    path = folder / "data_config.py"
    path.write_text(f"MPI_INF_3DHP_ROOT = {str(folder)!r}\nDATASET_FILES = {files!r}\n")
    return path


def shown(folder: Path, names: Sequence[str]) -> dict[str, int | None]:
    """What the frames that were written show, by name."""
    return {name: read_file(folder / name) for name in names if (folder / name).exists()}


def clip(first: int, last: int, step: int = 1) -> list[str]:
    """Names of frames of the video ``clip``."""
    return [f"clip/{number:06d}.jpg" for number in range(first, last + 1, step)]


# ------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize("numbering", ["from-1", "from-0"])
def test_each_number_has_its_frame(kind: Kind, numbering: str, tmp_path: Path) -> None:
    """Also beside OpenCV, which counts and converts on its own: the same JPEG to the byte."""
    video = make(tmp_path / f"clip{kind.ending}", kind)
    first = int(numbering == "from-1")
    names = [*clip(first, first + 39, 3), f"clip/frame_{first + 7}.jpg"]
    result = extract(tmp_path, names, "--numbering", numbering)
    assert result.code == 0, result.err
    expected = {name: int(name.rpartition("/")[2].strip("frame_.jpg")) - first for name in names}
    assert shown(tmp_path, names) == expected
    capture = cv2.VideoCapture(str(video))
    frames = [capture.read()[1] for _ in range(40)]
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    for name, place in expected.items():
        data = cv2.imencode(".jpg", frames[place], [*options, 0x221111])[1].tobytes()
        assert (tmp_path / name).read_bytes() == data


def test_a_rest_of_numbers_is_all_that_is_decoded(tmp_path: Path) -> None:
    """Nothing after the last frame that is named."""
    make(tmp_path / "clip.mp4", MP4)
    result = extract(tmp_path, clip(2, 2), "--json")
    assert '"decoded": 2' in result.out
    assert '"written": 1' in result.out


# ------------------------------------------------------------------------------------ layouts


def test_mpi_inf_3dhp(tmp_path: Path) -> None:
    make(tmp_path / "S1/Seq2/imageSequence/video_4.avi", AVI)
    names = [f"S1/Seq2/imageFrames/video_4/frame_{number:06d}.jpg" for number in (1, 11, 40)]
    config = config_3dhp(tmp_path, names)
    what = ["--dataset", "mpi-inf-3dhp", "--data-config", config, "--workers", 0]
    result = refit("extract-frames", *what)
    assert result.code == 0, result.err
    assert list(shown(tmp_path, names).values()) == [0, 10, 39]
    assert result.out.splitlines()[-1] == "next: refit-shard build --dataset mpi-inf-3dhp"


@pytest.mark.parametrize("file", ["TakingPhoto 1", "Photo 1"])
def test_h36m(file: str, tmp_path: Path) -> None:
    """Spaces are underscores in the npz, and an action may have its other name."""
    make(tmp_path / f"S5/Videos/{file}.58860488.mp4", MP4)
    names = [f"images/S5_TakingPhoto_1.58860488_{number:06d}.jpg" for number in (1, 6, 11)]
    npz = write_npz(tmp_path, names)
    what = ["--dataset", "h36m", "--npz", npz, "--root", tmp_path, "--workers", 0]
    result = refit("extract-frames", *what, "--out", tmp_path / "ssd")
    assert result.code == 0, result.err
    assert list(shown(tmp_path / "ssd", names).values()) == [0, 5, 10]
    assert f"next: H36M_ROOT={tmp_path}/ssd refit-shard build --dataset h36m" in result.out


def test_frames_of_h36m_that_scripts_number_in_two_ways_need_a_word(tmp_path: Path) -> None:
    make(tmp_path / "S9/Videos/Eating.60457274.mp4", MP4)
    names = ["images/S9_Eating.60457274_000001.jpg", "images/S9_Eating.60457274_000006.jpg"]
    npz = write_npz(tmp_path, names)
    what = ["--dataset", "h36m", "--npz", npz, "--root", tmp_path, "--workers", 0]
    refused = refit("extract-frames", *what)
    assert refused.code == 2
    assert "2 frames are of S9 or S11" in error_line(refused)
    assert "--numbering from-0" in error_line(refused)
    assert refit("extract-frames", *what, "--numbering", "from-0").code == 0
    assert list(shown(tmp_path, names).values()) == [1, 6]


@pytest.mark.parametrize("folder", ["scene_6fps", "scene"])
def test_bedlam(folder: str, tmp_path: Path) -> None:
    """Thirty frames a second, from 0; the files are JPEGs, and the build hears so."""
    kind = Kind(codec="libx264", ending=".mp4", rate=30)
    make(tmp_path / folder / "mp4/seq_000003.mp4", kind)
    names = [f"scene_6fps/png/seq_000003/seq_000003_{number:04d}.png" for number in (0, 5, 35)]
    npz = write_npz(tmp_path, names)
    what = ["--dataset", "bedlam", "--npz", npz, "--root", tmp_path, "--workers", 0]
    result = refit("extract-frames", *what)
    assert result.code == 0, result.err
    written = [name.replace(".png", ".jpg") for name in names]
    assert list(shown(tmp_path, written).values()) == [0, 5, 35]
    assert "next: refit-shard build --dataset bedlam --remap '*.png=*.jpg'" in result.out


def test_a_bedlam_video_of_another_rate_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "scene/mp4/seq_000003.mp4", Kind(codec="libx264", ending=".mp4", rate=6))
    npz = write_npz(tmp_path, ["scene/png/seq_000003/seq_000003_0005.png"])
    what = ["--dataset", "bedlam", "--npz", npz, "--root", tmp_path, "--workers", 0]
    result = refit("extract-frames", *what)
    assert result.code == 1
    assert "has 6 frames a second, the annotations number 30" in result.out
    assert not list(tmp_path.rglob("*.jpg"))


# ------------------------------------------------------------------------------ names and uses


@pytest.mark.parametrize(
    ("names", "args", "said"),
    [
        (
            ["000001.jpg"],
            (),
            "none of its 1 names is that of a video's frame, such as '000001.jpg'",
        ),
        (["../clip/000001.jpg"], (), "none of its 1 names"),
        (clip(1, 1), ("--quality", 0), "--quality: must be a whole number from 1 to 100"),
        (clip(1, 1), ("--address", "auto"), "cannot be combined with --address"),
        (clip(1, 1), ("--dataset", "h36m"), "give either --dataset NAME, or"),
    ],
)
def test_wrong_names_and_wrong_use_are_one_line(
    names: list[str], args: tuple[object, ...], said: str, tmp_path: Path
) -> None:
    make(tmp_path / "clip.mp4", MP4, frames=3)
    result = extract(tmp_path, names, *args)
    assert result.code in (1, 2)
    assert said in error_line(result)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_data_set_of_pictures_is_refused() -> None:
    result = refit("extract-frames", "--dataset", "coco")
    assert result.code == 2
    assert "consists of images, not of videos" in error_line(result)


def test_rows_that_name_no_video_are_counted(tmp_path: Path) -> None:
    make(tmp_path / "clip.mp4", MP4, frames=3)
    result = extract(tmp_path, [*clip(1, 1), "clip/cover.jpg", *clip(1, 1)])
    assert result.code == 0
    assert "1 rows (1) name no frame of a video" in result.out


@pytest.mark.parametrize("content", ["absent", "empty", "text", "playlist", "concat"])
def test_what_is_no_video_is_one_line_and_the_others_go_on(content: str, tmp_path: Path) -> None:
    """Nor does a playlist under a video's name have another file read."""
    make(tmp_path / "secret.mp4", MP4, frames=3)
    make(tmp_path / "good.mp4", MP4, frames=3)
    text = {
        "empty": "",
        "text": "no video",
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.mp4\n",
        "concat": f"ffconcat version 1.0\nfile {tmp_path}/secret.mp4\n",
    }
    if content != "absent":
        (tmp_path / "clip.mp4").write_text(text[content])
    result = extract(tmp_path, ["good/2.jpg", *clip(1, 2), *clip(1, 1)])
    assert result.code == 1
    assert (tmp_path / "good/2.jpg").exists()
    assert not (tmp_path / "clip").exists()
    said = "no such video" if content == "absent" else "not a video that can be opened"
    (line,) = [line for line in result.out.splitlines() if line.startswith("clip.mp4: ")]
    assert said in line
    assert line.endswith("rows without a frame: 3 rows (1, 2, 3)")
    assert "2 of 3 frames could not be extracted from 1 videos" in error_line(result)


# ------------------------------------------------------------------------------------- damage


def harm(video: Path, packet: int, how: str) -> None:
    """Spoil one packet of a video, or all from it on."""
    data = bytearray(video.read_bytes())
    begin, size = packets(video)[packet]
    if how == "zeros":
        data[begin : begin + size] = bytes(size)
    elif how == "bits":
        rng = np.random.default_rng(1)
        for at in rng.integers(6, size, 8):
            data[begin + int(at)] ^= 0xFF
    else:
        del data[begin + (size // 2 if how == "cut" else 0) :]
    video.write_bytes(data)


@pytest.mark.parametrize("how", ["zeros", "bits"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_damage_in_the_middle_shifts_no_number(kind: Kind, how: str, tmp_path: Path) -> None:
    """What follows the next key frame is right again, where the places can still be known."""
    video = make(tmp_path / f"clip{kind.ending}", kind, frames=72)
    harm(video, 30, how)
    names = clip(1, 72)
    result = extract(tmp_path, names)
    found = shown(tmp_path, names)
    assert all(value == int(name[5:11]) - 1 for name, value in found.items())
    lost = [int(name[5:11]) - 1 for name in names if name not in found]
    assert lost
    assert result.code == 1
    assert f"{len(lost)} broken" in result.out
    assert 27 <= min(lost) <= 31
    if kind == KINDS["h264, B-frames, avi"]:  # no true times, and not in the order shown
        assert lost == list(range(min(lost), 72))
    else:
        assert max(lost) <= 37  # key frames are every twelve


@pytest.mark.parametrize("at", [19, 20, 21, 22])
@pytest.mark.parametrize("how", ["cut", "gone"])
@pytest.mark.parametrize(
    "name", ["mpeg4, B-frames, avi", "mjpeg, avi", "h264, B-frames, avi", "h264, index first, mp4"]
)
def test_a_video_that_is_too_short_is_named_with_its_rows(
    name: str, how: str, at: int, tmp_path: Path
) -> None:
    """Also where frames that were to be shown before the last ones are those that are missing."""
    kind = KINDS[name]
    video = make(tmp_path / f"clip{kind.ending}", kind)
    harm(video, at, how)
    names = clip(1, 45)
    result = extract(tmp_path, names)
    assert result.code == 1
    found = shown(tmp_path, names)
    assert all(value == int(name[5:11]) - 1 for name, value in found.items())
    assert {*found.values()} >= {*range(16)}
    said = f"{video.name}: too short for its annotations: it has "
    line = next(line for line in result.out.splitlines() if line.startswith(said))
    rows = [row for row, name in enumerate(names) if name not in found]
    assert f"{len(rows)} rows ({', '.join(map(str, rows[:5]))}, …)" in line


def test_a_number_before_the_first_asks_for_the_numbering(tmp_path: Path) -> None:
    make(tmp_path / "clip.mp4", MP4, frames=3)
    result = extract(tmp_path, clip(0, 2))
    assert result.code == 1
    assert (
        "its first frame is number 1, the annotations name 0; is --numbering right?" in result.out
    )


@pytest.mark.parametrize("kind", ["mpeg4, B-frames, avi", "mjpeg, avi", "h264, B-frames, avi"])
def test_a_chunk_that_the_reader_passes_over_shifts_no_number(kind: str, tmp_path: Path) -> None:
    """The name of a chunk of an AVI is damaged, so its packet is lost without a word."""
    video = make(tmp_path / "clip.avi", KINDS[kind], frames=60)
    data = bytearray(video.read_bytes())
    begin, _ = packets(video)[25]
    data[begin - 8 : begin] = bytes(8)
    video.write_bytes(data)
    names = clip(1, 60)
    assert extract(tmp_path, names).code == 1
    found = shown(tmp_path, names)
    assert all(value == int(name[5:11]) - 1 for name, value in found.items())
    assert {*found.values()} >= {*range(20)}


# True places of the frames of each video's packets, and the video.
TRUTH: dict[str, tuple[dict[int, int], bytes, list[tuple[int, int]]]] = {}


def places(folder: Path, name: str) -> list[tuple[int, int | None, bool]]:
    """Packet, place and wholeness of each frame of a video, as our reader gives them; nothing of
    one that it refuses.
    """
    found = []
    with (
        suppress(SourceError),
        (folder / name).open("rb", buffering=0) as file,
        open_video(file, name) as video,
    ):
        found += [(int(str(one.frame.opaque)), one.place, one.is_whole) for one in video.frames()]
    return found


@given(
    name=st.sampled_from(sorted(name for name in KINDS if "B-frames, avi" not in name)),
    spots=st.lists(
        st.tuples(st.integers(0, 47), st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
@settings(max_examples=examples(60), deadline=None)
def test_no_damaged_packet_moves_a_whole_frame(
    name: str,
    spots: list[tuple[int, float, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever bytes of packets are others, a frame that is called whole has its packet's place in
    the undamaged video. (AVI states no times: there damage that the decoder does not notice may
    swap a frame with its neighbours, where these are not stored in the order shown.)
    """
    folder = tmp_path_factory.mktemp("spoilt")
    file = f"clip{KINDS[name].ending}"
    if name not in TRUTH:
        video = make(folder / file, KINDS[name], frames=48)
        shown_at = {packet: place for packet, place, _ in places(folder, file) if place is not None}
        assert sorted(shown_at.values()) == list(range(48))
        TRUTH[name] = shown_at, video.read_bytes(), packets(video)
    truth, whole, where = TRUTH[name]
    data = bytearray(whole)
    for packet, part, value in spots:
        begin, size = where[packet]
        data[begin + int(part * (size - 1))] = value
    (folder / file).write_bytes(data)
    for packet, place, is_whole in places(folder, file):
        assert not is_whole or place in (None, truth[packet])


@given(
    name=st.sampled_from(sorted(KINDS)),
    spots=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    cut=st.floats(0, 1.5),
)
@settings(max_examples=examples(60), deadline=None)
def test_no_damage_of_a_file_is_more_than_a_line(
    name: str,
    spots: list[tuple[float, int]],
    cut: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("spoilt")
    kind = KINDS[name]
    data = bytearray(make(folder / f"clip{kind.ending}", kind, frames=12).read_bytes())
    for where, value in spots:
        data[int(where * (len(data) - 1))] = value
    (folder / f"clip{kind.ending}").write_bytes(data[: int(min(1.0, cut) * len(data))])
    result = extract(folder, clip(1, 12))
    assert result.code in (0, 1)
    assert "internal error" not in result.err
    if result.code:
        assert "frames could not be extracted from 1 videos" in error_line(result)


# ------------------------------------------------------------------------- stopping, going on


def frames_below(folder: Path) -> Mapping[str, str]:
    """Hashes of the frames, without what the command keeps for itself."""
    return {name: one for name, one in hashes(folder).items() if name.endswith(".jpg")}


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Killed without warning, again and again, it ends with the bytes of an undisturbed run."""
    make(tmp_path / "clip.mp4", MP4, frames=200)
    make(tmp_path / "other.avi", AVI, frames=200)
    names = [*clip(1, 200), *(f"other/{number:06d}.jpg" for number in range(1, 201))]
    assert extract(tmp_path, names, "--out", tmp_path / "quiet").code == 0
    out = tmp_path / "killed"
    npz = tmp_path / "names.npz"
    what = ["--npz", npz, "--root", tmp_path, "--name", "own", "--out", out, "--workers", 0]
    kills = 0
    for wanted in (10, 120, 260):
        process = subprocess.Popen(
            refit_command("extract-frames", *what),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and sum(1 for _ in out.rglob("*.jpg")) < wanted:
            time.sleep(0.002)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills
    torn = out / "clip/000003.jpg"
    torn.write_bytes(torn.read_bytes()[:-100])
    (out / "clip/.000004.jpg.ab12.tmp").write_bytes(b"half")
    result = extract(tmp_path, names, "--out", out)
    assert result.code == 0, result.err
    assert frames_below(out) == frames_below(tmp_path / "quiet")
    assert not list(out.rglob("*.tmp"))
    again = extract(tmp_path, names, "--out", out)
    assert "0 written, 400 kept, 0 from another program" in again.out
    assert "; 0 decoded" in again.out


def test_whole_frames_from_elsewhere_stay_and_damaged_ones_do_not(tmp_path: Path) -> None:
    make(tmp_path / "clip.mp4", MP4, frames=4)
    whole = cv2.imencode(".jpg", np.full((128, 192, 3), 200, np.uint8))[1].tobytes()
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/000001.jpg").write_bytes(whole)
    (tmp_path / "clip/000002.jpg").write_bytes(whole[:-20])
    (tmp_path / "clip/000003.jpg").write_bytes(b"")
    result = extract(tmp_path, clip(1, 4))
    assert result.code == 0
    assert "3 written, 0 kept, 1 from another program" in result.out
    assert (tmp_path / "clip/000001.jpg").read_bytes() == whole
    assert [read_file(tmp_path / name) for name in clip(2, 4)] == [1, 2, 3]


def test_other_options_are_refused_and_overwrite_makes_all_anew(tmp_path: Path) -> None:
    """Also where the overwriting was stopped: no frame of the old numbers is taken for a new."""
    make(tmp_path / "clip.mp4", MP4, frames=8)
    names = clip(1, 7)
    assert extract(tmp_path, names).code == 0
    refused = extract(tmp_path, names, "--numbering", "from-0")
    assert refused.code == 2
    assert "--overwrite" in error_line(refused)
    assert list(shown(tmp_path, names).values()) == list(range(7))
    (tmp_path / "clip.mp4").rename(tmp_path / "away.mp4")
    assert extract(tmp_path, names, "--numbering", "from-0", "--overwrite").code == 1
    (tmp_path / "away.mp4").rename(tmp_path / "clip.mp4")
    assert extract(tmp_path, names, "--numbering", "from-0").code == 0
    assert list(shown(tmp_path, names).values()) == list(range(1, 8))


def test_a_video_that_was_replaced_gives_its_frames_anew(tmp_path: Path) -> None:
    video = make(tmp_path / "clip.avi", AVI, frames=20)
    harm(video, 8, "cut")
    names = clip(1, 20)
    assert extract(tmp_path, names).code == 1
    make(tmp_path / "clip.avi", AVI, frames=20)
    result = extract(tmp_path, names)
    assert result.code == 0
    assert "20 written, 0 kept" in result.out


def crash_on_other(recipe: VideoRecipe, task: VideoTask) -> VideoResult:
    """As FFmpeg might on one video."""
    if task.name == "other.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    return extract_video(recipe, task)


def test_a_video_on_which_ffmpeg_crashes_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Ray; the other videos' frames are those of a run without it."""
    for name, kind in (("clip.mp4", MP4), ("other.mp4", MP4), ("third.avi", AVI)):
        make(tmp_path / name, kind, frames=12)
    names = [*clip(1, 12), "third/3.jpg", "other/1.jpg"]
    assert extract(tmp_path, names, "--out", tmp_path / "here").code == 0
    monkeypatch.setattr("refit_shard.converter.videos.driver.extract_video", crash_on_other)
    result = extract(tmp_path, names, "--out", tmp_path / "there", workers=2)
    assert result.code == 1
    (line,) = [line for line in result.out.splitlines() if line.startswith("other.mp4: ")]
    assert "FFmpeg crashed on it" in line
    assert line.endswith("rows without a frame: 1 rows (13)")
    here, there = (frames_below(tmp_path / name) for name in ("here", "there"))
    assert here.keys() - there.keys() == {"other/1.jpg"}
    assert there.items() <= here.items()


def test_the_plan_is_in_order_and_opens_no_video(tmp_path: Path) -> None:
    names = ["b/2.jpg", "a/000010.jpg", "b/1.jpg", "a/9.jpg", "b/2.jpg"]
    dataset = Dataset(name="own", root_variable="--root")
    npz, place = str(write_npz(tmp_path, names)), str(tmp_path)
    plan = plan_videos(VideoRequest(dataset=dataset, npz=npz, root=place, out=place))
    assert [task.frames for task in plan.tasks] == [
        (("a/9.jpg", 9), ("a/000010.jpg", 10)),
        (("b/1.jpg", 1), ("b/2.jpg", 2)),
    ]
    assert list(plan.rows["b/2.jpg"]) == [0, 4]
    assert os.listdir(tmp_path) == ["names.npz"]


# ------------------------------------------------------------------------------------- doctor


def test_doctor_names_the_next_step_for_bare_videos(tmp_path: Path) -> None:
    for video in ("video_0", "video_1"):
        make(tmp_path / f"S1/Seq1/imageSequence/{video}.avi", AVI, frames=3)
    frame = "S1/Seq1/imageFrames/{}/frame_000001.jpg"
    config = config_3dhp(tmp_path, [frame.format(f"video_{i}") for i in range(3)])
    result = refit("doctor", "--data-config", config)
    assert result.code == 1
    assert (
        "-> 2 videos contain them: run refit-shard extract-frames --dataset mpi-inf-3dhp"
        in result.out
    )
