"""Text, tables, learning curves and progress for people to read."""
