"""A network with its preprocessing as a file, checked by reading it back."""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normexp.finished.finished_run import FinishedRun
from normexp.system.errors import RunFailed, UserError
from normexp.system.writing import replacing

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}
TOLERANCE = 1e-3
"""How far logits may be off, in parts of those above 1: rounding of fp32 in a whole network."""


class FromPixels(nn.Module):
    """A network behind the normalization of its images: takes fp32 (N,3,S,S) in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(self, run: FinishedRun) -> None:
        super().__init__()
        normalized = run.config.data.normalize
        mean = run.mean if normalized else (0.0, 0.0, 0.0)
        std = run.std if normalized else (1.0, 1.0, 1.0)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        # A channel that is the same everywhere becomes 0, as in training.
        self.register_buffer("std", torch.tensor([each or 1.0 for each in std]).view(1, 3, 1, 1))
        self.network = run.network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def refuse_missing_packages(form: str) -> None:
    """Raise a UserError where a format needs what is not installed."""
    missing = [name for name in NEEDED[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {form}: {', '.join(missing)} is missing; pip install 'normexp[export]', or "
            "use --format pt2"
        )


def export(run: FinishedRun, form: str, path: Path) -> float:
    """Write a run whose network is in evaluation, on the CPU.

    Args:
        form: ``onnx`` or ``pt2``.

    Returns:
        The largest difference between logits of the file and of the run, on random images, in
        parts of logits above 1.

    Raises:
        UserError: the file cannot be written.
        RunFailed: the file does not give the run's answers, and is not written.
    """
    model = FromPixels(run).eval()
    size = run.image_size
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    facts = {
        "run_id": run.run_id,
        "classes": list(run.classes),
        "input": f"images: fp32 (N,3,{size},{size}), RGB, 0..1; normalized inside",
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
    }
    if run.levels is not None:
        facts["black_to_white"] = f"{run.levels} in images of more than 8 bits a channel"
    with _quietly():
        batch = torch.export.Dim("N", min=1)
        program = torch.export.export(model, (example,), dynamic_shapes={"images": {0: batch}})
        content = _as_onnx(program, facts) if form == "onnx" else _as_pt2(program, facts)
        difference = max(_difference(run, form, content, count) for count in (1, 2, 7))
    if not difference <= TOLERANCE:
        raise RunFailed(
            f"{path} is not written: its logits differ from the run's by {difference:.1e}; use the "
            "other --format"
        )
    with replacing(path, "choose another --out") as file:
        file.write(content)
    return difference


def _as_pt2(program: Any, facts: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"normexp.json": json.dumps(facts)})
    return buffer.getvalue()


def _as_onnx(program: Any, facts: dict[str, Any]) -> bytes:
    made: Any = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["images"], output_names=["logits"]
    )
    proto = made.model_proto
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        proto.metadata_props.add(key=f"normexp.{key}", value=text)
    content: bytes = proto.SerializeToString()
    return content


def _difference(run: FinishedRun, form: str, content: bytes, count: int) -> float:
    """Between what the file and what the run says of so many random images of 8 bits."""
    size = run.image_size
    generator = torch.Generator().manual_seed(count)
    shape = (count, 3, size, size)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images = pixels.float() / 255
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    else:
        found = torch.export.load(io.BytesIO(content)).module()(images)
    own = run.logits(pixels)
    return float(((found - own).abs() / own.abs().clamp(min=1)).max())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters say of their own versions and steps."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
