"""Networks of torch, for its environment: python torch_networks.py FOLDER.

Each is written as <name>.pt2, with torch's own answers to images.npy [N, H, W, 3] in <name>.npy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

SIDE, CLASSES = 32, 10


class Separable(nn.Module):
    def __init__(self, given, made, stride):
        super().__init__()
        self.depthwise = nn.Conv2d(given, given, 3, stride, 1, groups=given, bias=False)
        self.first = nn.BatchNorm2d(given)
        self.pointwise = nn.Conv2d(given, made, 1, bias=False)
        self.second = nn.BatchNorm2d(made)

    def forward(self, x):
        x = nn.functional.relu6(self.first(self.depthwise(x)))
        return nn.functional.relu6(self.second(self.pointwise(x)))


class Small(nn.Module):
    """A convolution, two separable ones, and a classifier."""

    def __init__(self, softmax=False):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.body = nn.Sequential(Separable(8, 16, 1), Separable(16, 24, 2))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, CLASSES))
        self.softmax = softmax

    def forward(self, x):
        x = self.head(self.body(self.stem(x)).mean((2, 3)))
        return x.softmax(-1) if self.softmax else x


class Varied(nn.Module):
    """Parts of other mobile networks: squeeze and excitation, h-swish, SiLU, shuffled channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(16, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, 16, 1),
            nn.Hardsigmoid(),
        )
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.last = nn.Sequential(nn.Conv2d(16, 16, 3, padding="same"), nn.GELU())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        x = x * self.squeeze(x)
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.branch(right)], 1)
        size, channels, height, width = x.shape
        x = x.view(size, 2, channels // 2, height, width).transpose(1, 2)
        x = self.last(self.pool(x.reshape(size, channels, height, width)))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def warmed(network):
    """The network with statistics and weights of its batch norms as after training."""
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(8, 3, SIDE, SIDE) * 2 - 1)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return network.eval()


def write(folder, name, network, batch=1, **how):
    exported = torch.export.export(network, (torch.rand(batch, 3, SIDE, SIDE),), **how)
    torch.export.save(exported, folder / f"{name}.pt2")
    images = torch.from_numpy(np.load(folder / "images.npy")).permute(0, 3, 1, 2)
    with torch.no_grad():
        np.save(folder / f"{name}.npy", network.eval()(images).numpy())


def main():
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    images = torch.rand(4, SIDE, SIDE, 3) * 2 - 1
    np.save(folder / "images.npy", images.numpy())
    small = warmed(Small())
    write(folder, "small", small)
    small.softmax = True
    write(folder, "softmax", small)
    small.softmax = False
    free = ({0: torch.export.Dim("batch", max=64)},)
    write(folder, "any_batch", small, 2, dynamic_shapes=free)
    write(folder, "varied", warmed(Varied()))
    write(folder, "varied_any_batch", warmed(Varied()), 2, dynamic_shapes=free)
    # What is refused.
    write(folder, "batch_of_two", small, 2)
    write(folder, "training", small.train())
    write(folder, "wide", warmed(nn.Sequential(nn.Conv2d(3, 4, 1))))
    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    write(folder, "any_size", small, dynamic_shapes=(sides,))


if __name__ == "__main__":
    main()
