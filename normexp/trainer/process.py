"""What belongs to the process and not to a run: device, threads, precision, determinism, memory."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from normexp import __version__
from normexp.config.schema import Config, Device, Precision
from normexp.system import memory, torchrun
from normexp.system.errors import UserError
from normexp.system.memory import MIB
from normexp.trainer import malloc

FILES_A_RUN = 3  # its lock, its log, its TensorBoard events
OTHER_FILES = 100  # generously: without a run Python and torch have a dozen open, drivers some more


def pick_device(wanted: Device) -> torch.device:
    """The device to train on; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: this machine has no such device.
    """
    has = {
        Device.cuda: torch.cuda.is_available(),
        Device.mps: torch.backends.mps.is_available(),
        Device.cpu: True,
    }
    if wanted is Device.auto:
        wanted = next(device for device, there in has.items() if there)
    if not has[wanted]:
        there = ", ".join(device.value for device, available in has.items() if available)
        raise UserError(f"device={wanted.value}: torch finds none here; use device=auto or {there}")
    if wanted is Device.cuda:
        return _own_gpu()
    return torch.device(wanted.value)


def _own_gpu() -> torch.device:
    """The GPU of this process, where torchrun started several."""
    return torch.device("cuda", torchrun.local_rank() if torchrun.world_size() > 1 else 0)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """What a forward pass runs under; torch computes the statistics of norms in fp32 either way."""
    if precision is Precision.bf16:
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def compiled(network: nn.Module) -> nn.Module:
    """The network compiled for the one shape that training steps have.

    torch keeps a few compiled shapes of each piece of code and gives up compiling after that: a
    sweep over many networks begins anew with each.
    """
    torch.compiler.reset()
    return cast(nn.Module, torch.compile(network, dynamic=False))


@contextlib.contextmanager
def settings(config: Config, device: torch.device) -> Iterator[None]:
    """Threads, determinism and the random state of a run, put back when it ends."""
    threads = torch.get_num_threads()
    benchmark, tf32 = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled()
    if config.deterministic:
        # cuBLAS repeats itself only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        _set_deterministic(config.deterministic)
        torch.backends.cudnn.benchmark = not config.deterministic
        # By default convolutions on a GPU round fp32 to 10 bits: neither what was asked for nor
        # what a CPU computes.
        torch.backends.cudnn.allow_tf32 = False
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), malloc.kept():
            torch.manual_seed(config.seed)
            reset_peak_memory(device)
            yield
    finally:
        torch.set_num_threads(threads)
        _set_deterministic(deterministic)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, tf32
        if device.type == "cuda":
            # What a run that ran out of memory held would be missing for the next.
            torch.cuda.empty_cache()


def _set_deterministic(wanted: bool) -> None:
    # Only if need be: the call loads torch's compiler, which takes a second.
    if torch.are_deterministic_algorithms_enabled() != wanted:
        torch.use_deterministic_algorithms(wanted)


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak of earlier runs of this process, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory in use since :func:`reset_peak_memory`, in MiB: of the device's allocator on
    CUDA, of the whole process on a CPU; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def allow_open_files(runs: int) -> None:
    """Raise this process's limit of open files so far that the files of all runs can be open.

    Raises:
        UserError: the system does not allow so many.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    has, allowed = (
        sys.maxsize if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard)
    )
    most = max((allowed - OTHER_FILES) // FILES_A_RUN, 1)
    if runs > most:
        raise UserError(
            f"{runs} seeds hold {FILES_A_RUN} files open each, and the system allows {allowed} "
            f"(ulimit -n): ask for {most} new ones at a time, or raise that limit"
        )
    wanted = FILES_A_RUN * runs + OTHER_FILES
    if has < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, allowed), hard))


def free_memory(device: torch.device) -> float | None:
    """Memory that this process can still take, in MiB; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / MIB
    return memory.free()


def out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice; on a CPU torch has no class of errors for that."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = ("DefaultCPUAllocator", "Storage size calculation overflowed")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def measured(device: torch.device) -> dict[str, Any]:
    """The fields of result.json that tell where a run was computed."""
    peak = peak_memory_mb(device)
    return {
        "peak_memory_mb": None if peak is None else round(peak, 1),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "git": git_revision(),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    return {"normexp": __version__, "torch": torch.__version__, "python": platform.python_version()}


def git_revision() -> str | None:
    """The commit of the checkout this code runs from, `+` if it was changed; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+",
               "--exclude=*"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
