"""A finished study as one folder or file to give away, and back again."""
