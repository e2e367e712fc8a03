"""Methods: how a common space is learned. `registry` lists them; each has a file.

Importing the package brings nothing, so that the list of methods is light.
"""
