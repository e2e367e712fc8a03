"""Compared methods with networks that are trained by gradient steps, one a file."""
