"""Networks of the zoo as PyTorch modules, and their training: see :mod:`reports.networks.zoo`. Needs the extra `train` and scikit-learn.

They are built as their papers build them, at the size of the data. None was changed to suit the accelerator.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

SEED = 7
WHITE = 16.0  # the largest pixel
TRAINING, CALIBRATION = 0.8, 128
NOISE = 0.2  # standard deviation of what is added to the images that are segmented
EPOCHS, BATCH = 60, 64


def conv(inputs: int, outputs: int, size: int | tuple[int, int] = 3, stride: int = 1) -> nn.Sequential:
    """Make a convolution that keeps the size but for its stride, batch normalisation, ReLU."""
    padding = size // 2 if isinstance(size, int) else (size[0] // 2, size[1] // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Plain(nn.Module):
    """VGG: stacks of 3x3 convolutions, max pooling, linear layers with dropout (Simonyan and Zisserman, 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(1, 16), conv(16, 16), nn.MaxPool2d(2), conv(16, 24), conv(24, 24), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(96, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.classifier(self.features(x))


class Block(nn.Module):
    """Basic block of ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Residual sum, rectified."""
        return functional.relu(self.second(self.first(x)) + self.short(x))


class Residual(nn.Module):
    """ResNet (He et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(1, 12), Block(12, 12, 1), Block(12, 20, 2), Block(20, 32, 2))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.head(torch.flatten(self.pool(self.body(x)), 1))


class Inverted(nn.Module):
    """Inverted bottleneck with squeeze and excitation."""

    def __init__(self, channels: int, wide: int, outputs: int, stride: int, activation: Callable[[], nn.Module], excite: bool) -> None:
        super().__init__()
        self.same = stride == 1 and channels == outputs
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), activation())
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(wide), activation())
        squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide // 4, 1), nn.ReLU(), nn.Conv2d(wide // 4, wide, 1))
        self.gate = nn.Sequential(squeeze, nn.Hardsigmoid()) if excite else None
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bottleneck, and the residual sum where the shape is kept."""
        inside = self.depthwise(self.expand(x))
        inside = self.project(inside if self.gate is None else inside * self.gate(inside))
        return x + inside if self.same else inside


class Mobile(nn.Module):
    """MobileNetV3 with the ReLU6 of V2 in its first block (Howard et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.Hardswish())
        blocks = (Inverted(12, 36, 20, 2, nn.Hardswish, excite=True), Inverted(20, 60, 20, 1, nn.Hardswish, excite=True))
        self.blocks = nn.Sequential(Inverted(12, 24, 12, 1, nn.ReLU6, excite=False), *blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 40), nn.Hardswish(), nn.Linear(40, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.head(self.blocks(self.stem(x)))


class Dense(nn.Module):
    """DenseNet: normalisation before each convolution, every result concatenated (Huang et al., 2017)."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.first = nn.ModuleList(self._layer(12 + growth * index, growth) for index in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(36), nn.ReLU(), nn.Conv2d(36, 18, 1, bias=False), nn.AvgPool2d(2))
        self.second = nn.ModuleList(self._layer(18 + growth * index, growth) for index in range(3))
        self.head = nn.Sequential(nn.BatchNorm2d(42), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(42, 10))

    @staticmethod
    def _layer(channels: int, growth: int) -> nn.Sequential:
        bottleneck = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 2 * growth, 1, bias=False))
        return nn.Sequential(bottleneck, nn.BatchNorm2d(2 * growth), nn.ReLU(), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        x = self.stem(x)
        for layer in self.first:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        for layer in self.second:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x)


