"""Who may import whom, read from the source: the packages stay apart and heavy ones stay lazy."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("shards_spec", "converter", "loaders", "refit_shard")
FORBIDDEN = {
    "shards_spec": {"converter", "loaders", "refit_shard", "benchmarks", "data_config", "tests"},
    "converter": {"loaders", "refit_shard", "benchmarks", "data_config", "tests"},
    "loaders": {"converter", "refit_shard", "benchmarks", "data_config", "tests"},
    "refit_shard": {"benchmarks", "data_config", "tests"},
}
UNPICKLING = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "_pickle"}


def sources(package: str) -> list[Path]:
    """The modules of a package."""
    found = sorted((PROJECT / package).rglob("*.py"))
    assert found
    return found


def called_name(call: ast.Call) -> str:
    """The last part of what is called."""
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
            assert isinstance(first, ast.Constant), "a computed import cannot be checked"
            yield str(first.value)


def tops(path: Path) -> set[str]:
    """The packages that a source imports from."""
    return {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}


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


def test_one_module_knows_ray() -> None:
    assert importers("ray") == {"converter/run.py"}


def test_only_the_loaders_know_torch() -> None:
    found = importers("torch")
    assert found
    assert all(path.startswith("loaders/") for path in found)


def test_one_module_knows_pickle_and_it_loads_none_plainly() -> None:
    found = set().union(*(importers(module) for module in UNPICKLING))
    assert found == {"loaders/plain_pickle.py"}
    for node in ast.walk(ast.parse((PROJECT / "loaders/plain_pickle.py").read_text())):
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


def test_every_package_says_what_it_exports() -> None:
    for package in ("shards_spec", "loaders"):
        tree = ast.parse((PROJECT / package / "__init__.py").read_text())
        names = [
            node.targets[0].id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        ]
        assert "__all__" in names
