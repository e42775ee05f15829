"""The wheel as a user has it: made from the sdist, installed outside the checkout, and used in a
folder whose own packages have the names of our folders.
"""

import ctypes
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from refit_shard import __version__
from tests.small import PROJECT, Own, own

OURS = ("body_models", "converter", "loaders", "shards_spec", "benchmarks", "data_config")
STREAM = """
import refit_shard
options = refit_shard.StreamOptions(batch_size=2, num_workers=2)
loader = refit_shard.StreamingLoader({"own": ("shards/own", 1.0)}, options)
print(refit_shard.__file__, len(list(loader)))
"""


def copy_of_the_checkout(folder: Path) -> Path:
    """The files that git tracks or would track, links as links: building leaves traces there."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=PROJECT, capture_output=True, check=True).stdout
    pack = ["tar", "--create", "--null", "--files-from=-"]
    packed = subprocess.run(pack, cwd=PROJECT, input=names, capture_output=True, check=True)
    folder.mkdir()
    subprocess.run(["tar", "--extract"], cwd=folder, input=packed.stdout, check=True)
    return folder


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make wheel`` leaves: an sdist, and the wheel that was made from it."""
    source = copy_of_the_checkout(tmp_path_factory.mktemp("dist") / "source")
    command = ["make", "wheel", f"BIN={Path(sys.prefix) / 'bin'}", "--old-file=.venv/.ready"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def site(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = dist.glob("*.whl")
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """A dataset, in a folder of a user's own packages that must not be imported."""
    tree = own(tmp_path_factory.mktemp("user"))
    for name in OURS:
        package = tree.folder / name / "__init__.py"
        package.parent.mkdir()
        package.write_text(f"raise SystemExit('the user\\'s own {name} was imported')")
    return tree


def run(site: Path, folder: Path, *args: object) -> str:
    """What the installed package prints in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *map(str, args)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sdist_holds_files_and_not_links(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert all(member.isfile() or member.isdir() for member in members)
    names = {member.name.partition("/")[2] for member in members}
    assert {"refit_shard/converter/reading.py", "LICENSE", "CHANGELOG.md"} <= names
    assert not {name for name in names if name.startswith(("tests/", "benchmarks/", "data_config"))}


def test_the_wheel_holds_every_module_once_and_nothing_else(dist: Path) -> None:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        texts = {name: archive.read(name) for name in names if name.endswith(".py")}
        (metadata,) = (archive.read(name) for name in names if name.endswith("/METADATA"))
    modules = {
        str(found.relative_to(PROJECT / "refit_shard"))
        for part in ("", "body_models", "converter", "loaders", "shards_spec")
        for found in (PROJECT / "refit_shard" / part).rglob("*.py")
    }
    inside = {name for name in names if ".dist-info/" not in name}
    wanted = {f"refit_shard/{name}" for name in (*modules, "py.typed")}
    assert {name for name in inside if name.endswith((".py", ".typed"))} == wanted
    assert all((PROJECT / name).read_bytes() == text for name, text in texts.items())
    assert {f"refit_shard/report/page.{kind}" for kind in ("css", "html", "js")} <= inside
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert b"License-Expression: MIT" in metadata
    assert b"Classifier: Operating System :: POSIX :: Linux" in metadata


def test_the_wheel_is_for_any_python_and_for_glibc_2_17(dist: Path, tmp_path: Path) -> None:
    """Its name says so, and the library asks for nothing else: no newer symbol, no C++ runtime."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    (path,) = dist.glob("*.whl")
    assert "-py3-none-" in path.name
    assert f"manylinux_2_17_{platform.machine()}" in path.name
    with zipfile.ZipFile(path) as archive:
        library = archive.extract("refit_shard/loaders/native/librefit.so", tmp_path)
    with open(library, "rb") as file:
        elf = elffile.ELFFile(file)
        needed = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        versions = {
            one.name
            for _, wanted in elf.get_section_by_name(".gnu.version_r").iter_versions()
            for one in wanted
        }
    assert {name.partition(".")[0] for name in needed} <= {"libc", "libm", "libpthread"}
    assert versions
    for version in versions:
        assert tuple(map(int, version.removeprefix("GLIBC_").split("."))) <= (2, 17)
    # The compiler in ziglang once made a library that took the slow path on every processor.
    flags = set(Path("/proc/cpuinfo").read_text().split())
    wanted = {"avx2", "bmi1", "bmi2", "abm", "popcnt", "sse4_2"} <= flags
    assert bool(ctypes.CDLL(library).refit_has_avx2()) == wanted


def test_one_folder_is_installed_and_says_its_version(site: Path) -> None:
    shown = run(site, site, "-m", "pip", "show", "-f", "refit-shard")
    files = shown.partition("Files:\n")[2].split()
    tops = {name.partition("/")[0] for name in files if not name.startswith("..")}
    assert tops - {"bin"} == {"refit_shard", f"refit_shard-{__version__}.dist-info"}
    assert run(site, site, "-m", "refit_shard", "--version") == f"refit-shard {__version__}\n"


def test_it_builds_verifies_and_streams_beside_packages_of_our_folders_names(
    site: Path, hostile: Own
) -> None:
    here = hostile.folder
    what = ["--npz", "own.npz", "--root", "frames", "--name", "own", "--out", "shards"]
    run(site, here, "-m", "refit_shard", "build", *what, "--workers", 2, "--samples-per-shard", 2)
    assert "own: ok, 6 rows in 3 shards" in run(site, here, "-m", "refit_shard", "verify", "shards")
    script = here / "train.py"
    script.write_text(STREAM)
    file, batches = run(site, here, "train.py").split()
    assert Path(file) == site / "refit_shard/__init__.py"
    assert batches == "3"
