"""Videos in archives: the frames are those of the unpacked videos, or a line says why not."""

import errno
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest
from av.video.stream import VideoStream

from refit_shard.converter import reading
from refit_shard.converter.archives.find import open_archive
from refit_shard.converter.archives.index import LISTS_FOLDER
from refit_shard.converter.videos.places import find_video, locate
from refit_shard.converter.videos.plan import VideoTask
from refit_shard.converter.videos.work import VideoRecipe, extract_video
from refit_shard.shards_spec.errors import PassingError
from refit_shard.shards_spec.storage.folder import open_folder
from tests.converter.made_video import Kind, make, read_file
from tests.converter.packing import deflated, tar_of, zip_of
from tests.converter.test_videos import AVI, MP4, clip, config_3dhp, extract, write_npz
from tests.small import Result, error_line, hashes, refit, refit_command

THIRTY = Kind(codec="libx264", ending=".mp4", rate=30)
SCENE = "20221010_3_1000_batch01hand"
NUMBERS = (0, 5, 35)
NAMES = [
    f"{SCENE}_6fps/png/seq_{seq:06d}/seq_{seq:06d}_{number:04d}.png"
    for seq in (0, 3)
    for number in NUMBERS
]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of 30 frames a second."""
    return make(tmp_path_factory.mktemp("made") / "seq.mp4", THIRTY).read_bytes()


def bedlam(root: Path, *args: object) -> Result:
    """Extract frames of two sequences of one scene of BEDLAM."""
    what = ["--dataset", "bedlam", "--npz", write_npz(root, NAMES), "--root", root]
    return refit("extract-frames", *what, "--workers", 0, *args)


def jpegs(folder: Path) -> dict[str, str]:
    """Hashes of the frames."""
    return {name: one for name, one in hashes(folder).items() if name.endswith(".jpg")}


# ------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize(
    ("archive", "folder"),
    [
        (f"{SCENE}/mp4/{SCENE}_mp4.tar", ""),
        (f"{SCENE}/mp4/{SCENE}_mp4.tar", f"{SCENE}/mp4/"),
        (f"{SCENE}_mp4.tar", "./mp4/"),
        (f"{SCENE}_6fps/{SCENE}_6fps_mp4.tar", "mp4/"),
        (f"downloads/{SCENE}_mp4.tar", f"./{SCENE}/mp4/"),
        ("videos.zip", f"{SCENE}_6fps/mp4/"),
    ],
)
def test_a_tar_of_bedlams_videos_is_read_where_it_lies(
    archive: str, folder: str, video: bytes, tmp_path: Path
) -> None:
    """The frames are those of the unpacked videos, to the byte, and the tar is left as it is."""
    members = {f"{folder}seq_{number:06d}.mp4": video for number in (3, 0)}
    place = tmp_path / "packed" / archive
    place.parent.mkdir(parents=True)
    place.write_bytes(zip_of(members) if archive.endswith(".zip") else tar_of(members))
    before = place.stat()
    result = bedlam(tmp_path / "packed", "--out", tmp_path / "frames")
    assert result.code == 0, result.out
    assert "6 written" in result.out
    assert place.stat().st_mtime_ns == before.st_mtime_ns
    for number in (0, 3):
        plain = tmp_path / "plain" / f"{SCENE}/mp4/seq_{number:06d}.mp4"
        plain.parent.mkdir(parents=True, exist_ok=True)
        plain.write_bytes(video)
    assert bedlam(tmp_path / "plain").code == 0
    assert jpegs(tmp_path / "frames") == jpegs(tmp_path / "plain")
    shown = [read_file(tmp_path / "frames" / name.replace(".png", ".jpg")) for name in NAMES]
    assert shown == [*NUMBERS, *NUMBERS]


def test_a_video_of_its_own_comes_before_a_member(video: bytes, tmp_path: Path) -> None:
    """So a tar may be unpacked in part. The tar is listed once, and again when it changes."""
    tar = tmp_path / f"{SCENE}_mp4.tar"
    tar.write_bytes(tar_of({f"mp4/seq_{number:06d}.mp4": b"no video" for number in (0, 3)}))
    for number in (0, 3):
        assert bedlam(tmp_path).code == 1
        place = tmp_path / SCENE / "mp4" / f"seq_{number:06d}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(video)
    kept = list((tmp_path / ".extract-frames" / LISTS_FOLDER).iterdir())
    assert len(kept) == 1
    result = bedlam(tmp_path)
    assert result.code == 0, result.out
    assert "3 written, 3 kept" in result.out


def test_the_zips_of_mpi_inf_3dhp(tmp_path: Path) -> None:
    """Stored videos are read where they are; deflated ones cannot be, as they are read in parts."""
    folder = tmp_path / "S1/Seq1/imageSequence"
    data = [make(tmp_path / f"video_{i}.avi", AVI, frames=12).read_bytes() for i in range(2)]
    folder.mkdir(parents=True)
    (folder / "vnect_cameras.zip").write_bytes(zip_of({"video_0.avi": data[0]}, streamed=True))
    (folder / "other.zip").write_bytes(deflated({"video_1.avi": data[1]}))
    names = [f"S1/Seq1/imageFrames/video_{i}/frame_{n:06d}.jpg" for i in range(2) for n in (1, 11)]
    config = config_3dhp(tmp_path, names)
    what = ["--dataset", "mpi-inf-3dhp", "--data-config", config, "--workers", 0]
    result = refit("extract-frames", *what)
    assert result.code == 1
    assert [read_file(tmp_path / name) for name in names[:2]] == [0, 10]
    said = "S1/Seq1/imageSequence/video_1.avi in S1/Seq1/imageSequence/other.zip: is compressed in"
    (line,) = [line for line in result.out.splitlines() if line.startswith(said)]
    assert "unpack it; rows without a frame: 2 rows (2, 3)" in line


def test_doctor_sees_videos_in_tars_and_writes_nothing(video: bytes, tmp_path: Path) -> None:
    root = tmp_path / "bedlam"
    place = root / f"{SCENE}/mp4/{SCENE}_mp4.tar"
    place.parent.mkdir(parents=True)
    place.write_bytes(tar_of({f"seq_{number:06d}.mp4": video for number in (0, 3)}))
    files = [{}, {"bedlam": str(write_npz(tmp_path, NAMES))}]
    config = tmp_path / "data_config.py"
    config.write_text(f"BEDLAM_ROOT = {str(root)!r}\nDATASET_FILES = {files!r}\n")
    before = hashes(root)
    result = refit("doctor", "--data-config", config)
    assert "-> 2 videos contain them: run refit-shard extract-frames --dataset bedlam" in result.out
    assert hashes(root) == before


@pytest.mark.parametrize("name", ["my clips/a b", "a\nb/日 ü", "concat:x/y", "-i"])
@pytest.mark.parametrize("ending", [".mp4", ".MP4"])
def test_names_of_any_kind_are_files(name: str, ending: str, video: bytes, tmp_path: Path) -> None:
    """None is an option or an address to FFmpeg."""
    place = tmp_path / f"{name}{ending}"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(video)
    result = extract(tmp_path, [f"{name}/000003.jpg"])
    assert result.code == 0, result.out
    assert read_file(tmp_path / name / "000003.jpg") == 2


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "libx264"), (".avi", "mpeg4")])
def test_a_video_without_a_frame_is_too_short(ending: str, codec: str, tmp_path: Path) -> None:
    options = {"movflags": "empty_moov"} if ending == ".mp4" else {}
    with av.open(str(tmp_path / f"clip{ending}"), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    result = extract(tmp_path, clip(1, 3))
    assert result.code == 1
    assert "it has 0 frames, they name 3 more, up to number 3" in result.out


# ------------------------------------------------------------------------------------- damage


def test_a_video_cut_within_a_tar_is_too_short(video: bytes, tmp_path: Path) -> None:
    """It does not go on into the next member."""
    place = tmp_path / "clip.tar"
    place.write_bytes(tar_of({"clip.mp4": video[: len(video) // 2], "other.mp4": video}))
    result = extract(tmp_path, [*clip(1, 3), "other/000002.jpg"])
    assert result.code == 1
    assert "1 written" in result.out
    assert read_file(tmp_path / "other/000002.jpg") == 1


def test_a_tar_that_is_cut_short_is_one_line(video: bytes, tmp_path: Path) -> None:
    place = tmp_path / f"{SCENE}_mp4.tar"
    place.write_bytes(tar_of({f"mp4/seq_{number:06d}.mp4": video for number in (0, 3)})[:-20000])
    result = bedlam(tmp_path)
    assert result.code == 1
    assert f"{SCENE}_mp4.tar: cut short" in error_line(result)
    assert "download it again" in error_line(result)


def test_two_archives_with_one_video_are_an_error_that_names_both(
    video: bytes, tmp_path: Path
) -> None:
    for name in ("one.tar", "two.tar"):
        (tmp_path / name).write_bytes(tar_of({"clip.mp4": video}))
    line = error_line(extract(tmp_path, clip(1, 3)))
    assert "one.tar" in line
    assert "two.tar" in line


def test_a_video_in_a_compressed_tar_is_said_to_need_unpacking(tmp_path: Path) -> None:
    (tmp_path / "Videos_S1.tgz").write_bytes(b"\x1f\x8b" + bytes(60))
    result = extract(tmp_path, clip(1, 3))
    assert result.code == 1
    assert "clip.mp4: no such video" in result.out
    assert (
        "compressed as a whole, so not searched; unpack it if the video is in it: Videos_S1.tgz"
        in result.out
    )


# ------------------------------------------------------------------ stopping, changing, failing


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Killed without warning, it ends with the bytes of an undisturbed run."""
    data = make(tmp_path / "made.mp4", MP4, frames=120).read_bytes()
    (tmp_path / "both.tar").write_bytes(tar_of({"clip.mp4": data, "other.mp4": data}))
    names = [*clip(1, 120), *(f"other/{number:06d}.jpg" for number in range(1, 121))]
    assert extract(tmp_path, names, "--out", tmp_path / "quiet").code == 0
    out = tmp_path / "killed"
    what = ["--npz", tmp_path / "names.npz", "--root", tmp_path, "--name", "own", "--out", out]
    process = subprocess.Popen(
        refit_command("extract-frames", *what, "--workers", 0),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and sum(1 for _ in out.rglob("*.jpg")) < 130:
        time.sleep(0.002)
    was_killed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert was_killed
    result = extract(tmp_path, names, "--out", out)
    assert result.code == 0, result.err
    assert "120 kept" not in result.out.replace("240 kept", "")
    assert jpegs(out) == jpegs(tmp_path / "quiet")


def task_in(root: Path, name: str = "clip") -> VideoTask:
    """A task of frames of a video that an archive below the root holds."""
    frames = tuple((f"{name}/{number:06d}.jpg", number) for number in (1, 2))
    plain = VideoTask(index=0, videos=(f"{name}.mp4",), frames=frames)
    kept = open_folder(str(root / "none"))
    (located,) = locate([plain], str(root), kept, keep=False).tasks
    assert located.member is not None
    return located


def recipe_of(root: Path) -> VideoRecipe:
    return VideoRecipe(root=str(root), out=str(root / "out"), quality=95, first=1, rate=None)


def test_a_tar_that_is_replaced_meanwhile_says_nothing_of_its_video(
    video: bytes, tmp_path: Path
) -> None:
    """Its frames are not called broken; the next run makes them."""
    tar = tmp_path / "clip.tar"
    tar.write_bytes(tar_of({"clip.mp4": video}))
    task = task_in(tmp_path)
    (tmp_path / "out/.extract-frames").mkdir(parents=True)
    os.utime(tar, (1, 1))
    with pytest.raises(PassingError, match="was changed, moved or deleted"):
        extract_video(recipe_of(tmp_path), task)
    assert extract_video(recipe_of(tmp_path), task_in(tmp_path)).written == 2


def test_a_disk_that_fails_in_the_middle_breaks_no_frame(
    video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video is one that failed, not one that is damaged, and what was written stays."""
    monkeypatch.setattr(reading, "PAUSES", ())
    tar = tmp_path / "clip.tar"
    tar.write_bytes(tar_of({"clip.mp4": video}))
    place = find_video(str(tmp_path), task_in(tmp_path))
    assert place is not None
    (tmp_path / "out/.extract-frames").mkdir(parents=True)

    class Failing:
        """An archive on a disk that breaks."""

        def __init__(self, file: object) -> None:
            self.file, self.reads = file, 0

        def read_at(self, count: int, offset: int) -> bytes:
            self.reads += 1
            if self.reads > 1:
                raise OSError(errno.EIO, "Input/output error")
            return bytes(self.file.read_at(count, offset))  # type: ignore[attr-defined]

        def close(self) -> None:
            self.file.close()  # type: ignore[attr-defined]

    def failing(*args: object) -> Failing:
        return Failing(open_archive(*args))  # type: ignore[arg-type]

    monkeypatch.setattr("refit_shard.converter.videos.places.open_archive", failing)
    monkeypatch.setattr("refit_shard.converter.videos.decode._READ", 4096)
    with pytest.raises(PassingError, match="Input/output error"):
        extract_video(recipe_of(tmp_path), task_in(tmp_path))


@pytest.mark.parametrize("wrong", ["begins elsewhere", "is shorter"])
def test_a_list_of_another_archive_gives_no_other_bytes(
    wrong: str, video: bytes, tmp_path: Path
) -> None:
    """A zip's member whose header is not there, or that reaches into the next one."""
    (tmp_path / "clip.zip").write_bytes(zip_of({"clip.mp4": video}))
    task = task_in(tmp_path)
    assert task.member is not None
    path, member = task.member
    changed = {
        "begins elsewhere": replace(member, begin=member.begin + 1, span=member.span - 1),
        "is shorter": replace(member, span=member.span - 60),
    }
    (tmp_path / "out/.extract-frames").mkdir(parents=True)
    lying = replace(task, member=(path, changed[wrong]))
    result = extract_video(recipe_of(tmp_path), lying)
    assert result.written == 0
    assert "in clip.zip" in result.faults[0]
