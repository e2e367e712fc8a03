"""Methods: how a common space is learned. `registry` lists them; each has a file.

Importing this package imports no method.
"""
