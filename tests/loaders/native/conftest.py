"""The library is compiled anew where its sources were edited."""

from loaders.native.build import build, is_current

if not is_current():
    build()
