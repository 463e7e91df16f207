"""CIFAR-10 and CIFAR-100: what is read, what is refused, and how missing files are fetched."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refused_data import refusal

from normexp.config.schema import DataConfig, DataName
from normexp.data import cifar_versions, sources
from normexp.data.cifar_versions import CIFAR10, CIFAR100, Version

NAMES = [f"class{index}" for index in range(10)]
FILES = [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch", "batches.meta"]


def config(root: Path, **keys: Any) -> DataConfig:
    given = {"name": DataName.cifar10, "verify": False, **keys}
    return DataConfig(root=str(root), **given)


def batch(seed: int, count: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": pixels, "labels": rng.integers(0, 10, count).tolist()}


def contents(protocol: int = 2) -> dict[str, bytes]:
    made: dict[str, Any] = {name: batch(seed) for seed, name in enumerate(FILES[:-1])}
    made["batches.meta"] = {"label_names": NAMES}
    return {name: pickle.dumps(value, protocol) for name, value in made.items()}


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name if "/" in name else f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_reads_what_was_pickled(tmp_path: Path, protocol: int) -> None:
    write_folder(tmp_path, contents(protocol))
    found = sources.load(config(tmp_path))
    assert found.classes == tuple(NAMES)
    expected = np.concatenate([batch(seed)["data"] for seed in range(5)])
    assert found.train.images.dtype == np.uint8
    assert found.train.labels.dtype == np.int64
    assert found.train.images.flags.c_contiguous
    np.testing.assert_array_equal(found.train.images, expected.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(found.test.images, batch(5)["data"].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(found.test.labels, batch(5)["labels"])
    scaled = expected.reshape(-1, 3, 1024) / 255
    np.testing.assert_allclose(found.mean, scaled.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std(axis=(0, 2)), rtol=1e-12)


@pytest.mark.parametrize("version", [CIFAR10, CIFAR100])
def test_checksums_and_names_are_the_official_ones(version: Version) -> None:
    from torchvision import datasets

    theirs = getattr(datasets, version.name.upper())
    listed = dict([*theirs.train_list, *theirs.test_list])
    listed[theirs.meta["filename"]] = theirs.meta["md5"]
    assert listed == version.md5
    assert tuple(name for name, _ in theirs.train_list) == version.train
    assert (theirs.base_folder, theirs.filename) == (version.folder, version.archive)
    assert (theirs.tgz_md5, theirs.meta["key"]) == (version.archive_md5, version.names)


def test_statistics_are_the_official_ones() -> None:
    assert CIFAR10.mean is not None
    assert CIFAR10.std is not None
    np.testing.assert_allclose(CIFAR10.mean, (0.4914, 0.4822, 0.4465), atol=5e-5)
    np.testing.assert_allclose(CIFAR10.std, (0.2470, 0.2435, 0.2616), atol=5e-5)


FINE = [f"class{index}" for index in range(100)]


def hundred(seed: int, count: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made = batch(seed, count)
    del made["labels"]
    fine = rng.integers(0, 100, count).tolist()
    return {**made, "fine_labels": fine, "coarse_labels": [label // 5 for label in fine]}


def hundred_archive(path: Path, **changed: Any) -> Path:
    meta = {"fine_label_names": FINE, "coarse_label_names": FINE[:20]}
    files = {"train": hundred(0) | changed, "test": hundred(1), "meta": meta}
    pickled = {f"cifar-100-python/{name}": pickle.dumps(one, 2) for name, one in files.items()}
    return write_archive(path, pickled)


def test_the_hundred_fine_classes_are_read(tmp_path: Path) -> None:
    archive = hundred_archive(tmp_path / "elsewhere" / "c.tar.gz")
    data = config(tmp_path / "root", name=DataName.cifar100, url=archive.as_uri())
    found = sources.load(data)
    assert found.classes == tuple(FINE)
    assert found.train.labels.tolist() == hundred(0)["fine_labels"]
    np.testing.assert_array_equal(found.test.images.reshape(-1, 3072), hundred(1)["data"])
    assert sources.place(data) == tmp_path / "root" / "cifar-100-python"
    assert found.fingerprint not in ("", "cifar10", "cifar100")
    inner = config(tmp_path / "root" / "cifar-100-python", name=DataName.cifar100)
    assert sources.load(inner).fingerprint == found.fingerprint


def test_labels_beyond_the_hundred_and_the_other_version_are_refused(tmp_path: Path) -> None:
    hundred_archive(tmp_path / CIFAR100.archive, fine_labels=[0, 1, 2, 3, 4, 100])
    message = refusal(config(tmp_path, name=DataName.cifar100))
    assert "'fine_labels' are not numbers from 0 to 99" in message
    message = refusal(config(tmp_path / "cifar-100-python", download=False))
    assert "is CIFAR-100, which is not read by data=cifar10" in message


def test_original_pixels_agree_with_plain_pickle(shared_cifar10: Path, tmp_path: Path) -> None:
    archive = shared_cifar10 / "cifar-10-python-mini.tar.gz"
    (tmp_path / CIFAR10.archive).symlink_to(archive)
    found = sources.load(config(tmp_path, download=False))
    with tarfile.open(archive) as tar:
        members = [tar.extractfile(f"cifar-10-batches-py/{name}") for name in FILES[:-1]]
        plain = [pickle.load(member, encoding="latin1") for member in members if member]
    pixels = np.concatenate([one["data"] for one in plain[:5]]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(found.train.images, pixels)
    assert found.train.labels.tolist() == [label for one in plain[:5] for label in one["labels"]]
    assert found.test.labels.tolist() == plain[5]["labels"]
    assert found.test.images.shape == (1000, 3, 32, 32)
    assert found.classes[:2] == ("airplane", "automobile")
    # A tenth of the data set lies close to the statistics of all of it.
    np.testing.assert_allclose(found.mean, CIFAR10.mean, atol=0.01)
    np.testing.assert_allclose(found.std, CIFAR10.std, atol=0.01)


class Touch:
    """Pickles as a call of os.mkdir."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_calls_nothing_that_a_pickle_names(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    evil = pickle.dumps({**batch(0), "more": Touch(trap)})
    folder = write_folder(tmp_path, {**contents(), "data_batch_3": evil})
    message = refusal(config(tmp_path))
    assert str(folder / "data_batch_3") in message
    assert "mkdir" in message
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data_batch_2", contents()["data_batch_2"][:9000]),
        ("test_batch", b""),
        ("test_batch", b"hello"),
        ("data_batch_1", pickle.dumps([1, 2])),
        ("data_batch_1", pickle.dumps({"labels": [1]})),
        ("data_batch_1", pickle.dumps({**batch(0), "labels": [0, 1, 2, 3, 4, 10]})),
        ("data_batch_1", pickle.dumps({**batch(0), "labels": [0, 1, 2, 3, 4, -1]})),
        ("data_batch_1", pickle.dumps({**batch(0), "labels": [0, 1, 2, 3, 4, [5]]})),
        ("data_batch_1", pickle.dumps({**batch(0), "labels": [0, 1, 2, 3, 4, "5"]})),
        ("data_batch_1", pickle.dumps({**batch(0), "labels": [0]})),
        ("data_batch_1", pickle.dumps({"data": np.zeros((2, 99), np.uint8), "labels": [0, 1]})),
        ("data_batch_1", pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]})),
        ("batches.meta", pickle.dumps({"label_names": ["cat"]})),
    ],
)
def test_refuses_foreign_and_truncated_files(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write_folder(tmp_path, {**contents(), name: content})
    assert str(folder / name) in refusal(config(tmp_path))


def test_refuses_files_that_are_not_official(tmp_path: Path) -> None:
    files = contents()
    folder = write_folder(tmp_path, files)
    message = refusal(config(tmp_path, verify=True))
    assert str(folder / "data_batch_1") in message
    assert hashlib.md5(files["data_batch_1"]).hexdigest() in message
    assert "c99cafc152244af753f735de768cd75f" in message
    assert "data.verify=false" in message


def test_accepts_official_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = contents()
    write_folder(tmp_path, files)
    official = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(cifar_versions, "CIFAR10", replace(CIFAR10, md5=official))
    found = sources.load(config(tmp_path, verify=True))
    assert found.fingerprint == "cifar10"
    assert found.mean == CIFAR10.mean
    # The same files are the same data, demanded or not.
    assert sources.fingerprint(config(tmp_path)) == "cifar10"


def test_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_folder(tmp_path / name, contents())
    first, second = (sources.fingerprint(config(tmp_path / name)) for name in ("one", "two"))
    assert first == second != "cifar10"
    changed = tmp_path / "two" / "cifar-10-batches-py" / "test_batch"
    changed.write_bytes(pickle.dumps(batch(99, count=7)))
    assert sources.fingerprint(config(tmp_path / "two")) != first


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "renamed"])
def test_the_folder_of_the_files_itself_may_be_the_root(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path, contents()).rename(tmp_path / name)
    found = sources.load(config(folder, download=False))
    assert len(found.train.images) == 30
    assert sources.place(config(folder)) == folder
    (folder / "data_batch_3").unlink()
    message = refusal(config(folder))
    assert f"{folder} lacks data_batch_3" in message
    # A person's own files are neither replaced nor added to.
    assert {path.name for path in folder.iterdir()} == set(FILES) - {"data_batch_3"}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "keys", [{"download": False}, {}, {"url": "file:///nowhere", "verify": True}]
)
def test_a_file_that_is_missing_is_named(tmp_path: Path, keys: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, contents())
    (folder / "data_batch_3").unlink()
    assert f"{folder} lacks data_batch_3" in refusal(config(tmp_path, **keys))
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(FILES) - {"data_batch_3"})


