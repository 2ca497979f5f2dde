import numpy as np
import pytest
from PIL import Image

from topospike.data.images import Frame, decode, fitted, frame_size
from topospike.errors import MissingDataError, ShapeError

COLOUR = Frame(3, 6, 5, resize=False, convert=False)
GREY = Frame(1, 6, 5, resize=False, convert=False)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_colour_pixels_arrive_unchanged():
    array = pixels(6, 5, 3)
    result = decode(Image.fromarray(array), COLOUR, place="x")
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.array_equal(result, array.transpose(2, 0, 1))


def test_grey_pixels_arrive_unchanged():
    array = pixels(6, 5)
    assert np.array_equal(decode(Image.fromarray(array), GREY, place="x")[0], array)


def test_grey_picture_among_coloured_ones_gets_three_equal_channels():
    array = pixels(6, 5)
    result = decode(Image.fromarray(array), COLOUR, place="x")
    assert all(np.array_equal(channel, array) for channel in result)


def test_transparent_picture_keeps_its_colours():
    array = pixels(6, 5, 4)
    result = decode(Image.fromarray(array), COLOUR, place="x")
    assert np.array_equal(result, array[..., :3].transpose(2, 0, 1))


def test_coloured_picture_among_grey_ones_is_refused_unless_told():
    picture = Image.fromarray(pixels(6, 5, 3))
    with pytest.raises(ShapeError, match=r"image 3 is in colour .*data\.channels"):
        decode(picture, GREY, place="image 3")
    told = Frame(1, 6, 5, resize=False, convert=True)
    assert decode(picture, told, place="x").shape == (1, 6, 5)


def test_other_size_is_refused_unless_an_image_size_is_set():
    picture = Image.fromarray(pixels(7, 9, 3))
    with pytest.raises(ShapeError, match=r"image 3 is 7 x 9 .* is 6 x 5; set data\.image_size"):
        decode(picture, COLOUR, place="image 3")
    sized = Frame(3, 6, 5, resize=True, convert=False)
    assert decode(picture, sized, place="x").shape == (3, 6, 5)


def test_sixteen_bit_picture_is_refused():
    picture = Image.fromarray(pixels(6, 5).astype(np.uint16))
    with pytest.raises(MissingDataError, match="image 3 has pixel format 'I;16'; only 8-bit"):
        decode(picture, GREY, place="image 3")


def test_fitting_keeps_the_middle():
    array = np.zeros((4, 12, 3), np.uint8)
    array[:, 4:8] = 200
    assert np.array_equal(np.array(fitted(Image.fromarray(array), (4, 4))), array[:, 4:8])
    assert fitted(Image.fromarray(array), (9, 7)).size == (7, 9)


def test_frames():
    assert frame_size((224, 224)) == (256, 256)
    assert frame_size((28, 14)) == (32, 16)
