"""The compiled library passes all inputs that searches kept, under sanitizers; searches find
faults.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from refit_shard.loaders.native.compiling import SOURCE
from tests.hostile.native.fuzz import CLANG, TARGETS, compile_target, write_seeds

# A bounds check in the sources, and the code that replaces it, which reads out of bounds.
PLANTS = {
    "decode": ("header.cc", "if (length < 2 || at + 2 + length > count) return false;", ""),
    "batch": ("warp.cc", "int64_t{clamped(row, 0, planes.rows - 1)}", "int64_t{row}"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_all_that_a_search_kept_is_clean(name: str, tmp_path: Path) -> None:
    """No read or write out of bounds, no undefined behaviour; both paths agree."""
    write_seeds(name, tmp_path / "seeds")
    files = sorted((tmp_path / "seeds").iterdir())
    program = compile_target(name, tmp_path, searching=False)
    done = subprocess.run(
        [program, *files], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{len(files)} inputs\n"
    assert len(files) > 20


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, CLANG)), reason="needs clang")
@pytest.mark.parametrize("name", TARGETS)
def test_a_search_finds_a_planted_fault(name: str, tmp_path: Path) -> None:
    """A search finds within a minute that a check was removed from a copy of the sources."""
    library = shutil.copytree(SOURCE, tmp_path / "source")
    file, guard, planted = PLANTS[name]
    text = (library / file).read_text()
    assert text.count(guard) == 1
    (library / file).write_text(text.replace(guard, planted))
    write_seeds(name, tmp_path / "seeds")
    program = compile_target(name, tmp_path, library=library)
    done = subprocess.run(
        [program, "-max_total_time=60", "-max_len=8192", tmp_path / "seeds"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
