"""Studies of settings and losses, and what puts their tables into the documentation."""
