"""The build backend asks for a compiler where there is none, and for none where there is one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refit_shard.loaders.native.compiling import FOLDER

COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "clang++")
ASK = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "ziglang" else find(name, *a)
import backend
backend.build_meta.get_requires_for_build_wheel = lambda _: []  # setuptools' own
backend.build_meta.get_requires_for_build_editable = lambda _: []
print(backend.get_requires_for_build_wheel(), backend.get_requires_for_build_editable())
"""


def without_compilers(folder: Path) -> dict[str, str]:
    """This process's environment with a PATH of links to all programs but compilers."""
    folder.mkdir()
    for place in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in place.iterdir() if place.is_dir() else ():
            name = program.name
            if not name.startswith(COMPILERS) and not (folder / name).exists():
                (folder / name).symlink_to(program)
    kept = {name: value for name, value in os.environ.items() if name != "CXX"}
    return {**kept, "PATH": str(folder)}


def asked(environment: dict[str, str]) -> str:
    """What the backend asks for where ziglang is not installed yet, as in a build of pip's."""
    command = [sys.executable, "-c", ASK, str(FOLDER)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_a_compiler_it_asks_for_one(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    assert asked(without_compilers(tmp_path / "bin")) == "['ziglang'] ['ziglang']"


@pytest.mark.slow  # builds a wheel
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_with_a_compiler_it_asks_for_none() -> None:
    assert asked({name: value for name, value in os.environ.items() if name != "CXX"}) == "[] []"
