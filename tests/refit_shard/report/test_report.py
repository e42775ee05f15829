"""The command and its page: what it says, that it asks for nothing, and that names stay text."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from refit_shard import ShardSet
from tests.refit_shard.report.pages import CLOSING, IMAGE, SCRIPT, Made, make
from tests.small import error_line, refit


class Parts(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, tag: str, name: str) -> list[str]:
        return [value for a, b, value in self.attributes if (a, b) == (tag, name)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def numbers(made: Made) -> dict[str, Any]:
    result = made.report("--out", made.folder / "page.html", "--json")
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


@pytest.fixture(scope="module")
def page(made: Made, numbers: dict[str, Any]) -> str:
    assert numbers
    return (made.folder / "page.html").read_text()


@pytest.fixture(scope="module")
def parts(page: str) -> Parts:
    return Parts(page)


def test_the_numbers_are_those_of_the_shards(numbers: dict[str, Any], made: Made) -> None:
    first, second = numbers["sets"]
    assert [one["name"] for one in numbers["sets"]] == ["first", "second"]
    samples = [ShardSet.open(made.shards / "first")[at] for at in range(first["rows"])]
    assert first["rows"] == 9
    assert second["rows"] == 3
    assert first["frames"] == len({sample["imgname"] for sample in samples}) == 5
    assert first["quarantined"] == {
        **{"box_outside_image": 1, "corrupt": 2, "missing": 2},
        "path_outside_root": 2,
    }
    sides = [200 * float(sample["scale"]) for sample in samples]
    assert first["box_side_px"]["min"] == min(sides)
    assert first["box_side_px"]["max"] == max(sides)
    seen = np.mean([sample["keypoints"][21, 2] > 0 for sample in samples])
    assert first["visible"]["left_heel"] == seen
    assert numbers["common"] == [
        {"first": "first", "second": "second", "kind": "frame", "count": 1}
    ]


def test_the_mix_is_that_of_simulate(numbers: dict[str, Any], made: Made) -> None:
    result = refit(
        *("simulate", made.config, "--shards", made.shards, "--cache", "1GB", "--json"),
    )
    simulated = json.loads(result.out)
    assert numbers["mix"]["samples_per_epoch"] == simulated["samples_per_epoch"]
    assert [one["repeats"] for one in numbers["mix"]["sources"]] == [
        one["repeats"] for one in simulated["sources"]
    ]
    assert sum(one["samples"] for one in numbers["mix"]["sources"]) == 8


def test_it_asks_for_nothing(parts: Parts, page: str) -> None:
    """No address but a place on the page, a picture in it, or the names of SVG's own languages."""
    for tag, name, value in parts.attributes:
        if name.startswith("xmlns"):
            continue
        assert "//" not in value or value.startswith("data:image/") or name == "content", value
        if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert value.startswith(("#", "data:image/")), (tag, value)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(parts.tags)
    assert "url(" not in page
    assert "@import" not in page
    targets = {value for _, name, value in parts.attributes if name == "id"}
    assert {value[1:] for value in parts.values("a", "href")} <= targets


def test_ids_are_there_once(parts: Parts) -> None:
    found = [value for _, name, value in parts.attributes if name == "id"]
    assert len(found) == len(set(found))


def test_names_in_data_stay_text(parts: Parts, page: str) -> None:
    """They are on the page, to the letter, and no tag or attribute came of them."""
    text = " ".join(parts.text)
    for name in (SCRIPT, IMAGE, CLOSING):
        assert name in text
    assert parts.tags.count("script") == 1
    assert not [name for _, name, _ in parts.attributes if name.startswith("on")]
    assert "<script>window" not in page
    assert html.escape("<img src=x") in page


def test_the_policy_lets_run_the_page_s_script_alone(parts: Parts, page: str) -> None:
    (policy,) = [one for one in parts.values("meta", "content") if "default-src" in one]
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_the_user_s_policy_draws_the_crops(page: str) -> None:
    flat = re.sub(r"\s+", " ", page)
    assert "The policy is that of training.yaml" in flat
    assert '<li class="other"><code>rot_sigma</code> 15</li>' in flat
    assert "<li><code>flip</code> 0.5</li>" in flat


def test_quarantined_frames_are_shown_or_it_is_said_why_not(page: str, parts: Parts) -> None:
    alts = parts.values("img", "alt")
    assert [alt for alt in alts if alt.startswith("frame of source row")] == [
        "frame of source row 15"
    ]
    assert "not shown: no such file" in page
    assert "not shown: its name leads out of the root: not opened" in page
    assert re.search(r"not shown: [^<]*(JPEG|jpeg|marker|premature)", page, re.IGNORECASE)


