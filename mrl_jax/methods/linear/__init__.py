"""Closed-form methods: linear maps of every modality into a common space."""
