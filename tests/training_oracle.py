"""What torch computes for the small network below, in float64; `training.npz` holds the numbers, rounded to float32.

Run by hand, in an environment of its own:

    pip install torch==2.13.0 numpy==2.4.6
    python tests/training_oracle.py

For every algorithm: gradients of the sum of the losses of a batch, and parameters after three steps of torch.optim.SGD on its mean. What
the algorithms change is written as autograd functions, from their descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FIXTURE = Path(__file__).with_name("training.npz")
BATCH, STEPS, RATE, MOMENTUM, DECAY, SPARSE_DECAY = 4, 3, 0.05, 0.9, 0.01, 0.02
N, M = 2, 4
PRUNED = ("strided", "wide")


def largest(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Mask of the N largest magnitudes of each M along an axis; the last group may be short."""
    lines = values.movedim(axis, -1)
    kept = torch.zeros_like(lines)
    for start in range(0, lines.shape[-1], M):
        part = lines[..., start : start + M].abs()
        best = part.sort(dim=-1, descending=True, stable=True).indices[..., :N]
        kept[..., start : start + M].scatter_(-1, best, 1.0)
    return kept.movedim(-1, axis)


class Sparse(torch.autograd.Function):
    """Convolution whose three products read different operands."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, algorithm: str, options: dict[str, Any]) -> torch.Tensor:
        """Y = X W_FF."""
        groups = options["groups"]
        grouped = w.reshape(groups, -1, *w.shape[1:])
        ff = w * largest(w, 1) if algorithm in ("bdwp", "sr-ste") else w
        bp = (grouped * largest(grouped, 1)).reshape(w.shape) if algorithm == "bdwp" else ff
        ctx.save_for_backward(x, w, bp)
        ctx.algorithm, ctx.options = algorithm, options
        return functional.conv2d(x, ff, **options)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """DX = dY W_BP^T, dW = X^T dY."""
        (dy,), (x, w, bp) = gradients, ctx.saved_tensors
        through = dy
        if ctx.algorithm == "sdgp":
            grouped = dy.reshape(len(dy), ctx.options["groups"], -1, *dy.shape[2:])
            kept = (grouped * largest(grouped, 2)).reshape(dy.shape)
            norms = [each.abs().sum(dim=(2, 3), keepdim=True) for each in (dy, kept)]
            through = kept * torch.where(norms[1] > 0, norms[0] / norms[1], torch.zeros_like(norms[0]))
        dx = nn.grad.conv2d_input(x.shape, bp, through.contiguous(), **ctx.options)
        dw = nn.grad.conv2d_weight(x, w.shape, dy, **ctx.options)
        return dx, dw, None, None


class Net(nn.Module):
    """Convolutions of every kind, normalisation, ties in a pool, both averages, a residual, a linear layer on an image."""

    def __init__(self, algorithm: str) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.strided = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=2, bias=False)
        self.wide = nn.Conv2d(12, 12, 3, padding=2, dilation=2)
        self.linear = nn.Linear(12 * 3 * 4, 5)
        self.kept: dict[str, torch.Tensor] = {}

    def sparse(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Convolve as the algorithm does."""
        conv = getattr(self, name)
        options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
        y = Sparse.apply(x, conv.weight, self.algorithm, options)
        return y if conv.bias is None else y + conv.bias[:, None, None]

    def keep(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Remember a tensor, whose gradient is recorded."""
        x.retain_grad()
        self.kept[name] = x
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = torch.relu(self.norm(self.keep("stem", self.stem(x))))
        x = self.keep("pool", functional.max_pool2d(x, 3, 2, 1))
        x = self.keep("mean", functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        x = self.keep("strided", self.sparse("strided", x))
        x = torch.relu(x + self.keep("wide", self.sparse("wide", x)))
        x = functional.avg_pool2d(x, 2, 1, 1, count_include_pad=True)
        return self.linear(self.keep("last", x).flatten(1))


def stored(name: str, values: torch.Tensor) -> Any:
    """Bring a tensor into the order that the project stores: channels last."""
    array = values.detach().numpy().copy()  # training changes parameters in place
    if name == "linear.weight":
        array = array.reshape(5, 12, 3, 4)
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if array.ndim == 4 else array


def main() -> None:
    """Write the fixture."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(3)
    x, y = torch.randn(BATCH, 3, 8, 9).float().double(), torch.arange(BATCH) % 5
    first = {name: values.float().to(values.dtype) for name, values in Net("dense").state_dict().items()}  # exact in the file
    written: dict[str, Any] = {"x": stored("x", x), "y": y.numpy()}
    for algorithm in ("dense", "bdwp", "sr-ste", "sdgp"):
        net = Net(algorithm)
        net.load_state_dict(first)
        inputs = x.clone().requires_grad_()
        loss = functional.cross_entropy(net(inputs), y, reduction="sum")
        loss.backward()
        written[f"{algorithm} loss"] = loss.detach().numpy()
        written |= {f"{algorithm} d {name}": stored(name, each.grad) for name, each in {**net.kept, "x": inputs}.items()}
        written |= {f"{algorithm} d {name}": stored(name, each.grad) for name, each in net.named_parameters()}
        if algorithm == "dense":
            written |= {f"first {name}": stored(name, each) for name, each in net.named_parameters()}
        net.load_state_dict(first)
        plain = [each for name, each in net.named_parameters() if not name.endswith("weight") or name == "norm.weight"]
        weights = [each for name, each in net.named_parameters() if name.endswith("weight") and name != "norm.weight"]
        optimiser = torch.optim.SGD([{"params": plain, "weight_decay": 0.0}, {"params": weights}], RATE, MOMENTUM, weight_decay=DECAY)
        for _ in range(STEPS):
            optimiser.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            if algorithm == "sr-ste":
                for name in PRUNED:
                    w = getattr(net, name).weight
                    w.grad += SPARSE_DECAY * (1 - largest(w.detach(), 1)) * w.detach()
            optimiser.step()
        written |= {f"{algorithm} after {name}": stored(name, each) for name, each in net.named_parameters()}
        written[f"{algorithm} mean"] = net.norm.running_mean.numpy().copy()
        written[f"{algorithm} variance"] = net.norm.running_var.numpy().copy()
    np.savez_compressed(FIXTURE, **{name: each.astype(np.float32) if each.dtype == np.float64 else each for name, each in written.items()})


if __name__ == "__main__":
    main()
