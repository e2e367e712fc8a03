"""Refuses older versions of Python in one line, before any dependency is looked up; all else is in setup.cfg."""

import sys

from setuptools import setup

if sys.version_info < (3, 11):  # noqa: UP036
    this = ".".join(map(str, sys.version_info[:3]))
    raise SystemExit(f"mrl_jax needs Python 3.11 or newer; this is {this}. Make the environment with a newer one.")

setup()
