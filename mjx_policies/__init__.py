"""Robot policies in JAX, from massively parallel simulation to a controller."""

__version__ = "0.1.0"
