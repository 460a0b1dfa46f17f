"""Hashes that tell one model from another, and one set of photos from another: what may be gone on from, and what may not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from ..backend import to_host
from ..data.dataset import BrokenPhoto, Dataset, name
from ..data.loader import Transform
from ..nn import Layer

_PROBES = 8                                                     # photos whose pixels tell one set of photos from another


def model_fingerprint(model: Layer) -> str:
    """A hash of a model's structure and weights."""
    digest = hashlib.sha256(repr(model).encode())
    for key, x in model.state_dict().items():
        digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(np.ascontiguousarray(to_host(x)).tobytes())
    return digest.hexdigest()[:16]


def photos_fingerprint(dataset: Dataset, transform: Transform) -> str:
    """A hash of a set of photos as a model gets them: number, labels, file names, and the pixels of a few."""
    digest = hashlib.sha256(json.dumps([len(dataset), list(dataset.classes)]).encode())
    digest.update(np.asarray(dataset.labels, dtype=np.int64).tobytes())
    digest.update("\n".join(Path(name(dataset, i)).name for i in range(len(dataset))).encode())
    for index in np.unique(np.linspace(0, len(dataset) - 1, _PROBES).round().astype(int)).tolist():
        try:
            digest.update(np.ascontiguousarray(transform(dataset[index][0], np.random.default_rng(0))).tobytes())
        except BrokenPhoto:
            digest.update(b"broken")
    return digest.hexdigest()[:16]
