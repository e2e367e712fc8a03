"""Pictures of pages for the documentation, taken in a real browser."""
