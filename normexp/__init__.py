"""normexp: which normalization layer, at which batch size, and what does it cost?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from normexp.system import signals

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from normexp.norms.rules import Site

__version__ = "0.1.0"

if signals.is_command():
    # First of all: the imports of a command take seconds.
    signals.begin()
    from normexp.system import streams

    streams.begin()


def read_runs(folder: "str | Path") -> "pd.DataFrame":
    """All runs below a folder, such as ``outputs/first``, as a table with a row a run.

    Columns: ``folder``, where the run lies below the given one; ``status`` (``completed``,
    ``diverged``, ``failed``, ``interrupted`` or ``unfinished``) with its ``reason``; ``model``,
    ``norm``, ``data``, ``batch_size``, ``seed``; every field of result.json by its own name, such
    as ``test_acc`` (0..1), ``ms_per_step`` and ``peak_memory_mb``, with ``test_acc_running``,
    ``version_torch`` and the like for what stands deeper, and ``epochs_trained`` for how many there
    were; and every setting of config.yaml by its dotted key, such as ``norm.num_groups``, None
    where nothing reads it. ``.attrs["unreadable"]`` has a line for each run directory skipped.

        runs = normexp.read_runs("outputs/first")
        runs.groupby(["norm", "batch_size"])["test_acc"].agg(["mean", "std", "count"])

    Raises:
        UserError: there is no such folder, or no run in it that can be read.
    """
    # pandas takes its time, which --help need not wait for.
    from normexp.report.read import read_runs as read

    runs = read(Path(folder))
    runs.table.attrs["unreadable"] = runs.unreadable
    return runs.table


def norm(name: str, channels: int, dims: int = 4, **settings: Any) -> "nn.Module":
    """A norm as a layer, such as ``normexp.norm("gn", channels=64, num_groups=32)``.

    Args:
        name: of the catalogue (``python -m normexp.norms``), or ``module:function``.
        dims: 4 for inputs (N,C,H,W), 3 for tokens (N,L,C), 2 for (N,C).
        settings: the keys of norm.*, such as eps, affine, num_groups.

    Raises:
        UserError: there is no such norm or setting, or it cannot work on such inputs.
    """
    from normexp.models import swap as swapping

    return swapping.norm(name, channels, dims, **settings)


def sites(network: "nn.Module", images: "Tensor") -> "list[Site]":
    """Where the norms of a network stand, by looking at what one pass of images gives them: the
    name of each layer, its channels, its positions (H*W, or L of tokens; None for vectors), and
    whether it sees tokens (N,L,C).

    Args:
        images: a small batch as the network takes it, such as (2,3,224,224). The network is looked
            at in evaluation mode and left as it was.

    Raises:
        UserError: the network does not take such images.
    """
    from normexp.models import swap as swapping

    return swapping.sites(network, images)


def swap(network: "nn.Module", name: str, images: "Tensor", **settings: Any) -> "nn.Module":
    """Put a norm in the place of each norm of a network, as ``model=torchvision:... norm=gn`` does:
    BatchNorm, SyncBatchNorm, GroupNorm, InstanceNorm and LayerNorm over channels give way to the
    one named, with as many channels; γ and β are kept where they have the same shape.

        network = torchvision.models.resnet50()
        normexp.swap(network, "gn", torch.zeros(2, 3, 224, 224), num_groups=32)

    Args:
        network: is changed.
        images: as of :func:`sites`.
        settings: the keys of norm.*.

    Returns:
        The same network.

    Raises:
        UserError: the norm cannot work at one of the places, which it names.
    """
    from normexp.models import swap as swapping

    chosen = swapping.config(name, settings)
    swapping.swap(network, chosen, swapping.sites(network, images))
    return network


def load_run(folder: "str | Path") -> "nn.Module":
    """The network of a finished run, ``outputs/NAME/RUN_ID``, with the weights that met the test
    set, in evaluation mode on the CPU. It takes normalized images (N,3,S,S) and gives logits.

    Raises:
        UserError: there is no finished run there, or it is damaged.
    """
    from dataclasses import replace

    from normexp.config.schema import Device, Precision
    from normexp.finished import finished_run

    run = finished_run.load(
        Path(folder), lambda config: replace(config, device=Device.cpu, precision=Precision.fp32)
    )
    return run.network.eval()