def test_every_picture_decodes_and_says_what_it_is(parts: Parts) -> None:
    pictures = parts.values("img", "src")
    assert len(pictures) == 12 * 6 + 1
    assert all(parts.values("img", "alt"))
    for url in pictures:
        data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"), validate=True)
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


def test_the_same_input_gives_the_same_bytes(made: Made, page: str, tmp_path: Path) -> None:
    assert made.report("--out", tmp_path / "again.html").code == 0
    assert (tmp_path / "again.html").read_text() == page


def test_a_condition_chooses_the_rows(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "some.html"
    what = ["report", made.shards, *made.roots, "--out", out, "--n", 1, "--json"]
    result = refit(*what, "--where", "has_smpl and dataset == 'first'")
    assert result.code == 0, result.err
    smpl = [bool(row["has_smpl"]) for row in rows(made.shards / "first")]
    assert [one["rows"] for one in json.loads(result.out)["sets"]] == [sum(smpl), 0]
    assert "has_smpl and dataset == &#39;first&#39;" in out.read_text()
    none = refit(*what, "--where", "scale > 100")
    assert none.code == 2
    assert "--where: no row of" in error_line(none)
    wrong = refit(*what, "--where", "scale >")
    assert wrong.code == 2
    assert "where" in error_line(wrong)


def rows(folder: Path) -> list[Any]:
    data_set = ShardSet.open(folder)
    return [data_set[at] for at in range(len(data_set))]


def test_without_a_root_it_is_said_how_to_give_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refit("report", made.shards / "first", "--out", "a.html", "--n", 0).code == 0
    page = (tmp_path / "a.html").read_text()
    assert "; pass --root first=DIR" in page
    assert "frame of source row" not in page


def test_a_damaged_crop_is_said_on_the_page(made: Made, tmp_path: Path) -> None:
    """And damage of the labels ends the command, which counts nothing of them."""
    folder = tmp_path / "second"
    folder.mkdir()
    for file in (made.shards / "second").iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    (tar,) = folder.glob("*.tar")
    spoilt = bytearray(tar.read_bytes())
    at = int(ShardSet.open(folder)[0]["jpg_offset"]) + 300
    spoilt[at : at + 50] = bytes(50)
    tar.write_bytes(spoilt)
    assert refit("report", folder, "--out", tmp_path / "a.html").code == 0
    assert "the JPEG&#39;s crc32c differs from the index" in (tmp_path / "a.html").read_text()
    (index,) = folder.glob("*.arrow")
    spoilt = bytearray(index.read_bytes())
    spoilt[spoilt.index(b"second-00000001")] ^= 1
    index.write_bytes(spoilt)
    result = refit("report", folder, "--out", tmp_path / "b.html")
    assert result.code == 1
    assert "second-000000.arrow" in error_line(result)
    assert not (tmp_path / "b.html").exists()


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (["nowhere", "--out", "a.html"], 1, "nowhere"),
        (["none.yaml", "--out", "a.html"], 2, "none.yaml: No such file or directory"),
        (["{shards}", "--out", "s3://bucket/a.html"], 2, "--out"),
        (["{shards}", "--out", "a.html", "--n", -1], 2, "--n: must be a whole number"),
        (["{shards}", "--out", "a.html", "--root", "first"], 2, "must be NAME=DIR"),
        (["{shards}", "--out", "{shards}", "--n", 0], 1, "not a regular file"),
        (["{shards}", "--out", "a.html", "--occluders", "none"], 2, "no such file"),
    ],
)
def test_wrong_use_is_one_line(
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[object],
    code: int,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = refit("report", *(str(arg).format(shards=made.shards) for arg in args))
    assert result.code == code, result.err
    assert named in error_line(result)
    assert not list(tmp_path.iterdir())


def test_a_config_s_policy_is_checked(made: Made, tmp_path: Path) -> None:
    text = made.config.read_text().replace("rot_sigma: 15", "rot_sigmo: 15")
    (tmp_path / "wrong.yaml").write_text(text)
    result = refit(
        "report", tmp_path / "wrong.yaml", "--shards", made.shards, "--out", tmp_path / "a.html"
    )
    assert result.code == 2
    assert "augmentation.rot_sigmo is no field of AugmentationPolicy" in error_line(result)
