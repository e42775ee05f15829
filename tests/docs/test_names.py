"""Everything that a user can name is documented: public names, parameters, options, config keys."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pytest

import refit_shard
import refit_shard.refit
from docs.generate import commands
from refit_shard import own_sets
from refit_shard.shards_spec import errors
from tests.docs.pages import DOCS, PROJECT, written

LOADERS = PROJECT / "loaders"


def public() -> dict[str, Any]:
    """Every public name with its object."""
    named = {f"refit_shard.{name}": getattr(refit_shard, name) for name in refit_shard.__all__}
    of_refit = refit_shard.refit
    return named | {
        f"refit_shard.refit.{name}": getattr(of_refit, name) for name in of_refit.__all__
    }


def described(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A public name, and for a class each public member that this project defines."""
    yield name, value
    if inspect.isclass(value):
        fields = (
            {field.name for field in dataclasses.fields(value)}
            if dataclasses.is_dataclass(value)
            else set()
        )
        for member in dir(value):
            found = inspect.getattr_static(value, member)
            home = getattr(inspect.unwrap(getattr(value, member)), "__module__", "") or ""
            ours = home.startswith("refit_shard") or isinstance(found, (property, cached_property))
            if not member.startswith("_") and member not in fields and ours:
                yield f"{name}.{member}", found


def text_of(value: Any) -> str:
    """The object's own docstring, not an inherited one."""
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, cached_property):
        value = value.func
    return inspect.cleandoc(value.__doc__ or "")


def parameters(value: Any) -> list[str]:
    """The names of a callable's parameters, without ``self`` and ``cls``."""
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if not callable(value):
        return []
    names = [name for name in inspect.signature(value).parameters if not name.startswith("_")]
    return [name for name in names if name not in ("self", "cls")]


def has_entry(parameter: str, text: str) -> bool:
    """True if a docstring describes a parameter, in a section or in its prose."""
    entry = rf"^ +\*{{0,2}}{parameter}:|``\*{{0,2}}{parameter}(?:=[^`]*)?``"
    return re.search(entry, text, re.M) is not None


def options_of_a_stream(text: str) -> str:
    """The docstring of StreamOptions if the text refers to that class, else an empty text."""
    named = ":class:`refit_shard.StreamOptions`" in text
    return text_of(refit_shard.StreamOptions) if named else ""


def undescribed() -> Iterator[str]:
    """One line for each public name or parameter without a description."""
    for name, value in public().items():
        for path, found in described(name, value):
            text = text_of(found)
            if not text or text.startswith(f"{path.rpartition('.')[2]}("):  # made by dataclass
                yield f"{path} has no docstring"
            for parameter in parameters(found):
                bases = [text_of(base) for base in getattr(found, "__mro__", ())]
                texts = (text, *bases, options_of_a_stream(text))
                if not any(has_entry(parameter, one) for one in texts):
                    yield f"{path}: nothing says what {parameter} is"


def test_every_public_name_and_parameter_has_an_entry() -> None:
    names = [path for name, value in public().items() for path, _ in described(name, value)]
    print(f"\n{len(names)} public names")
    assert not list(undescribed())
    assert len(names) > 50


def test_every_public_name_is_on_a_page_of_the_reference() -> None:
    shown = {name for page in written() for name in re.findall(r"^::: ([\w.]+)", page.text, re.M)}
    last = {name.rpartition(".")[2] for name in shown}
    assert {name.rpartition(".")[2] for name in public()} <= last


def guides() -> str:
    """The text of all pages that are written by hand."""
    return "\n".join(page.prose() for page in written() if page.path != "CHANGELOG.md")


def test_every_option_is_named_on_a_page_and_says_what_it_is() -> None:
    text = guides()
    missing, count = [], 0
    for name, parser in commands.command_parsers().items():
        assert (parser.description or "").strip(), name
        for action in commands.options_of(parser):
            count += 1
            if not action.help:
                missing.append(f"{name}: {action.dest} has no help")
            if action.option_strings and not any(
                re.search(rf"(?<![\w-]){option}(?![\w-])", text) for option in action.option_strings
            ):
                missing.append(f"{name}: no page names {action.option_strings[-1]}")
    print(f"\n{count} arguments and options of {len(commands.command_parsers())} commands")
    assert not missing


def config_keys() -> set[str]:
    """The keys that the program reads from a training YAML or from ReFit's ``cfg``."""
    found: set[str] = set()
    for path in (*LOADERS.rglob("*.py"), *(PROJECT / "refit_shard").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name in ("config_value", "_list_of"):
                words = (word for word in node.args[1:] if isinstance(word, ast.Constant))
                found |= {str(word.value) for word in words}
    return found


def python_keys() -> set[str]:
    """The names of ``data_config.py``."""
    tree = ast.parse((PROJECT / "data_config.py").read_text(encoding="utf-8"))
    targets = [
        target
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_key_of_a_config_is_named_on_a_page() -> None:
    keys = config_keys() | python_keys() | set(own_sets.KEYS)
    print(f"\n{len(keys)} keys of configs")
    assert {"LIST", "PARTITION", "BATCH_SIZE", "datasets", "BEDLAM_ROOT", "turned"} <= keys
    text = guides()
    assert not [key for key in keys if not re.search(rf"`[^`\n]*\b{key}\b", text)]


def test_every_error_says_what_to_do() -> None:
    tree = [errors.RefitShardError]
    for kind in tree:
        tree += kind.__subclasses__()
    ours = {kind for kind in tree if kind.__module__ == errors.__name__}
    print(f"\n{len(ours)} kinds of errors")
    page = (DOCS / "reference/errors.md").read_text(encoding="utf-8")
    assert not [kind.__name__ for kind in ours if "What to do: " not in (kind.__doc__ or "")]
    assert not [
        kind.__name__
        for kind in ours
        if f"::: refit_shard.shards_spec.errors.{kind.__name__}" not in page
    ]


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("Args:\n    seed: of the order", True),
        ("``seed``: of the order", True),
        ("``seed=3`` is enough", True),
        ("**seed**", False),
        ("the seed: of the order", False),
        ("Args:\n    seeds: of the order", False),
    ],
)
def test_an_entry_is_told_from_a_mention(text: str, there: bool) -> None:
    assert has_entry("seed", text) is there


def test_a_missing_entry_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def render(sample: int, other: int) -> None:
        """An item of ``sample``."""

    monkeypatch.setattr(refit_shard, "render", render)
    assert "refit_shard.render: nothing says what other is" in undescribed()
