"""Train, prune, quantise and write `digits-cnn`, the network that ships with the package.

Data: scikit-learn's handwritten digits [1]_, 1797 images of 8x8 pixels of 0 to 16, split by a fixed seed into training, validation and
held-out test images, digits in equal shares. Only training images train and calibrate; validation images choose the epoch; test images are
looked at once, at the end. The same seed on the same versions gives the same bytes.

Run as ``python reports/networks/digits_cnn.py`` in an environment with the extra `train`.

References
----------
.. [1] E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
   https://doi.org/10.24432/C50P49 (CC BY 4.0).
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

from accel import networks
from accel.sparsity import Pattern, mask
from accel.verification.compare import run_onnxruntime

NAME = "digits-cnn"
SEED = 20
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
WHITE = 16.0  # the largest pixel
PATTERN = Pattern(2, 8)
DENSE_EPOCHS, SPARSE_EPOCHS, BATCH = 80, 80, 64
OPSET, IR_VERSION = 17, 8  # the oldest that hold everything used here, so that old tools read the files


class Split(NamedTuple):
    """Images, float32 of shape (n, 1, 8, 8) in [0, 1], labels, and their rows in the data set."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


class Conv(NamedTuple):
    """Hyper-parameters of a 3x3 convolution with padding 1."""

    inputs: int
    filters: int
    stride: int
    pruned: bool


# 16 or a multiple of it: whole tiles of a 16x16 array, whole bundles of 8 and 16 channels.
CONVS = {
    "conv1": Conv(1, 16, 1, pruned=False),
    "conv2": Conv(16, 32, 2, pruned=True),
    "conv3": Conv(32, 32, 1, pruned=True),
    "conv4": Conv(32, 64, 1, pruned=True),
}
FEATURES, CLASSES = 64 * 2 * 2, 10
# How each activation is quantised: both kinds, so that both are exercised.
UNSIGNED = ("image", "conv2", "conv3")  # uint8, asymmetric
SIGNED = ("conv1", "residual", "conv4", "logits")  # int8, symmetric


def splits() -> tuple[Split, Split, Split]:
    """Training, validation and test images."""
    digits = load_digits()
    images = (digits.images / WHITE).astype(np.float32)[:, None]
    rng = np.random.default_rng(SEED)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for digit in range(CLASSES):
        rows = rng.permutation(np.flatnonzero(digits.target == digit))
        test, validation = round(TEST_SHARE * len(rows)), round(VALIDATION_SHARE * len(rows))
        for part, own in zip(parts, (rows[test + validation :], rows[test : test + validation], rows[:test]), strict=True):
            part.extend(own.tolist())
    train, validate, held_out = (Split(images[rows], digits.target[rows].astype(np.int64), np.array(rows)) for rows in parts)
    return train, validate, held_out


class Digits(nn.Module):
    """The network in training: batch normalisation after each convolution, masks on the pruned ones."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({name: nn.Conv2d(c.inputs, c.filters, 3, c.stride, 1, bias=False) for name, c in CONVS.items()})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(c.filters) for name, c in CONVS.items()})
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.masks: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images."""
        x = torch.relu(self.conv("conv1", x))
        x = torch.relu(self.conv("conv2", x))
        x = torch.relu(x + self.conv("conv3", x))
        x = torch.relu(self.conv("conv4", x))
        return self.linear(torch.flatten(torch.max_pool2d(x, 2), 1))

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Convolve and normalise."""
        return self.norms[name](self.convs[name](x))

    def prune(self) -> None:
        """Fix the masks from the weights as they are."""
        for name, conv in CONVS.items():
            if conv.pruned:
                weights = self.convs[name].weight.detach().numpy()
                self.masks[name] = torch.from_numpy(mask(weights, PATTERN, axis=1))

    def hold(self) -> None:
        """Set what the masks remove to 0."""
        with torch.no_grad():
            for name, kept in self.masks.items():
                self.convs[name].weight.mul_(kept)

    def folded(self) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights and biases with the normalisation folded in."""
        found = {}
        for name, norm in self.norms.items():
            factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weights, bias = self.convs[name].weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor
            found[name] = (weights.detach().numpy(), bias.detach().numpy())
        found["linear"] = (self.linear.weight.detach().numpy(), self.linear.bias.detach().numpy())
        return found


