"""A wheel holds a compiled library without Python's own interface: one wheel for all versions of
Python on a platform. The rest stands in pyproject.toml.
"""

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class Compiled(Distribution):
    """Of one platform."""

    def has_ext_modules(self) -> bool:
        """It is compiled, if not by setuptools."""
        return True


class Wheel(bdist_wheel):
    """For any Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Interpreter, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


setup(distclass=Compiled, cmdclass={"bdist_wheel": Wheel})
