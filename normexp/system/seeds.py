"""The independent random streams that a run's one seed sets."""

import hashlib


def stream_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """A seed of 63 bits for one stream of a run ("weights", "order", "augmentation") and epoch.

    Hashed, so that neighbouring seeds and streams have nothing in common.
    """
    digest = hashlib.sha256(f"{stream}:{seed}:{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
