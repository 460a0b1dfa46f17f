"""Known sets: downloads from a local server that behaves well or badly, unpacking, and each format on a tiny file of it."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinynet.data import known, known_names
from tinynet.data.archives import Archive, fetch, unpack
from tinynet.data.known_sets import ARCHIVES, read_caltech101, read_cifar10, read_pets
from tinynet.errors import ArgumentError, FileError

CONTENT = bytes(range(256)) * 400


class Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes] = {}                       # noqa: RUF012  (filled by the fixture)

    def do_GET(self) -> None:
        if self.path == "/cut":                        # half of what was promised, then the connection ends
            self.answer(CONTENT[: len(CONTENT) // 2], len(CONTENT))
        elif self.path == "/short":                    # half, and no promise of a length
            self.answer(CONTENT[: len(CONTENT) // 2], None)
        elif self.path in self.files:
            self.answer(self.files[self.path], len(self.files[self.path]))
        else:
            self.send_error(404)

    def answer(self, content: bytes, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.files = {"/good": CONTENT}
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def archive(url: str, content: bytes = CONTENT, name: str = "set.bin") -> Archive:
    return Archive(url, hashlib.md5(content).hexdigest(), 1, name)


def test_a_good_file_is_fetched_once(server: str, tmp_path: Path) -> None:
    path = fetch(archive(f"{server}/good"), tmp_path / "new" / "folder")
    assert path == tmp_path / "new/folder/set.bin" and path.read_bytes() == CONTENT
    Handler.files = {}                                 # from now on the server has nothing
    assert fetch(archive(f"{server}/good"), path.parent) == path


def test_a_damaged_file_in_the_cache_is_fetched_again(server: str, tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(b"damaged")
    assert fetch(archive(f"{server}/good"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(("address", "says"), [
    ("/missing", "the server says 404"), ("/cut", "broke off"), ("/short", "not the expected file"),
])
def test_a_bad_transfer_is_one_clear_line_and_leaves_nothing(
    server: str, tmp_path: Path, address: str, says: str
) -> None:
    with pytest.raises(FileError, match=says) as caught:
        fetch(archive(server + address), tmp_path)
    message = str(caught.value)
    assert server + address in message and "\n" not in message
    assert f"put it at {tmp_path / 'set.bin'}" in message
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checksum(server: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="its MD5 is not"):
        fetch(archive(f"{server}/good", b"another file"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_server_and_no_folder(server: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no connection"):
        fetch(archive("http://127.0.0.1:9/good"), tmp_path)            # the discard port: nobody listens
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written"):
        fetch(archive(f"{server}/good"), tmp_path / "file")


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def test_unpack(tmp_path: Path) -> None:
    folder = unpack(tar(tmp_path / "a.tar.gz", {"x/y.txt": b"hello"}), tmp_path / "out")
    assert (folder / "x/y.txt").read_bytes() == b"hello"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("x/y.txt", b"hello")
    assert (unpack(tmp_path / "a.zip", tmp_path / "zipped") / "x/y.txt").read_bytes() == b"hello"


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "x/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_members_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("good.txt", b"")
        out.writestr(name, b"evil")
    with pytest.raises(FileError, match="would lead out of the folder"):
        unpack(tmp_path / "a.zip", tmp_path / "in" / "out")
    if name.startswith(("../", "x/../")):
        with pytest.raises(FileError, match="cannot be unpacked"):
            unpack(tar(tmp_path / "a.tar.gz", {name: b"evil"}), tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil.txt")) and list((tmp_path / "in").iterdir()) == []


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc")
    with pytest.raises(FileError, match="lead out"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as out:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        out.addfile(member)
    with pytest.raises(FileError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_leaves_no_folder(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar.gz", {"x.bin": np.random.default_rng(0).bytes(50000)})
    whole.write_bytes(whole.read_bytes()[:20000])
    (tmp_path / "b.tar.gz").write_bytes(b"no archive")
    for path in (whole, tmp_path / "b.tar.gz"):
        with pytest.raises(FileError, match="cannot be unpacked"):
            unpack(path, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "b.tar.gz"]


def cifar(folder: Path, per_file: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Writes a tiny CIFAR-10; returns images and labels of its training part."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6 * per_file, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 6 * per_file)
    for k, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        with open(folder / name, "wb") as file:
            for i in range(k * per_file, (k + 1) * per_file):
                file.write(bytes([labels[i]]))
                for channel in range(3):               # all red, then all green, then all blue
                    file.write(images[i, :, :, channel].tobytes())
    return images, labels


def test_cifar10_format(tmp_path: Path) -> None:
    images, labels = cifar(tmp_path / "bin")
    for split, part in (("train", slice(0, 15)), ("test", slice(15, 18))):
        dataset = read_cifar10(tmp_path / "bin", split)
        np.testing.assert_array_equal(dataset.images, images[part])
        assert dataset.labels.tolist() == labels[part].tolist() and dataset.classes[3] == "cat"
    for content in (b"", b"\x03" * 3072, b"\x0b" + b"\0" * 3072):
        (tmp_path / "bin/test_batch.bin").write_bytes(content)
        with pytest.raises(FileError, match="records of 3073 bytes"):
            read_cifar10(tmp_path / "bin", "test")
    with pytest.raises(FileError, match="cannot be read"):
        read_cifar10(tmp_path / "nowhere", "test")


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(out, "PNG")
    return out.getvalue()


LISTS = {"annotations/trainval.txt": b"Abyssinian_1 1 1 1\nbeagle_2 5 2 1\n",
         "annotations/test.txt": b"#Image CLASS-ID SPECIES BREED ID\nbeagle_3 5 2 1\nBengal_4 6 1 2\nbeagle_5 5 2 1\n"}
PETS = {f"images/{name}.jpg": png(i) for i, name in enumerate(["Abyssinian_1", "beagle_2", "beagle_3", "Bengal_4"])}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_pets_format(tmp_path: Path) -> None:
    write(tmp_path, {**LISTS, **PETS, "images/beagle_5.jpg": b""})
    train = read_pets(tmp_path / "images", tmp_path / "annotations")
    assert train.classes == ["cat", "dog"] and train.labels.tolist() == [0, 1] and train[1][0][0, 0, 0] == 1
    test = read_pets(tmp_path / "images", tmp_path / "annotations", "test", other="notcat")
    assert test.classes == ["cat", "notcat"] and test.labels.tolist() == [1, 0]
    assert [broken.path.name for broken in test.broken] == ["beagle_5.jpg"]
    for line in (b"Abyssinian_1 1 3 1", b"Abyssinian_1 1", b"../evil 1 1 1"):
        (tmp_path / "annotations/test.txt").write_bytes(line)
        with pytest.raises(FileError, match="expected lines"):
            read_pets(tmp_path / "images", tmp_path / "annotations", "test")
    with pytest.raises(FileError, match="cannot be read"):
        read_pets(tmp_path / "images", tmp_path / "nowhere")


def test_caltech101_format(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/image_{i:04}.jpg": png(i) for name in ("ant", "bass", "BACKGROUND_Google") for i in range(32)})
    train, test = (read_caltech101(tmp_path, split) for split in ("train", "test"))
    assert train.classes == ["ant", "bass"]
    assert np.bincount(train.labels).tolist() == [30, 30] and np.bincount(test.labels).tolist() == [2, 2]
    assert not set(train.indices.tolist()) & set(test.indices.tolist())


def served(monkeypatch: pytest.MonkeyPatch, server: str, key: str, content: bytes) -> None:
    Handler.files[f"/{key}"] = content
    monkeypatch.setitem(ARCHIVES, key, archive(f"{server}/{key}", content, ARCHIVES[key].name))


def test_known_sets_from_the_server_to_the_samples(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = cifar(tmp_path / "cifar")
    files = {f"cifar-10-batches-bin/{path.name}": path.read_bytes() for path in (tmp_path / "cifar").iterdir()}
    served(monkeypatch, server, "cifar10", tar(tmp_path / "c.tar.gz", files).read_bytes())
    served(monkeypatch, server, "pets-images", tar(tmp_path / "i.tar.gz", PETS).read_bytes())
    served(monkeypatch, server, "pets-annotations", tar(tmp_path / "n.tar.gz", LISTS).read_bytes())
    photos = {f"101_ObjectCategories/{name}/{i}.jpg": png(i) for name in ("ant", "bass") for i in range(31)}
    inner = tar(tmp_path / "101_ObjectCategories.tar.gz", photos)
    with zipfile.ZipFile(tmp_path / "caltech.zip", "w") as out:
        out.write(inner, "caltech-101/101_ObjectCategories.tar.gz")
    served(monkeypatch, server, "caltech101", (tmp_path / "caltech.zip").read_bytes())

    for _ in ("from the server", "from the folder"):
        root = tmp_path / "root"
        np.testing.assert_array_equal(known("cifar10", "test", root)[0][0], images[15])
        assert known("pets-cat-dog", "train", root).classes == ["cat", "dog"]
        assert known("pets-cat-notcat", "train", root).classes == ["cat", "notcat"]
        assert len(known("caltech101", "test", root, size=2)) == 2
        Handler.files = {}


def test_refusals(tmp_path: Path) -> None:
    assert known_names() == ["cifar10", "pets-cat-dog", "pets-cat-notcat", "caltech101"]
    with pytest.raises(ArgumentError, match=r"expected one of cifar10, .*got 'mnist'"):
        known("mnist", root=tmp_path)
    with pytest.raises(ArgumentError, match="'train' or 'test'"):
        known("cifar10", "val", root=tmp_path)
