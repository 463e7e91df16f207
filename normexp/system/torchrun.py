"""What torchrun tells the processes it starts; read from the environment, without torch."""

import os


def world_size() -> int:
    """How many processes train one run together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0; rank 0 alone prints and writes."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Which of those on this machine this is: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
