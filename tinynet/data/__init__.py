"""Photos in, batches out: datasets, transforms, splits and a loader that prepares batches ahead.

    photos = data.ImageFolder("photos")                      # photos/cat/*.jpg, photos/notcat/*.jpg
    train, test = data.split(photos, (0.9, 0.1), seed=0)
    loader = data.Loader(data.cached(train, 256), batch_size=32, transform=..., shuffle=True, seed=0)
"""

from tinynet.data import transforms
from tinynet.data.builtin import embedded
from tinynet.data.cache import CachedDataset, cached
from tinynet.data.dataset import ArrayDataset, BrokenPhoto, Dataset, Relabelled, Subset
from tinynet.data.description import describe
from tinynet.data.folder import ImageFolder, PhotoDataset, any_photos
from tinynet.data.known_sets import known, known_names
from tinynet.data.loader import Loader
from tinynet.data.photo import read_photo
from tinynet.data.splits import balanced_sample, split

__all__ = [
    "Dataset", "ArrayDataset", "Subset", "Relabelled", "ImageFolder", "PhotoDataset", "CachedDataset", "BrokenPhoto",
    "embedded", "known", "known_names", "cached", "read_photo", "any_photos", "describe",
    "split", "balanced_sample",
    "Loader", "transforms",
]
