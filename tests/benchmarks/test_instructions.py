"""Counting instructions: what callgrind writes is added up, and the kept batch is the loader's."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.crops import cached_crops
from benchmarks.drawn_batch import draw
from refit_shard.loaders.native.compiling import NAME

PROFILE = """\
positions: instr line
events: Ir

ob=(1) /usr/lib/libc.so.6
fn=(1) memcpy
0x1000 0 7
cob=(2) /made/librefit.so
cfn=(2)
calls=1 0x2000 0
0x1001 0 900

ob=(2)
fl=(1) decode.cc
fn=(2) refit_draw
0x2000 10 5
+4 +1 6
fi=(2) idct.cc
+4 20 7
fe=(1)
cob=(1)
cfn=(1)
calls=3 0x1000 0
-8 10 700
* 11 1
0x2000 10 2

totals: 28
"""


def test_what_callgrind_counts_is_added_up_by_address() -> None:
    """Each place is relative to the one before; what a call spent is counted where it was spent."""
    found = instructions.by_address(PROFILE, "librefit.so")
    assert found == {0x2000: 5 + 1 + 2, 0x2004: 6, 0x2008: 7}


def test_a_batch_that_was_kept_is_drawn_again(tmp_path: Path) -> None:
    crops = cached_crops(tmp_path, instructions.QUICK)
    path = tmp_path / "batch.npz"
    instructions.save_batch(path, "uint8", crops, 4)
    library = Path(instructions.__file__).parent.parent / "loaders" / "native" / NAME
    assert draw(path, library) == 4


def test_functions_belong_to_stages() -> None:
    assert instructions.stage_of("idct", "idct_fast") in instructions.DECODING
    assert instructions.stage_of("decode", "read_block") == "entropy decoding"
    assert instructions.stage_of("decode", "store_luma_fast") == "planes of samples"
    assert instructions.stage_of("", "") == "the rest"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_the_instructions_of_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(tmp_path), "--out", str(out)]
    assert instructions.main(arguments) == 0
    (one,) = json.loads(out.read_text())["images"]
    assert sum(one["stages"].values()) == pytest.approx(1)
    assert one["stages"]["entropy decoding"] > 0.05
    assert one["stages"]["the rest"] < 0.2
    assert "decoding of what is shown" in capsys.readouterr().out