def train(model: Digits, data: Split, validation: Split, epochs: int, rate: float) -> Digits:
    """Train with AdamW and a cosine schedule on images shifted by up to one pixel; return the epoch of least validation loss."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    steps = -(-len(data.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    best, least = copy.deepcopy(model), float("inf")
    model.hold()
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(labels)).split(BATCH):
            down, across = torch.randint(-1, 2, (2,)).tolist()
            shifted = nn.functional.pad(images[rows], (1, 1, 1, 1))[:, :, 1 + down : 9 + down, 1 + across : 9 + across]
            optimiser.zero_grad()
            loss(model(shifted), labels[rows]).backward()
            optimiser.step()
            schedule.step()
            model.hold()
        model.eval()
        with torch.no_grad():
            now = float(loss(model(torch.from_numpy(validation.images)), torch.from_numpy(validation.labels)))
        if now < least:
            best, least = copy.deepcopy(model), now
    return best


class Form(NamedTuple):
    """How an activation is quantised."""

    scale: np.float32
    zero_point: NDArray[Any]


class Graph:
    """The ONNX graph: of reals without forms, quantised with them."""

    def __init__(self, parameters: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]], forms: dict[str, Form] | None) -> None:
        self.parameters, self.forms = parameters, forms
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node that is named like its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        """Add an initializer."""
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def activation(self, x: str, name: str, like: str | None = None) -> str:
        """Quantise and dequantise, in the form of this name; `like` names another tensor's."""
        if self.forms is None:
            return x
        form = self.forms[like or name]
        pair = [self.constant(f"{name}/scale", form.scale), self.constant(f"{name}/zero_point", form.zero_point)]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, *pair], f"{name}/quantized"), *pair], f"{name}/dequantized")

    def weighted(self, name: str, x: str, source: str) -> list[str]:
        """List the inputs of a layer: `x`, quantised in the form of `source`, weights and bias."""
        weights, bias = self.parameters[name]
        if self.forms is None:
            return [x, self.constant(f"{name}/weight", weights), self.constant(f"{name}/bias", bias)]
        scale = (np.abs(weights).reshape(len(weights), -1).max(axis=1) / 127).astype(np.float32)
        integers = np.rint(weights / scale.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.int8)
        unit = scale * self.forms[source].scale
        inputs = [x]
        for kind, values, factor in (("weight", integers, scale), ("bias", np.rint(bias / unit).astype(np.int32), unit)):
            pair = [
                self.constant(f"{name}/{kind}_scale", factor),
                self.constant(f"{name}/{kind}_zero_point", np.zeros_like(values, shape=len(scale))),
            ]
            quantised = self.constant(f"{name}/{kind}_quantized", values)
            inputs.append(self.node("DequantizeLinear", [quantised, *pair], f"{name}/{kind}_dequantized", axis=0))
        return inputs

    def conv(self, name: str, x: str, source: str) -> str:
        """Add a convolution."""
        stride = CONVS[name].stride
        return self.node("Conv", self.weighted(name, x, source), name, kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4)

    def relu(self, x: str) -> str:
        """Add a Relu."""
        return self.node("Relu", [x], f"{x}/relu")


def export(parameters: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]], forms: dict[str, Form] | None) -> onnx.ModelProto:
    """Write the network as ONNX."""
    graph = Graph(parameters, forms)
    x = graph.activation("image", "image")
    x = graph.activation(graph.relu(graph.conv("conv1", x, "image")), "conv1")
    x = graph.activation(graph.relu(graph.conv("conv2", x, "conv1")), "conv2")
    y = graph.activation(graph.conv("conv3", x, "conv2"), "conv3")
    x = graph.activation(graph.relu(graph.node("Add", [x, y], "residual")), "residual")
    x = graph.activation(graph.relu(graph.conv("conv4", x, "residual")), "conv4")
    x = graph.activation(graph.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2]), "pool", like="conv4")
    x = graph.node("Flatten", [x], "flat", axis=1)
    x = graph.activation(graph.node("Gemm", graph.weighted("linear", x, "conv4"), "scores", transB=1), "logits")
    graph.node("Identity", [x], "logits")
    made = helper.make_graph(
        graph.nodes,
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=NAME)
    onnx.checker.check_model(model, full_check=True)
    return model


def calibrate(model: onnx.ModelProto, data: Split) -> dict[str, Form]:
    """Give each activation the range it has over the data."""
    tensors = {"image": "image", "conv1": "conv1/relu", "conv2": "conv2/relu", "conv3": "conv3", "residual": "residual/relu"}
    tensors |= {"conv4": "conv4/relu", "logits": "logits"}
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors.values() if name not in ("image", "logits"))
    values = run_onnxruntime(whole, {"image": data.images}) | {"image": data.images}
    forms = {}
    for name, tensor in tensors.items():
        lo, hi = min(float(values[tensor].min()), 0.0), max(float(values[tensor].max()), 0.0)
        if name in UNSIGNED:
            scale = np.float32((hi - lo) / 255)
            forms[name] = Form(scale, np.uint8(np.rint(-lo / scale)))
        else:
            forms[name] = Form(np.float32(max(-lo, hi) / 127), np.int8(0))
    return forms


def accuracy(model: onnx.ModelProto, data: Split) -> float:
    """Share of images that onnxruntime classifies right."""
    return float(np.mean(run_onnxruntime(model, {"image": data.images})["logits"].argmax(axis=1) == data.labels))


def main() -> None:
    """Write the networks and the test images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(networks.__file__).parent, help="folder to write to (default: the package's)")
    out = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    data, validation, test = splits()
    dense = train(Digits(), data, validation, DENSE_EPOCHS, 3e-3)
    sparse = copy.deepcopy(dense)
    sparse.prune()
    sparse = train(sparse, data, validation, SPARSE_EPOCHS, 1e-3)
    for label, trained in (("dense", dense), (str(PATTERN), sparse)):
        model = export(trained.folded(), None)
        quantised = export(trained.folded(), calibrate(model, data))
        for part, images in (("validation", validation), ("test", test)):
            print(f"{label:6} {part:10} float {accuracy(model, images):7.2%}  quantised {accuracy(quantised, images):7.2%}")
    onnx.save(model, out / f"{NAME}.float.onnx")
    onnx.save(quantised, out / f"{NAME}.onnx")
    np.savez_compressed(out / f"{NAME}.npz", images=test.images, labels=test.labels, rows=test.rows)


if __name__ == "__main__":
    main()
