"""Checks of the sources' imports: which package may import which, and heavy modules stay lazy."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("shards_spec", "body_models", "converter", "loaders", "refit_shard")
OUTSIDE = {"benchmarks", "data_config", "tests", "examples"}
FORBIDDEN = {
    "shards_spec": {"body_models", "converter", "loaders", "refit_shard", *OUTSIDE},
    "body_models": {"converter", "loaders", "refit_shard", *OUTSIDE},
    "converter": {"loaders", "refit_shard", *OUTSIDE},
    "loaders": {"converter", "refit_shard", *OUTSIDE},
    "refit_shard": OUTSIDE,
}
# The folders of a package in layers, lowest first; "" are the modules of the package itself.
FLOORS = {
    "converter": (
        *(
            "",
            "annotations",
            "importers",
            "archives",
            "frames",
            "build",
            "videos",
            "doctor",
            "subset",
        ),
        *("labels", "export"),
    ),
    "loaders": ("", "native", "items", "remote", "stream", "refit", "measure"),
}
UNPICKLING = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "_pickle"}


def sources(package: str) -> list[Path]:
    """The modules of a package."""
    parts = {PROJECT / "refit_shard" / name for name in PACKAGES}  # links to the others
    found = [
        path for path in sorted((PROJECT / package).rglob("*.py")) if not parts & set(path.parents)
    ]
    assert found
    return found


def called_name(call: ast.Call) -> str:
    """The last part of the name of the called function."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported by any means, anywhere in a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            (first, *_) = node.args
            if ast.unparse(first).startswith("f'{__name__}."):  # lazy imports of public names
                continue
            assert isinstance(first, ast.Constant), "a computed import cannot be checked"
            yield str(first.value)


def place(module: str) -> list[str]:
    """The parts of a module's name, without the leading ``refit_shard`` of our packages."""
    parts = module.split(".")
    return parts[1:] if parts[0] == "refit_shard" and parts[1:2] and parts[1] in PACKAGES else parts


def tops(path: Path) -> set[str]:
    """The top-level packages that a source imports from."""
    return {place(name)[0] for name in imported(ast.parse(path.read_text()))}


def floor(package: str, parts: list[str]) -> int:
    """The layer of a module in its package, from the parts of its name below the package."""
    folders = FLOORS[package]
    return folders.index(parts[0]) if parts and parts[0] in folders else 0


def importers(module: str) -> set[str]:
    """The sources that import a package."""
    return {
        str(path.relative_to(PROJECT))
        for package in PACKAGES
        for path in sources(package)
        if module in tops(path)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction(package: str) -> None:
    for path in sources(package):
        assert not tops(path) & FORBIDDEN[package], path


@pytest.mark.parametrize("package", FLOORS)
def test_folders_import_from_below_only(package: str) -> None:
    for path in sources(package):
        own = floor(package, list(path.relative_to(PROJECT / package).parts))
        for name in imported(ast.parse(path.read_text())):
            parts = place(name)
            if parts[0] == package:
                assert floor(package, parts[1:]) <= own, (path, name)


def test_every_folder_has_its_floor() -> None:
    for package, folders in FLOORS.items():
        found = {path.parent.relative_to(PROJECT / package) for path in sources(package)}
        assert {str(path) for path in found} == {one or "." for one in folders}


def test_one_module_knows_ray() -> None:
    assert importers("ray") == {"converter/build/run.py"}


def test_one_module_knows_ffmpeg() -> None:
    assert importers("av") == {"converter/videos/decode.py"}


def test_one_module_knows_duckdb() -> None:
    assert importers("duckdb") == {"refit_shard/where.py"}


def test_only_the_loaders_know_torch() -> None:
    found = importers("torch")
    assert found
    assert all(path.startswith("loaders/") for path in found)


@pytest.mark.parametrize("package", ["shards_spec", "body_models", "loaders"])
def test_what_trains_needs_nothing_that_only_a_build_has(package: str) -> None:
    heavy = {"cv2", "PIL", "rich", "ray", "webdataset", "kornia_rs", "av"}
    of_the_build = PROJECT / "loaders/items/occluder_import.py"  # used only by import-occluders
    for path in sources(package):
        assert path == of_the_build or not tops(path) & heavy, path


def test_one_module_knows_pickle_and_it_loads_none_plainly() -> None:
    found = set().union(*(importers(module) for module in UNPICKLING))
    assert found == {"body_models/plain_pickle.py"}
    for node in ast.walk(ast.parse((PROJECT / "body_models/plain_pickle.py").read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            plain = node.value.id == "pickle" and node.attr in ("load", "loads", "Unpickler")
            assert not plain, ast.unparse(node)


def test_numpy_is_never_allowed_to_unpickle() -> None:
    calls = [
        (path, node)
        for package in PACKAGES
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    for path, call in calls:
        for keyword in call.keywords:
            if keyword.arg == "allow_pickle":
                assert isinstance(keyword.value, ast.Constant), path
                assert keyword.value.value is False, path


def test_these_checks_see_every_kind_of_import() -> None:
    text = "import a.b\nfrom c import d\ndef f():\n    import e\n    importlib.import_module('g.h')"
    assert {name.partition(".")[0] for name in imported(ast.parse(text))} == {"a", "c", "e", "g"}


def test_every_public_name_is_there_and_is_imported_when_it_is_asked_for() -> None:
    import refit_shard

    assert all(getattr(refit_shard, name) is not None for name in refit_shard.__all__)
    assert set(refit_shard.__all__) <= set(dir(refit_shard))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = refit_shard.nothing


def test_the_package_itself_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "cv2", "numpy", "pyarrow", "rich", "PIL"}
    code = f"import sys, refit_shard; print(sorted({heavy} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