class Inception(nn.Module):
    """Inception with factorised kernels (Szegedy et al., 2016)."""

    class Mixed(nn.Module):
        """Four branches, concatenated."""

        def __init__(self, channels: int, each: int) -> None:
            super().__init__()
            self.one = conv(channels, each, 1)
            self.three = nn.Sequential(conv(channels, each, 1), conv(each, each))
            self.five = nn.Sequential(conv(channels, each, 1), conv(each, each, (1, 5)), conv(each, each, (5, 1)))
            self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, each, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Concatenate the branches."""
            return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(1, 12), self.Mixed(12, 8), nn.MaxPool2d(3, 2, 1), self.Mixed(32, 12), nn.AvgPool2d(2))
        self.head = nn.Linear(192, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.head(self.body(x).reshape(x.shape[0], -1))


class UNet(nn.Module):
    """U-Net: scores of two classes for each pixel (Ronneberger et al., 2015); upsampled by ConvTranspose, or by Resize and convolution."""

    def __init__(self, resize: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList((conv(1, 8), conv(8, 16), conv(16, 24)))
        pairs = ((24, 16), (16, 8))
        if resize:
            self.up = nn.ModuleList(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1), nn.SiLU()) for a, b in pairs)
        else:
            self.up = nn.ModuleList(nn.Sequential(nn.ConvTranspose2d(a, b, 2, 2), nn.LeakyReLU(0.1)) for a, b in pairs)
        self.join = nn.ModuleList((conv(32, 16), conv(16, 8)))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of each pixel."""
        first = self.down[0](x)
        second = self.down[1](functional.max_pool2d(first, 2))
        x = self.down[2](functional.max_pool2d(second, 2))
        x = self.join[0](torch.cat([second, self.up[0](x)], 1))
        return self.head(self.join[1](torch.cat([first, self.up[1](x)], 1)))


