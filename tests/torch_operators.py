"""What torch's autograd computes, in float64, for operators between products; `torch_operators.npz` holds integers in and numbers out.

Run by hand, in an environment of its own:

    pip install torch==2.13.0 numpy==2.4.6
    python tests/torch_operators.py

Images are stored as (samples, height, width, channels). Fractions of the integers are those of the tests that read the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FIXTURE = Path(__file__).with_name("torch_operators.npz")


def image(values: np.ndarray, frac: int) -> torch.Tensor:
    """Bring integers (samples, height, width, channels) to torch's order, as reals."""
    return torch.tensor(values.transpose(0, 3, 1, 2) * 2.0**-frac, requires_grad=True)


def stored(values: torch.Tensor) -> np.ndarray:
    """Bring reals back to (samples, height, width, channels)."""
    reals: np.ndarray = values.detach().numpy().transpose(0, 2, 3, 1)
    return reals


def norm(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Batch normalisation in training, with a ReLU behind; the gradient of y is masked by it."""
    x, dy = rng.integers(-9000, 9000, (3, 5, 4, 6)), rng.integers(-16000, 16000, (3, 5, 4, 6))
    x[..., 1] = x[..., 1] // 300 + 20000  # a small spread far from 0
    x[..., 2] = -77  # none
    dy[..., 1] //= 400  # gradients are the greater there, the smaller the spread
    dy[..., 2] //= 400
    gamma, beta = rng.integers(-20000, 20000, 6), rng.integers(-20000, 20000, 6)
    layer = nn.BatchNorm2d(6, dtype=torch.float64)  # epsilon 1e-5, torch's momentum 0.1
    layer.weight.data, layer.bias.data = (torch.tensor(values * 2.0**-14) for values in (gamma, beta))
    at = image(x, 10)
    y = layer(at)
    functional.relu(y).backward(image(dy, 14).detach())
    assert at.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return {
        "x": x.astype(np.int16), "dy": dy.astype(np.int16), "gamma": gamma.astype(np.int16), "beta": beta.astype(np.int16),
        "y": stored(y), "dx": stored(at.grad), "dgamma": layer.weight.grad.numpy(), "dbeta": layer.bias.grad.numpy(),
        "mean": layer.running_mean.numpy(), "variance": layer.running_var.numpy(),
    }  # fmt: skip


def pools(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Poolings of 3 x 3 with stride 2 and a border of 1; few different elements, so that maxima tie."""
    x, dy = rng.integers(-3, 4, (2, 7, 6, 3)), rng.integers(-9000, 9000, (2, 4, 3, 3))
    found = {"x": x.astype(np.int16), "dy": dy.astype(np.int16)}
    for name, pool in (
        ("max", lambda at: functional.max_pool2d(at, 3, 2, 1)),
        ("mean", lambda at: functional.avg_pool2d(at, 3, 2, 1, count_include_pad=False)),
        ("counted", lambda at: functional.avg_pool2d(at, 3, 2, 1)),
    ):
        at = image(x, 0)
        y = pool(at)
        y.backward(image(dy, 0).detach())
        assert at.grad is not None
        found |= {f"{name}_y": stored(y), f"{name}_dx": stored(at.grad)}
    return found


def loss(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Cross-entropy, summed over samples."""
    logits, labels = rng.integers(-16000, 16000, (9, 10)), rng.integers(0, 10, 9)
    at = torch.tensor(logits * 2.0**-11, requires_grad=True)
    total = functional.cross_entropy(at, torch.tensor(labels), reduction="sum")
    total.backward()
    assert at.grad is not None
    return {"logits": logits.astype(np.int16), "labels": labels, "loss": total.detach().numpy(), "gradient": at.grad.numpy()}


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(0)
    parts = {"norm": norm(rng), "pool": pools(rng), "loss": loss(rng)}
    named: Any = {f"{part}_{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    np.savez_compressed(FIXTURE, **named)


if __name__ == "__main__":
    main()
