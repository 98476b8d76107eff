"""Small known problems."""
