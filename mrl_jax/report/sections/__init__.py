"""The sections of a page, each a function of a run, or of several."""
