"""The training loop as tutorials write it: PIL images, torchvision transforms, a DataLoader, and
`loss.item()` at every step. What `python -m normexp.bench` compares the trainer with.

    python scripts/tutorial.py        trains simple_cnn with BN for one epoch on synthetic images
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Images(Dataset[tuple[torch.Tensor, int]]):
    """uint8 images (N,3,H,W) and their labels (N,), decoded and augmented one by one."""

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        # As torchvision's CIFAR10 keeps them: H,W,C.
        self.images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.labels = labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[-1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.transform(Image.fromarray(self.images[index]))
        return image, int(self.labels[index])


def train(network: nn.Module, loader: "DataLoader[tuple[torch.Tensor, int]]") -> Iterator[float]:
    """Train, one step at each ``next()``, for as many epochs as are asked for; yields the loss."""
    device = next(network.parameters()).device
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    running_loss, correct, total = 0.0, 0, 0
    while True:
        for inputs, labels in loader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            outputs = network(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            _, predicted = outputs.max(1)
            total += labels.size(0)
            correct += predicted.eq(labels).sum().item()
            yield loss.item()


def main() -> None:
    from normexp.data.sources import load
    from normexp.models.build import build_model
    from normexp.runs.composing import compose

    config = compose(["data=synthetic"])
    train_set = load(config.data).train
    loader = DataLoader(Images(train_set.images, train_set.labels), batch_size=64, shuffle=True)
    steps = train(build_model(config.model, config.norm, 32, 10, 0), loader)
    for step in range(1, len(loader) + 1):
        loss = next(steps)
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