def test_an_archive_is_no_root(tmp_path: Path) -> None:
    for name, fix in ((CIFAR10.archive, f"data.root={tmp_path},"), ("c.tgz", "data.url=file:///")):
        archive = write_archive(tmp_path / name, contents())
        message = refusal(config(archive))
        assert f"{archive}: is a file" in message
        assert fix in message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cifar-100-python", "CIFAR-100"),
        ("cifar-10-batches-bin", "binary version"),
        ("cifar-10-batches-mat", "Matlab version"),
    ],
)
def test_other_versions_are_named_and_not_added_to(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).mkdir()
    assert what in refusal(config(tmp_path, download=False))
    assert what in refusal(config(tmp_path / name, url="file:///nowhere"))
    assert list((tmp_path / name).iterdir()) == []


def test_missing_files_are_one_line_that_says_what_works(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    message = refusal(config(root, download=False))
    for part in (
        *("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", str(root)),
        *("data.root=", "data.url=", "data=synthetic"),
    ):
        assert part in message
    assert not root.exists()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.tar.gz", "file:///nowhere/a.tar.gz", "nonsense://a/b", "a.tar.gz"]
)
def test_failed_download_is_one_line_that_says_what_works(tmp_path: Path, url: str) -> None:
    message = refusal(config(tmp_path, url=url))
    for part in (url, str(tmp_path), CIFAR10.archive_md5, "data=synthetic"):
        assert part in message
    assert not (tmp_path / CIFAR10.archive).exists()


