"""Text and picture features of the emoji data set, which can also be computed for any new text or picture.

Both are fixed functions of one row: nothing is fitted, so that queries have the same features as training rows would.
A row does not depend on the other rows of the call. scikit-learn, scikit-image and Pillow are imported on the first
call: loading prepared features needs none of them.

Shape letters: N rows, D features.
"""

import unicodedata
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from mrl_jax.errors import InputError

__all__ = [
    "IMAGE_DIM",
    "TEXT_DIM",
    "image_features",
    "picture_array",
    "plain_text",
    "text_counts",
    "text_features",
    "weigh_counts",
]

TEXT_DIM = 512
"""D of text features: buckets of hashed character n-grams."""
IMAGE_DIM = 784
"""D of picture features: gradients 288, colors 64, thumbnail 432."""

_SIDE = 72  # pixels; the size of the Twemoji pictures
# The square root of the total variance of each block over the training pictures. Dividing by it gives the three blocks
# equal weight even where a user only centers columns and divides the modality by one overall standard deviation.
_GRADIENT_SCALE, _COLOR_SCALE, _THUMBNAIL_SCALE = 0.75, 0.9, 5.5


def text_features(texts: Sequence[str]) -> np.ndarray:
    """Hash character n-grams (1 to 4 characters within words) into 512 signed counts, scaled to length 1.

    Upper and lower case are equal, and so are "_", "-" and spaces, and Unicode compatibility forms (NFKC). Any script
    is supported; unigrams are included for Chinese and Japanese. The features are bit-identical to those of the data
    set.

    Args:
        texts: N texts. A text without letters, digits or signs, such as "", gives a row of zeros.

    Returns:
        float32 [N, 512].

    Raises:
        InputError: `texts` is a single string or contains other things than strings.
    """
    return weigh_counts(text_counts(texts))


def text_counts(texts: Sequence[str]) -> np.ndarray:
    """The counts that `text_features` scales: int32 [N, 512]. Same arguments and errors."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"texts is {_shorten(texts)}: it must be a sequence of strings; put a single text into a list")
    if not len(texts):
        return np.zeros((0, TEXT_DIM), np.int32)
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), n_features=TEXT_DIM, alternate_sign=True, norm=None, lowercase=False
    )
    return vectorizer.transform([plain_text(text) for text in texts]).toarray().astype(np.int32)


def weigh_counts(counts: np.ndarray) -> np.ndarray:
    """Scale integer counts [N, D] to float32 [N, D] with rows of length 1 (rows of zeros stay zero)."""
    counts = counts.astype(np.int64)
    lengths = np.sqrt((counts * counts).sum(axis=1, keepdims=True))  # the sum of integers is exact on every machine
    return (counts / np.maximum(lengths, 1)).astype(np.float32)


def image_features(images: Sequence[Any]) -> np.ndarray:
    """Features of small pictures: gradients, colors and a thumbnail, of about equal weight.

    Columns: 288 square roots of the fractions of 8 gradient directions in 6x6 cells of 12 pixels (HOG, normalized over
    the whole picture); 64 square roots of the fractions of 4x4x4 colors among the opaque pixels; 432 = 12x12 pixels of
    RGB on white. Pictures of another size than 72x72 are scaled to fit and padded with transparent pixels. The data set
    stores the output of this function at preparation (same bits with the same versions of Pillow and scikit-image,
    within 1e-6 otherwise).

    Args:
        images: N pictures, each the path of a file, a `PIL.Image.Image` or a uint8 array [H, W, 3 or 4] (RGB or RGBA).

    Returns:
        float32 [N, 784].

    Raises:
        InputError: a picture cannot be read, or `images` is a single picture.
    """
    if isinstance(images, str | bytes | PathLike) or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise InputError(
            f"images is {_shorten(images)}: it must be a sequence of pictures; put a single one into a list"
        )
    rows = [_features_of(picture_array(image)) for image in images]
    return np.stack(rows) if rows else np.zeros((0, IMAGE_DIM), np.float32)


def picture_array(image: Any) -> np.ndarray:
    """Read one picture as uint8 [72, 72, 4], RGBA.

    Args:
        image: path, PIL image or array, as for `image_features`.

    Raises:
        InputError: it cannot be read.
    """
    from PIL import Image, ImageOps

    from mrl_jax.data.pictures import opened, picture_errors

    given = f"{image.dtype} array {list(image.shape)}" if isinstance(image, np.ndarray) else _shorten(image)
    kinds = "" if isinstance(image, str | PathLike) else ", a PIL image, or a uint8 array [height, width, 3 or 4]"
    with picture_errors(given, f"give the path of a PNG or other picture file{kinds}"):
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
                raise ValueError("arrays must be uint8 [height, width, 3 or 4]")
            picture = Image.fromarray(image).convert("RGBA")
        elif isinstance(image, Image.Image):
            picture = image.convert("RGBA")
        else:
            with opened(image) as found:
                picture = found.convert("RGBA")
    if picture.size != (_SIDE, _SIDE):
        picture = ImageOps.pad(picture, (_SIDE, _SIDE), method=Image.Resampling.BICUBIC, color=(0, 0, 0, 0))
    return np.asarray(picture)


def _features_of(picture: np.ndarray) -> np.ndarray:
    """Features, float32 [784], of a picture, uint8 [72, 72, 4]."""
    from skimage.feature import hog

    alpha = picture[..., 3:] / 255
    on_white = picture[..., :3] / 255 * alpha + (1 - alpha)
    # One block covers the picture: normalizing each cell alone would make faint edges as strong as clear ones.
    gradients = hog(
        on_white,
        orientations=8,
        pixels_per_cell=(12, 12),
        cells_per_block=(6, 6),
        block_norm="L1-sqrt",
        channel_axis=-1,
    )

    opaque = picture[picture[..., 3] >= 128][:, :3].astype(np.int64) // 64  # [pixels, 3], values 0..3
    colors = np.bincount(opaque @ np.array([16, 4, 1]), minlength=64)
    # Square roots give more weight to rare colors.
    color_part = np.sqrt(colors / max(len(opaque), 1))

    thumbnail = on_white.reshape(12, 6, 12, 6, 3).mean(axis=(1, 3)).ravel()
    blocks = (gradients / _GRADIENT_SCALE, color_part / _COLOR_SCALE, thumbnail / _THUMBNAIL_SCALE)
    return np.concatenate(blocks).astype(np.float32)


def plain_text(text: str) -> str:
    """The text in lower case and compatibility form (NFKC), with spaces for "_" and "-"."""
    return unicodedata.normalize("NFKC", text).lower().replace("_", " ").replace("-", " ")


def _shorten(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
