"""Each stage by itself: checksums, decoding, and what does not need a map."""

import numpy as np
import pytest
import simplejpeg
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders import native
from tests.loaders.native import decoder
from tests.small import colourful

PATHS = pytest.mark.parametrize("portable", [False, True])


@PATHS
@given(st.integers(0, 20_000), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_checksums_are_crc32c(portable: bool, length: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(length)
    assert native.crc32c(data, portable=portable) == crc32c(data)


@PATHS
@given(st.integers(1, 150), st.integers(1, 150), st.integers(5, 100), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=150)
def test_luma_is_libjpegs(portable: bool, height: int, width: int, quality: int, seed: int) -> None:
    """To the bit: the inverse transform is libjpeg's "islow"."""
    data = encode(colourful(height, width, seed), quality)
    luma, _ = native.planes(data, height, width, portable=portable)
    assert np.array_equal(luma, simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0])


@PATHS
@pytest.mark.parametrize(
    ("height", "width", "quality"), [(33, 50, 90), (16, 16, 5), (1, 1, 100), (65, 17, 60)]
)
def test_planes_are_the_references(portable: bool, height: int, width: int, quality: int) -> None:
    """Chroma too, which no library gives as it is stored."""
    data = encode(colourful(height, width, quality), quality)
    luma, chroma = native.planes(data, height, width, portable=portable)
    expected = decoder.planes(data)
    assert np.array_equal(luma, expected[0])
    assert np.array_equal(chroma, expected[1])


def test_the_reference_decodes_as_libjpeg_does() -> None:
    """The reference itself is held to libjpeg-turbo."""
    data = encode(colourful(70, 90, 4), 75)
    assert np.array_equal(decoder.planes(data)[0], simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0])


@PATHS
def test_noise_of_any_contrast_is_decoded(portable: bool) -> None:
    """Long codes, stuffed bytes, blocks without an end, levels beyond 0 and 255."""
    rng = np.random.default_rng(1)
    for contrast in (2, 40, 255):
        image = np.clip(rng.normal(128, contrast, (64, 80, 3)), 0, 255).astype(np.uint8)
        for quality in (1, 50, 100):
            data = encode(image, quality)
            luma, chroma = native.planes(data, 64, 80, portable=portable)
            expected = decoder.planes(data)
            assert np.array_equal(luma, expected[0])
            assert np.array_equal(chroma, expected[1])
