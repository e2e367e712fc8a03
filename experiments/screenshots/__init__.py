"""Pictures of pages, for the documentation."""
