"""What CIFAR-10 and CIFAR-100 consist of. The checksums are those that torchvision demands; they
are repeated because importing torchvision takes seconds."""

from dataclasses import dataclass

from normexp.config.schema import DataConfig, DataName


@dataclass(frozen=True)
class Version:
    """One of the two, in its version for Python."""

    title: str
    name: str
    """As ``data=`` has it, and as torchvision's class in lower case."""
    folder: str
    archive: str
    archive_md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    md5: dict[str, str]
    """Of each file."""
    labels: str
    """The key of a file's labels."""
    names: str
    """The key of the names of classes."""
    classes: int
    mean: tuple[float, float, float] | None = None
    """Of the official training images, on the scale 0..1; None: to be computed."""
    std: tuple[float, float, float] | None = None


CIFAR10 = Version(
    title="CIFAR-10",
    name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    labels="labels",
    names="label_names",
    classes=10,
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(0.24703223, 0.24348513, 0.26158784),
)

CIFAR100 = Version(
    title="CIFAR-100",
    name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    train=("train",),
    test=("test",),
    meta="meta",
    md5={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    labels="fine_labels",
    names="fine_label_names",
    classes=100,
)

OTHERS = {
    "cifar-10-batches-py": "CIFAR-10",
    "cifar-100-python": "CIFAR-100",
    "cifar-10-batches-bin": "CIFAR-10's binary version",
    "cifar-10-batches-mat": "CIFAR-10's Matlab version",
    "cifar-100-binary": "CIFAR-100's binary version",
    "cifar-100-matlab": "CIFAR-100's Matlab version",
}
"""What is offered where these are, by its folder."""


def version_of(data: DataConfig) -> Version:
    """The one that ``data`` names."""
    return CIFAR100 if data.name is DataName.cifar100 else CIFAR10
