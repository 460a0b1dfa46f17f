"""tinynet: convolutional networks from scratch in NumPy and CuPy; train them, and see what they have learned."""

__version__ = "0.1.0"
