"""Figures in the prose of README and docs, rendered from the files of results."""
