"""What is in a dataset, as plain records (the command `tinynet data DIR` prints them)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .dataset import Dataset


def describe(dataset: Dataset) -> dict[str, Any]:
    """Counts, sizes and faults of a dataset; no picture is decoded where the sizes are known from the headers.

    Keys: "photos"; "classes", a list of {"class", "photos", "share"}; "height" and "width", each {"smallest", "median",
    "largest"} in pixels or None; "broken", a list of {"photo", "reason"}; "ignored", names of files that are no photos.
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes)).tolist()
    sizes = _sizes(dataset)
    return {
        "photos": len(dataset),
        "classes": [{"class": name, "photos": count, "share": count / max(1, len(dataset))}
                    for name, count in zip(dataset.classes, counts, strict=True)],
        "height": _range(sizes[:, 0]),
        "width": _range(sizes[:, 1]),
        "broken": [{"photo": str(path), "reason": reason} for path, reason in getattr(dataset, "broken", [])],
        "ignored": [str(path) for path in getattr(dataset, "ignored", [])],
    }


def _sizes(dataset: Any) -> npt.NDArray[np.int64]:
    """(N, 2) heights and widths as the files or arrays have them."""
    if hasattr(dataset, "sizes"):
        return np.asarray(dataset.sizes, dtype=np.int64)
    if hasattr(dataset, "images"):
        return np.tile(np.array(dataset.images.shape[1:3], dtype=np.int64), (len(dataset), 1))
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return _sizes(dataset.dataset)[dataset.indices]
    return np.array([dataset[i][0].shape[:2] for i in range(len(dataset))], dtype=np.int64).reshape(-1, 2)


def _range(values: npt.NDArray[np.int64]) -> dict[str, int] | None:
    if values.size == 0:
        return None
    return {"smallest": int(values.min()), "median": int(np.median(values)), "largest": int(values.max())}
