"""The folder of prepared data."""

import os
from pathlib import Path

from mrl_jax.files import refuse_address

__all__ = ["cache_folder"]


def cache_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder of prepared data: `data_dir`, else the variable MRL_JAX_DATA_DIR, else the user's cache folder.

    Raises:
        InputError: it is an address.
    """
    given = data_dir or os.environ.get("MRL_JAX_DATA_DIR")
    if given:
        refuse_address(given, "folder of prepared data", output=True)
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mrl_jax"))
