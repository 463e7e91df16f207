"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# One thread for torch here and in the processes that tests start: bit for bit the same everywhere,
# and quick on a machine that has other things to do. Read once, when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def shared_cifar10() -> Path:
    """The folder of real images: $NORMEXP_TEST_DATA, or ../shared/cifar10 beside the checkout.

    Tests that use it are skipped where it is absent, except where CI says it must be there.
    """
    given = os.environ.get("NORMEXP_TEST_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "cifar10"
    if folder.is_dir():
        return folder
    if given and os.environ.get("CI") == "true":
        pytest.fail(f"NORMEXP_TEST_DATA={given} is no folder")
    pytest.skip(f"{folder} is absent")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of packed images, of the test's own."""
    from normexp.data import image_folder

    folder = tmp_path / "cache"
    monkeypatch.setenv("NORMEXP_CACHE", str(folder))
    monkeypatch.setattr(image_folder, "_known_fingerprints", {})
    return folder
