"""TorchEnsemble's BaggingClassifier with the same layers.

python -m benchmarks.contestants.torchensemble JOBS MEMBERS EPOCHS BATCH_SIZE IMAGES PROJECT
"""

import logging
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchensemble import BaggingClassifier

from benchmarks.contestants.images import load, print_probabilities


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.middle = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(before, after, 1, stride, bias=False)
        self.end = nn.BatchNorm2d(after)

    def forward(self, x):
        return functional.relu(
            self.end(self.short(x) + self.second(functional.relu(self.middle(self.first(x)))))
        )


class Residual(nn.Module):
    """The layers of `brainmri.networks.builders.residual`."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.blocks = nn.Sequential(Block(16, 24, 1), Block(24, 48, 2), Block(48, 96, 2))
        self.end = nn.Sequential(nn.Dropout(0.3), nn.Linear(192, 2))

    def forward(self, x):
        x = self.blocks(self.stem(functional.layer_norm(x, x.shape[1:])))
        return self.end(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


def main() -> None:
    jobs, members, epochs, batch_size = map(int, sys.argv[1:5])
    logging.disable()
    torch.manual_seed(0)
    images, labels, test_images, _ = load(Path(sys.argv[5]), 128, Path(sys.argv[6]))
    images, test_images = (
        torch.tensor(part[:, None], dtype=torch.float32) for part in (images, test_images)
    )
    ensemble = BaggingClassifier(Residual, n_estimators=members, n_jobs=jobs, cuda=False)
    ensemble.set_criterion(nn.CrossEntropyLoss())
    ensemble.set_optimizer("Adam", lr=0.002, weight_decay=1e-4)
    ensemble.set_scheduler("CosineAnnealingLR", T_max=epochs)
    loader = DataLoader(TensorDataset(images, torch.tensor(labels)), batch_size, shuffle=True)
    ensemble.fit(loader, epochs, log_interval=10**9, save_model=False)
    print_probabilities(ensemble.predict(test_images).detach().numpy())


if __name__ == "__main__":
    main()
