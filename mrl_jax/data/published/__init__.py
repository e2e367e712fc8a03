"""Published feature sets: which there are, their files' layouts, and prepared copies of them."""
