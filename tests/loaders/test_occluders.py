"""Occluders: what the importer admits, what it refuses unrun, and how they are pasted."""

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image as PillowImage

from refit_shard import Occluders
from refit_shard.cli import main
from refit_shard.loaders.items.draws import Occlusion
from refit_shard.loaders.items.occluder_import import read_pickle, read_voc
from refit_shard.loaders.items.occluders import occluder_bytes
from refit_shard.shards_spec.errors import SourceError, UsageError
from tests.loaders.pasting import pasted
from tests.refit_reference import psnr

Image = NDArray[np.uint8]


def cut_outs(count: int = 4) -> list[Image]:
    """Seeded RGBA discs of several sizes."""
    rng = np.random.default_rng(5)
    made = []
    for _ in range(count):
        height, width = rng.integers(20, 90, 2)
        rgba = rng.integers(0, 256, (height, width, 4)).astype(np.uint8)
        y, x = np.mgrid[:height, :width]
        inside = ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2) < 0.25
        rgba[:, :, 3] = np.where(inside, rgba[:, :, 3], 0)
        made.append(rgba)
    return made


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    """Lists of arrays, in either memory order, come out as they went in."""
    wanted = cut_outs()
    wanted.append(np.asfortranarray(wanted[0]))
    path = tmp_path / "occluders.pkl"
    path.write_bytes(pickle.dumps(wanted, protocol=protocol))
    for found, expected in zip(read_pickle(path), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


def joblib_bytes(arrays: list[Image], padding: int | None) -> bytes:
    """What joblib writes, by hand: after each wrapper's BUILD the array's bytes follow."""
    out = [b"\x80\x03]("]
    for array in arrays:
        state = {
            "subclass": np.ndarray,
            "shape": array.shape,
            "order": "C",
            "dtype": array.dtype,
            "allow_mmap": True,
        }
        if padding is not None:
            state["numpy_array_alignment_bytes"] = 16
        inner = pickle.dumps(state, protocol=3)[2:-1]  # without the PROTO and STOP opcodes
        out.append(b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + inner + b"b")
        if padding is not None:
            out.append(bytes([padding]) + b"\xff" * padding)
        out.append(array.tobytes())
    return b"".join([*out, b"e."])


@pytest.mark.parametrize("padding", [None, 0, 7])
def test_joblib_files_are_read(tmp_path: Path, padding: int | None) -> None:
    """joblib's own format, with and without its alignment padding."""
    wanted = cut_outs(2)
    path = tmp_path / "pascal_occluders.pkl"
    path.write_bytes(joblib_bytes(wanted, padding))
    for found, expected in zip(read_pickle(path), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return _touch, (str(self.path),)


def _touch(path: str) -> None:
    Path(path).touch()


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    """The planted call does not happen, and the refusal names what was asked for."""
    planted = tmp_path / "planted"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([Evil(planted)]))
    pickle.loads(path.read_bytes())  # noqa: S301  (the plant works)
    assert planted.exists()
    planted.unlink()
    with pytest.raises(SourceError, match="_touch"):
        read_pickle(path)
    assert not planted.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([np.zeros((4, 4), np.uint8)], r"\(H, W, 4\)"),
        ([np.zeros((4, 4, 3), np.uint8)], r"\(H, W, 4\)"),
        ([np.zeros((4, 4, 4), np.float64)], "uint8"),
        ([np.array([{}], object)], "only numbers are read"),
        ({"a": 1}, "list"),
        ([], "list"),
        ([1, 2], "nothing else"),
    ],
)
def test_other_pickles_are_one_clear_line(tmp_path: Path, content: object, said: str) -> None:
    """What is not a list of RGBA arrays is refused by name."""
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(SourceError, match=said) as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)


def test_damaged_pickles_are_our_errors(tmp_path: Path) -> None:
    """Cut at every length, a file is refused; it never crashes, hangs or takes memory."""
    whole = joblib_bytes(cut_outs(1), 0)
    path = tmp_path / "cut.pkl"
    for length in [*range(0, 200), *range(200, len(whole) - 1, 997)]:
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            read_pickle(path)