class Transformer(nn.Module):
    """Vision transformer with a class token (Dosovitskiy et al., 2021), of PyTorch's own encoder layers."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, activation="gelu", batch_first=True, norm_first=True) for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x[:, 0]))


class Audio(nn.Module):
    """One-dimensional network: strided convolutions, dilated gated residual blocks as in WaveNet (van den Oord et al., 2016)."""

    class Gated(nn.Module):
        """tanh times sigmoid."""

        def __init__(self, channels: int, dilation: int) -> None:
            super().__init__()
            self.filter = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
            self.gate = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
            self.mix = nn.Conv1d(channels, channels, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Residual sum."""
            return x + self.mix(torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x)))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(1, 16, 7, 2, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2))
        self.blocks = nn.Sequential(*(self.Gated(16, dilation) for dilation in (1, 2, 4)))
        self.tail = nn.Sequential(nn.Conv1d(16, 32, 3, 2, 1, groups=4), nn.BatchNorm1d(32), nn.ELU(), nn.Flatten(), nn.Linear(256, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.tail(self.blocks(self.stem(x)))


class ConvNext(nn.Module):
    """ConvNeXt: large depthwise kernels, LayerNorm over channels moved last, GELU, a scale for each channel (Liu et al., 2022)."""

    class Block(nn.Module):
        """One residual block."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
            self.norm, self.wide = nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, 3 * channels)
            self.narrow, self.gamma = nn.Linear(3 * channels, channels), nn.Parameter(0.1 * torch.ones(channels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Residual sum."""
            inside = self.depthwise(x).permute(0, 2, 3, 1)
            inside = self.gamma * self.narrow(functional.gelu(self.wide(self.norm(inside))))
            return x + inside.permute(0, 3, 1, 2)

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 2, 2)
        self.blocks = nn.Sequential(self.Block(channels), self.Block(channels))
        self.norm, self.head = nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.head(self.norm(self.blocks(self.stem(x)).mean([2, 3])))


class Entry(NamedTuple):
    """A network: how it is made, what it reads ("image", "noisy", "signal"), and by which of PyTorch's exporters it is written."""

    make: Callable[[], nn.Module]
    data: str
    dynamo: bool


NETWORKS = {
    "plain": Entry(Plain, "image", dynamo=False),
    "residual": Entry(Residual, "image", dynamo=True),
    "mobile": Entry(Mobile, "image", dynamo=False),
    "dense": Entry(Dense, "image", dynamo=True),
    "inception": Entry(Inception, "image", dynamo=False),
    "unet-transpose": Entry(lambda: UNet(resize=False), "noisy", dynamo=True),
    "unet-resize": Entry(lambda: UNet(resize=True), "noisy", dynamo=False),
    "transformer": Entry(Transformer, "image", dynamo=True),
    "audio": Entry(Audio, "signal", dynamo=False),
    "convnext": Entry(ConvNext, "image", dynamo=True),
}


def data() -> dict[str, NDArray[Any]]:
    """Load samples: `train` to train, `calibration` (some of those) and `test`, of each kind, with classes.

    Images are uint8 of 0 to 255 until a network reads them as float32 of 0 to 1; `noisy` ones have noise added, and the class of each of
    their pixels is whether the clean one is at least half white; a `signal` is an image's pixels, row after row.
    """
    digits, rng = load_digits(), np.random.default_rng(SEED)
    images = np.rint(digits.images / WHITE * 255).astype(np.uint8)[:, None]
    noisy = np.rint(np.clip(images / 255 + rng.normal(0, NOISE, images.shape), 0, 1) * 255).astype(np.uint8)
    order = rng.permutation(len(images))
    cut = int(TRAINING * len(order))
    rows = {"train": order[:cut], "calibration": order[:CALIBRATION], "test": order[cut:]}
    found: dict[str, NDArray[Any]] = {}
    for part, index in rows.items():
        found |= {f"{part}/image": images[index], f"{part}/noisy": noisy[index], f"{part}/signal": images[index].reshape(-1, 1, 64)}
        classes, pixels = digits.target[index].astype(np.uint8), (images[index, 0] >= 128).astype(np.uint8)
        found |= {f"{part}/image/class": classes, f"{part}/signal/class": classes, f"{part}/noisy/class": pixels}
    return found


def train(entry: Entry, samples: dict[str, NDArray[Any]], epochs: int = EPOCHS) -> tuple[nn.Module, float]:
    """Train a network; return it in evaluation mode, and its share of right test samples (or pixels)."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order: the same seed on the same versions gives the same weights
    module = entry.make()
    x = torch.from_numpy(samples[f"train/{entry.data}"]).float() / 255
    classes = torch.from_numpy(samples[f"train/{entry.data}/class"]).long()
    optimiser = torch.optim.AdamW(module.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=epochs * -(-len(x) // BATCH))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(module(x[rows]), classes[rows]).backward()
            optimiser.step()
            schedule.step()
    module.eval()
    with torch.no_grad():
        scores = module(torch.from_numpy(samples[f"test/{entry.data}"]).float() / 255)
    right = scores.argmax(1).numpy() == samples[f"test/{entry.data}/class"]
    return copy.deepcopy(module), float(right.mean())


def write(module: nn.Module, entry: Entry, samples: dict[str, NDArray[Any]], path: Path) -> None:
    """Export with a dynamic batch, as PyTorch does it by itself; what it notes about its own sources is left out."""
    example = torch.from_numpy(samples[f"test/{entry.data}"][:2]).float() / 255
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that has no ONNX counterpart
    if entry.dynamo:
        batch = torch.export.Dim("batch", min=1, max=1024)
        program = torch.onnx.export(module, (example,), input_names=["x"], output_names=["y"], dynamic_shapes=({0: batch},), dynamo=True)
        assert program is not None
        model = program.model_proto
    else:
        axes, file = {"x": {0: "batch"}, "y": {0: "batch"}}, io.BytesIO()
        torch.onnx.export(module, (example,), file, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False)
        model = onnx.load_model_from_string(file.getvalue())
    _strip(model)
    onnx.save(model, path)


def _strip(model: onnx.ModelProto) -> None:
    """Remove notes on where in which source a node came from."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


# Networks trained as they are quantised, by Brevitas, which writes QONNX.


def narrow_plain() -> nn.Module:
    """Plain network: inputs of 8 bits, weights and activations of 4."""
    import brevitas.nn as qnn
    from brevitas.quant import Int8WeightPerChannelFloat

    def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        quantiser = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4}
        product = qnn.QuantConv2d(inputs, outputs, 3, stride, 1, bias=False, **quantiser)
        return nn.Sequential(product, nn.BatchNorm2d(outputs), qnn.QuantReLU(bit_width=4))

    body = (layer(1, 16, 1), layer(16, 24, 2), nn.MaxPool2d(2), nn.Flatten(), qnn.QuantLinear(96, 10, bias=True, weight_bit_width=4))
    return nn.Sequential(qnn.QuantIdentity(bit_width=8), *body)


