"""Photos in, batches out: datasets, transforms, splits and a loader that prepares batches ahead.

    photos = data.ImageFolder("photos")                      # photos/cat/*.jpg, photos/notcat/*.jpg
    train, test = data.split(photos, (0.9, 0.1), seed=0)
    loader = data.Loader(data.cached(train, 256), batch_size=32, transform=..., shuffle=True, seed=0)
"""

from . import transforms
from .builtin import embedded
from .cache import CachedDataset, cached
from .dataset import ArrayDataset, BrokenPhoto, Dataset, Relabelled, Subset
from .description import describe
from .folder import ImageFolder, PhotoDataset, any_photos
from .known_sets import known, known_names
from .loader import Loader
from .photo import read_photo
from .splits import balanced_sample, split

__all__ = [
    "Dataset", "ArrayDataset", "Subset", "Relabelled", "ImageFolder", "PhotoDataset", "CachedDataset", "BrokenPhoto",
    "embedded", "known", "known_names", "cached", "read_photo", "any_photos", "describe",
    "split", "balanced_sample",
    "Loader", "transforms",
]
