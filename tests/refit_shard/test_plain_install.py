"""What works without the extra [build], whose packages are hidden here, and what is said of the
rest.
"""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from refit_shard.cli import BUILD_MODULES
from tests.refit_shard.test_data_config import write_config
from tests.small import Own

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""
COMMAND = "from refit_shard.cli import main; sys.exit(main(sys.argv[1:]))"
STREAM = """
import refit_shard
options = refit_shard.StreamOptions(batch_size=2, num_workers=2)
loader = refit_shard.StreamingLoader({"own": (sys.argv[1], 1.0)}, options)
print(tuple(next(iter(loader))["img"].shape))
"""


def plain_python(
    code: str, *args: object, hidden: Collection[str] = BUILD_MODULES
) -> subprocess.CompletedProcess[str]:
    """Run code in a process where some packages cannot be imported: those of [build]."""
    program = HIDE.format(hidden=sorted(hidden)) + code
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Six rows of a dataset, in shards."""
    names = [f"imageFiles/scene/{row // 2:03d}.jpg" for row in range(6)]
    tree = Own(tmp_path_factory.mktemp("plain"), names)
    assert tree.build().code == 0
    return tree


def test_a_stream_needs_no_package_of_the_extra(tree: Own) -> None:
    done = plain_python(STREAM, tree.out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(2, 3, 256, 256)\n"


def test_a_stream_imports_no_package_that_it_does_not_use(tree: Own) -> None:
    """Arrow imports pandas in many of its calls, which takes 0.3 s and 30 MB."""
    heavy = {"pandas", "pyarrow.compute", "pyarrow.dataset", "cv2", "PIL", "rich"}
    code = STREAM + f"import sys; print(sorted({heavy} & sys.modules.keys()))"
    done = plain_python(code, tree.out, hidden=())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "[]"


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["build", "--help"]])
def test_help_needs_no_package_of_the_extra(args: list[str]) -> None:
    done = plain_python(COMMAND, *args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("usage: refit-shard", "refit-shard 0."))


@pytest.mark.parametrize("command", ["verify", "info"])
def test_shards_are_verified_and_listed_without_the_extra(tree: Own, command: str) -> None:
    done = plain_python(COMMAND, command, tree.out)
    assert done.returncode == 0, done.stderr
    assert "own" in done.stdout


def test_simulate_needs_no_package_of_the_extra(tree: Own, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("DATASET:\n  LIST: [own]\n  PARTITION: [1.0]\n")
    done = plain_python(
        COMMAND,
        "simulate",
        config,
        "--shards",
        tree.out.parent,
        "--cache",
        "1GB",
    )
    assert done.returncode == 0, done.stderr


def test_bench_needs_no_package_of_the_extra(tree: Own) -> None:
    done = plain_python(COMMAND, "bench", tree.out, "--rounds", 1, "--seconds", 0.01)
    assert done.returncode == 0, done.stderr
    assert "bare decode" in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ["build", "--npz", "{npz}", "--root", "{root}", "--name", "own", "--out", "{new}"],
        ["doctor", "--data-config", "{config}"],
        ["preview", "{out}", "--out", "{new}.png"],
        ["report", "{out}", "--out", "{new}.html"],
        ["import-occluders", "{npz}", "--out", "{new}"],
        ["subset-3dpw", "--data-config", "{config}"],
        ["add-labels", "{out}", "{npz}", "--keep", "mine"],
        ["extract-frames", "--npz", "{npz}", "--root", "{root}", "--name", "own"],
    ],
    ids=lambda args: args[0],
)
def test_a_command_of_the_extra_names_it_and_changes_nothing(
    args: list[str], tree: Own, tmp_path: Path
) -> None:
    config = write_config(tree.folder, COCO_ROOT=tree.root, PW3D_ROOT=tree.root)
    extras = tree.folder / "data/dataset_extras"
    extras.mkdir(parents=True, exist_ok=True)
    for name in ("coco_2014_eft.npz", "3dpw_test.npz"):
        (extras / name).write_bytes(tree.npz.read_bytes())
    places = {"npz": tree.npz, "root": tree.root, "out": tree.out, "new": tmp_path / "new"}
    places["config"] = config
    done = plain_python(COMMAND, *(word.format(**places) for word in args))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"refit-shard: {args[0]} needs modules that are not installed (No module named "
    )
    assert line.endswith("): pip install 'refit-shard[build]'")
    assert done.stdout == ""
    assert not any(tmp_path.iterdir())


def test_annotations_need_the_extra_import_and_say_so(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    poses = tmp_path / "S1/MyPoseFeatures/D3_Positions_mono/A.1.cdf"
    poses.parent.mkdir(parents=True)
    poses.write_bytes(b"")
    for source, hidden in (
        (tmp_path / "a.json", "scipy"),
        (tmp_path, "h5py"),
        (tmp_path, "cdflib"),
    ):
        command = ["import-annotations", source, "--out", tmp_path / "o.npz"]
        done = plain_python(COMMAND, *command, hidden={hidden})
        assert done.returncode == 2, done.stderr
        assert f"No module named '{hidden}'" in done.stderr
        assert done.stderr.endswith("): pip install 'refit-shard[import]'\n")
        assert done.stderr.count("\n") == 1


def test_the_extra_of_videos_is_named_where_it_alone_is_missing(tree: Own) -> None:
    what = ["--npz", tree.npz, "--root", tree.root, "--name", "own"]
    done = plain_python(COMMAND, "extract-frames", *what, hidden={"av"})
    assert done.returncode == 2
    assert done.stderr.endswith("(No module named 'av'): pip install 'refit-shard[videos]'\n")


@pytest.mark.parametrize("missing", ["vl_convert", "jinja2"])
def test_the_extra_of_reports_is_named_where_it_alone_is_missing(
    tree: Own, tmp_path: Path, missing: str
) -> None:
    out = tmp_path / "page.html"
    done = plain_python(COMMAND, "report", tree.out, "--out", out, hidden={missing})
    assert done.returncode == 2
    assert done.stderr.endswith(
        f"(No module named '{missing}'): pip install 'refit-shard[report]'\n"
    )
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_another_module_that_is_missing_is_not_blamed_on_the_extra(tree: Own) -> None:
    done = plain_python(COMMAND, "verify", tree.out, hidden={"crc32c"})
    assert done.returncode == 1
    assert "a module cannot be imported" in done.stderr
    assert "[build]" not in done.stderr
