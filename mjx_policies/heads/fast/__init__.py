"""FAST: a chunk of actions as a few tokens, and a transformer that generates them."""
