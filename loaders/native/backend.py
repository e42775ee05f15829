"""The project's build backend: compiles the library, then calls setuptools.

It requires the compiler in the package ``ziglang`` only if no other compiler works.
"""

import tempfile
from pathlib import Path
from typing import Any

import compiling  # the file beside this one
from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def _compiler() -> list[str]:
    """Packages that compiling requires, found by trying to compile."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            compiling.compile_library(Path(folder))
        except compiling.CompilerError:
            return ["ziglang"]
    return []


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """See PEP 517."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """See PEP 660."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler()]


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None
) -> str:
    """See PEP 517."""
    compiling.compile_library()
    made: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return made


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None
) -> str:
    """See PEP 660."""
    compiling.compile_library()
    made: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return made