def test_fetches_from_a_file_url(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive = write_archive(tmp_path / "a mirror" / "any name.tar.gz", contents())
    root = tmp_path / "root"
    found = sources.load(config(root, url=archive.as_uri()))
    assert len(found.train.images) == 30
    assert capfd.readouterr().err == ""  # No bar where the output is not a terminal.
    # What is kept is what torchvision and the next run look for; no unfinished files remain.
    assert (root / CIFAR10.archive).read_bytes() == archive.read_bytes()
    archive.unlink()
    again = sources.load(config(root, download=False))
    np.testing.assert_array_equal(again.train.images, found.train.images)
    assert {path.name for path in root.iterdir()} <= {
        *("cifar-10-batches-py", "cifar-10-python.tar.gz", ".cifar-10.lock")
    }


def test_refuses_a_download_with_another_checksum(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "mirror.tar.gz", contents())
    root = tmp_path / "root"
    message = refusal(config(root, url=archive.as_uri(), verify=True))
    assert hashlib.md5(archive.read_bytes()).hexdigest() in message
    assert CIFAR10.archive_md5 in message
    assert not (root / CIFAR10.archive).exists()
    assert not (root / "cifar-10-batches-py").exists()


def test_truncated_download_is_not_kept(tmp_path: Path) -> None:
    whole = write_archive(tmp_path / "whole.tar.gz", contents()).read_bytes()
    mirror = tmp_path / "mirror.tar.gz"
    mirror.write_bytes(whole[: len(whole) // 2])
    root = tmp_path / "root"
    assert "cannot be unpacked" in refusal(config(root, url=mirror.as_uri()))
    mirror.write_bytes(whole)
    assert len(sources.load(config(root, url=mirror.as_uri())).test.images) == 6


def test_archive_without_all_files_leaves_nothing_half_done(tmp_path: Path) -> None:
    files = contents()
    del files["data_batch_4"]
    archive = write_archive(tmp_path / CIFAR10.archive, files)
    message = refusal(config(tmp_path, download=False))
    assert str(archive) in message
    assert "data_batch_4" in message
    assert not (tmp_path / "cifar-10-batches-py").exists()


def test_unpacks_nothing_outside_its_folder(tmp_path: Path) -> None:
    root = tmp_path / "inner" / "root"
    evil = {"../../evil": b"x", f"{tmp_path}/absolute": b"x", "cifar-10-batches-py/../up": b"x"}
    write_archive(root / CIFAR10.archive, {**evil, **contents()})
    sources.load(config(root, download=False))
    found = {path.name for path in tmp_path.rglob("*")}
    assert found.isdisjoint({"evil", "absolute", "up"})


def test_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(contents()["test_batch"])
    with tarfile.open(tmp_path / CIFAR10.archive, "w:gz") as tar:
        for name in FILES:
            link = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, str(secret)
            tar.addfile(link)
    assert "data_batch_1" in refusal(config(tmp_path))


def test_completes_a_folder_that_lacks_files(tmp_path: Path) -> None:
    write_archive(tmp_path / CIFAR10.archive, contents())
    folder = write_folder(tmp_path, {"data_batch_1": b"half"})
    (tmp_path / ".cifar-10-part").mkdir()  # As a killed run leaves it.
    (tmp_path / ".cifar-10-part" / "data_batch_1").write_bytes(b"junk")
    assert len(sources.load(config(tmp_path, download=False)).train.images) == 30
    assert {path.name for path in folder.iterdir()} == set(FILES)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_root_serves_and_refuses(tmp_path: Path) -> None:
    good, bare = tmp_path / "good", tmp_path / "bare"
    write_folder(good, contents())
    bare.mkdir()
    for folder in (good, bare):
        folder.chmod(0o555)
    assert len(sources.load(config(good)).test.images) == 6
    message = refusal(config(bare, url="file:///nowhere"))
    assert str(bare) in message
    assert "data.root=" in message


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / CIFAR10.archive, contents())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    message = refusal(config(tmp_path))
    assert str(tmp_path) in message
    assert "No space left on device" in message
    assert not (tmp_path / "cifar-10-batches-py").exists()


READ = """
import sys
from normexp.config.schema import DataConfig, DataName
from normexp.data import sources
data = DataConfig(name=DataName.cifar10, root=sys.argv[1], verify=False, download=False)
found = sources.load(data)
assert "torch" not in sys.modules and "torchvision" not in sys.modules
print(len(found.train.images), found.fingerprint)
"""


def test_processes_that_unpack_at_once_agree(tmp_path: Path) -> None:
    """And none of them imports torchvision, which takes seconds, where nothing is to fetch."""
    write_archive(tmp_path / CIFAR10.archive, contents())
    command = [sys.executable, "-c", READ, str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(set(printed)) == 1
    assert printed[0].startswith("30 ")


class Counting(SimpleHTTPRequestHandler):
    paths: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.paths.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    write_archive(tmp_path / "served" / "c.tar.gz", contents())
    Counting.paths.clear()
    handler = partial(Counting, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/c.tar.gz"
        server.shutdown()
        thread.join()


def test_runs_that_fetch_at_once_download_once(tmp_path: Path, mirror: str) -> None:
    sources.load(config(tmp_path / "alone", url=mirror))
    alone = len(Counting.paths)
    Counting.paths.clear()
    results: list[int] = []

    def fetch() -> None:
        found = sources.load(config(tmp_path / "together", url=mirror))
        results.append(len(found.train.images))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [30, 30, 30]
    assert len(Counting.paths) == alone
