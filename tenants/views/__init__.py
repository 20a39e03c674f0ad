"""A tenant's pages, by room."""
