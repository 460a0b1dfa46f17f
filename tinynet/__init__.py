"""tinynet: convolutional networks from scratch in NumPy and CuPy; train them, and see what they have learned."""

from . import backend, errors, functional, nn, optim

__all__ = ["backend", "errors", "functional", "nn", "optim"]
__version__ = "0.1.0"
