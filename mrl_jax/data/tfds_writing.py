"""Write a TFDS data set without the messages that TFDS prints."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["write_dataset"]


def write_dataset(make_builder: Callable[[], Any]) -> Path:
    """Make a TFDS builder and write its data set.

    TFDS announces a download that never happens, draws progress bars even into log files, and warns of a configuration
    that it does not know. None of this is shown.

    Args:
        make_builder: makes the builder.

    Returns:
        The folder of the data set.

    Raises:
        OSError: the files cannot be written.
    """
    absl = logging.getLogger("absl")
    level = absl.level
    try:
        absl.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder = make_builder()
            with tempfile.TemporaryDirectory() as downloads:  # else TFDS leaves an empty folder for downloads
                builder.download_and_prepare(download_dir=downloads)
    except RuntimeError as error:  # array_record raises it where a file cannot be written
        raise OSError(str(error).splitlines()[0]) from error
    finally:
        absl.setLevel(level)
    return Path(builder.data_dir)