def voc_folder(root: Path) -> Path:
    """A Pascal VOC 2012 folder with one picture of four objects."""
    for name in ("Annotations", "JPEGImages", "SegmentationObject"):
        (root / name).mkdir(parents=True)
    labels = np.zeros((120, 160), np.uint8)
    labels[10:50, 10:60] = 1  # a dog: wanted
    labels[60:100, 10:60] = 2  # a person
    labels[60:100, 80:130] = 3  # a truncated cat
    labels[10:20, 80:90] = 4  # a bird of 100 px: too small
    boxes = {1: (6, 6, 64, 54), 2: (10, 60, 60, 100), 3: (80, 60, 130, 100), 4: (80, 10, 90, 20)}
    objects = ""
    for number, name, truncated in ((1, "dog", 0), (2, "person", 0), (3, "cat", 1), (4, "bird", 0)):
        x0, y0, x1, y1 = boxes[number]
        objects += (
            f"<object><name>{name}</name><truncated>{truncated}</truncated>"
            f"<difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        )
    text = f"<annotation><segmented>1</segmented>{objects}</annotation>"
    (root / "Annotations" / "2012_000001.xml").write_text(text)
    palette = PillowImage.frombytes("P", (160, 120), labels.tobytes())
    palette.putpalette(list(range(256)) * 3)
    palette.save(root / "SegmentationObject" / "2012_000001.png")
    PillowImage.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(
        root / "JPEGImages" / "2012_000001.jpg", quality=95
    )
    return root


def test_voc_gives_the_whole_easy_things(tmp_path: Path) -> None:
    """Of a dog, a person, a truncated cat and a tiny bird only the dog is cut out, halved."""
    folder = voc_folder(tmp_path / "VOC2012")
    (folder / "Annotations" / "._2012_000001.xml").write_bytes(b"\x00\x05\x16\x07 a Mac's")
    (found,) = list(read_voc(folder))
    assert found.shape == (24, 29, 4)
    assert found[12, 14, 3] == 255
    assert found[12, 3, 3] == 192, "the edge is softened"
    assert abs(int(found[12, 14, 0]) - 90) <= 2


def test_the_command_writes_a_file_that_the_loader_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pickle and VOC both become an Arrow file; wrong use exits with 2."""
    wanted = cut_outs()
    source, out = tmp_path / "o.pkl", tmp_path / "sub" / "o.arrow"
    source.write_bytes(pickle.dumps(wanted))
    assert main(["import-occluders", str(source), "--out", str(out)]) == 0
    assert "4 occluders" in capsys.readouterr().out
    read = Occluders(str(out))
    assert len(read) == 4
    for index, expected in enumerate(wanted):
        np.testing.assert_array_equal(read[index], expected)
        assert not read[index].flags.writeable
    folder = voc_folder(tmp_path / "VOC2012")
    assert main(["import-occluders", "--voc", str(folder), "--out", str(out)]) == 0
    assert main(["import-occluders", "--out", str(out)]) == 2
    assert main(["import-occluders", "--voc", str(tmp_path), "--out", str(out)]) == 2


def test_other_arrow_files_are_refused(tmp_path: Path) -> None:
    """A wrong size, a wrong file, no file: each a UsageError."""
    path = tmp_path / "o.arrow"
    with pytest.raises(UsageError, match="no such file"):
        Occluders(str(path))
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="not an Arrow file"):
        Occluders(str(path))
    path.write_bytes(occluder_bytes(cut_outs(1))[:-100])
    with pytest.raises(UsageError):
        Occluders(str(path))


def opened(cut_out: Image, folder: Path) -> Occluders:
    """A file of one cut-out."""
    path = folder / "occluders.arrow"
    path.write_bytes(occluder_bytes([cut_out]))
    return Occluders(str(path))


@pytest.mark.parametrize("place", [(30.0, 40.0), (0.0, 0.0), (127.6, 3.2), (500.0, 10.0)])
@pytest.mark.parametrize("size", [0.25, 0.5, 1.0])
def test_pasting_blends_as_described(
    place: tuple[float, float], size: float, tmp_path: Path
) -> None:
    """Against the blend written out in floating point, of a cut-out shrunk by area."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (128, 128, 3)).astype(np.uint8)
    occluder = cut_outs(1)[0][:64, :48]  # so that every size is a whole number of halves
    w, h = round(occluder.shape[1] * size), round(occluder.shape[0] * size)
    occluders = opened(occluder, tmp_path)
    small = cv2.resize(occluder, (w, h), interpolation=cv2.INTER_AREA).astype(float)
    expected = image.astype(float)
    left, top = round(place[0] - w / 2), round(place[1] - h / 2)
    for v in range(h):
        for u in range(w):
            y, x = top + v, left + u
            if 0 <= y < 128 and 0 <= x < 128:
                alpha = small[v, u, 3] / 255
                expected[y, x] = alpha * small[v, u, :3] + (1 - alpha) * expected[y, x]
    found = pasted(image, occluders, [Occlusion(index=0, x=place[0], y=place[1], size=size)])
    assert np.abs(found - expected).max() <= 3.0, "two halvings round twice, alpha too"
    assert np.abs(found - expected).mean() <= 0.5


@pytest.mark.parametrize("size", [0.2, 0.33, 0.61, 0.87])
def test_other_sizes_are_close_to_area_interpolation(size: float, tmp_path: Path) -> None:
    """On a photograph's texture, a shrunk cut-out is within 30 dB of ReFit's area interpolation."""
    texture = np.asarray(skimage.data.astronaut(), np.uint8)[:200, :200]  # type: ignore[no-untyped-call]
    photo = np.dstack([texture, np.full((200, 200), 255, np.uint8)])
    side = round(200 * size)
    area = np.asarray(cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    one = Occlusion(index=0, x=side / 2, y=side / 2, size=size)
    made = pasted(np.zeros((side, side, 3), np.uint8), opened(photo, tmp_path), [one])
    assert psnr(made, area[:, :, :3]) >= 30.0
