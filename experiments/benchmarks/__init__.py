"""Measurements of speed and memory, and checks of one version or device against another."""
