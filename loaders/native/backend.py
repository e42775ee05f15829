"""The project's build backend: setuptools', once the library is compiled.

Only where no compiler works it asks for the one in the package ``ziglang``.
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
    """What compiling asks for, found out by compiling."""
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
