"""The kernels of a GPU: CUDA sources (*.cu), and beside each the page that compiles and launches it through CuPy.

They change speed, never meaning; functional calls them where `here(x)`, and everything else in tinynet does not know of them.
Nothing in this package imports CuPy: the array module of an array is asked for what is needed of it.
"""

from .launch import dense, fit, here, names, source

__all__ = ["dense", "fit", "here", "names", "source"]
