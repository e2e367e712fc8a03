"""Check that a run resumes with the configuration with which it started."""

import dataclasses

from mrl_jax.config import Config, shown
from mrl_jax.config_formats import ADDED_OPTIONS
from mrl_jax.errors import InputError
from mrl_jax.options import FILE_FIELDS
from mrl_jax.run.folder import RunFolder

__all__ = ["as_begun", "extends", "refuse_other_config", "with_length"]


def with_length(config: Config, stored: Config) -> Config:
    """A configuration whose number of epochs is that of a run that resumes, where it is left open."""
    if config.epochs is None and config.has_effect("epochs"):
        return dataclasses.replace(config, epochs=stored.epochs)
    return config


def as_begun(config: Config, folder: RunFolder) -> Config:
    """A configuration with the values of a run that resumes, where it leaves open what an older version did otherwise.

    That is the number of epochs, and numbers of the method that the older version did not have.
    """
    stored, config = folder.config(), with_length(config, folder.config())
    older = (*config.method_options, *ADDED_OPTIONS.get(config.method, ()))
    if folder.format() < 4 and older == stored.method_options:
        return dataclasses.replace(config, method_options=older)
    return config


def extends(stored: Config, config: Config) -> bool:
    """Whether a configuration differs from another one in more epochs only; paths of files may differ."""
    names = {f.name for f in dataclasses.fields(Config)} - {"epochs", *FILE_FIELDS}
    longer = (config.epochs or 0) > (stored.epochs or 0)
    return longer and all(getattr(config, n) == getattr(stored, n) for n in names)


def refuse_other_config(folder: RunFolder, config: Config) -> None:
    """Compare a configuration with that of a run; paths of files may differ.

    Args:
        folder: folder of the run.
        config: the given configuration.

    Raises:
        InputError: they differ; the message names the first field.
    """
    stored = folder.config()
    for f in dataclasses.fields(Config):
        if f.name in FILE_FIELDS:  # a file may have moved; digests tell whether it is the same
            continue
        old, new = getattr(stored, f.name), getattr(config, f.name)
        if old != new:
            raise InputError(
                f"{f.name} {shown(new)} was given, but the run in {str(folder.path)!r} has {shown(old)}; "
                "a run resumes with its own configuration: leave the flag out, or name a new folder"
            )