class NarrowResidual(nn.Module):
    """Residual network of 8 bits; both terms of a sum share a quantiser, and the mean is truncated."""

    def __init__(self) -> None:
        super().__init__()
        import brevitas.nn as qnn

        def product(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(qnn.QuantConv2d(inputs, outputs, 3, stride, 1, bias=False, weight_bit_width=8), nn.BatchNorm2d(outputs))

        self.enter = nn.Sequential(qnn.QuantIdentity(bit_width=8), product(1, 16, 1), qnn.QuantReLU(bit_width=8))
        self.first = nn.Sequential(product(16, 32, 2), qnn.QuantReLU(bit_width=8), product(32, 32, 1))
        self.short = nn.Sequential(qnn.QuantConv2d(16, 32, 1, 2, bias=False, weight_bit_width=8), nn.BatchNorm2d(32))
        self.shared = qnn.QuantIdentity(bit_width=8)
        self.sum = qnn.QuantReLU(bit_width=8, return_quant_tensor=True)
        self.pool = qnn.TruncAvgPool2d(4, bit_width=8)
        self.head = nn.Sequential(nn.Flatten(), qnn.QuantLinear(32, 10, bias=True, weight_bit_width=8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        x = self.enter(x)
        return self.head(self.pool(self.sum(self.shared(self.first(x)) + self.shared(self.short(x)))))


def narrow_binary() -> nn.Module:
    """Linear layers of weights and activations of one bit, -1 or 1 times a scale."""
    import brevitas.nn as qnn
    from brevitas.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst

    def layer(inputs: int, outputs: int) -> nn.Sequential:
        product = qnn.QuantLinear(inputs, outputs, bias=False, weight_quant=SignedBinaryWeightPerTensorConst)
        activation = qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)
        return nn.Sequential(product, nn.BatchNorm1d(outputs), activation)

    head = qnn.QuantLinear(96, 10, bias=False, weight_quant=SignedBinaryWeightPerTensorConst)
    return nn.Sequential(nn.Flatten(), qnn.QuantIdentity(bit_width=8), layer(64, 96), layer(96, 96), head, nn.BatchNorm1d(10))


NARROW = {
    "narrow-plain": Entry(narrow_plain, "image", dynamo=True),
    "narrow-residual": Entry(NarrowResidual, "image", dynamo=True),
    "narrow-binary": Entry(narrow_binary, "image", dynamo=True),
}


def write_narrow(module: nn.Module, entry: Entry, samples: dict[str, NDArray[Any]], path: Path) -> NDArray[np.uint8]:
    """Export as QONNX with a batch of one, and return the classes that the module itself gives to the test samples."""
    from brevitas.export import export_qonnx

    x = torch.from_numpy(samples[f"test/{entry.data}"]).float() / 255
    with torch.no_grad():
        classes = module(x).argmax(1).numpy().astype(np.uint8)
    export_qonnx(module, args=x[:1], export_path=str(path))
    model = onnx.load(path)  # its weights may lie in a file beside it
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    _strip(model)
    onnx.save(model, path)
    return classes
