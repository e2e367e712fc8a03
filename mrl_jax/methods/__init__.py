"""Methods: how a common space is learned."""
