"""The embedded data set: emoji pictures and their names."""
