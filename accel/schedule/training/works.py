"""The matrix products of a training step: those of every layer and stage, as work for the search.

- FF: ``y = x W``. A layer that the algorithm prunes there runs at the pattern, weights along the input channels.
- BP: ``dx = dy W^T``: of stride s the dense convolutions of its s^2 phases; a phase without taps is zeros that only cross DRAM. Pruned
  weights are paired along the filters. Where the output gradient is pruned instead (SDGP) it is the paired operand: its pixels are the
  columns, input channels the rows.
- WU: ``dw = x^T dy``, rows (tap, input channel), columns filters, the reduction all positions of all images, always dense. A tile loads an
  element of x for each of its rows and positions, so one that several taps see is loaded for each of those that the tile has.

A product of two activations has one product in FF and two in BP, dense.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from accel.config import AcceleratorConfig
from accel.graph.trainable import Convolution, Product, Trainable
from accel.schedule.gemm import Gemm
from accel.schedule.lower import dense, phases
from accel.schedule.memory import Region
from accel.schedule.operations import PRUNED
from accel.schedule.search import ProductWork, word
from accel.sparsity import Pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Equal products, and where the images of the batch are in them.

    Parameters
    ----------
    work : ProductWork
    axis : str
        Along which images follow each other: ``"m"`` rows, ``"n"`` columns, ``"k"`` the reduction, ``"repeats"`` the products.
    each : int
        Places of an image on that axis.
    gradient : int or None
        Which operand is the gradient of the result, 0 or 1; None in FF.
    zeros : int
        Zeros stored beside the results, in all [bytes].
    """

    work: ProductWork
    axis: str
    each: int
    gradient: int | None = None
    zeros: int = 0


@dataclass(frozen=True, slots=True)
class Lowering:
    """What the products of a network depend on.

    Parameters
    ----------
    network : Trainable
    config : AcceleratorConfig
    batch : int
    algorithm : str
        Key of :data:`accel.schedule.operations.PRUNED`.
    pattern : Pattern
        Of what is pruned.
    eligible : frozenset of str
        Layers that may be.
    """

    network: Trainable
    config: AcceleratorConfig
    batch: int
    algorithm: str
    pattern: Pattern
    eligible: frozenset[str]

    def operand(self, layer: Convolution, stage: str) -> str | None:
        """Name the pruned operand of a layer's products: ``"weights"``, ``"gradient"`` or None."""
        return PRUNED[self.algorithm].get(stage) if layer.name in self.eligible and not self.pattern.dense else None

    def at(self, layer: Convolution, stage: str) -> Pattern:
        """Return the pattern at which a layer runs."""
        return self.pattern if self.operand(layer, stage) else dense(self.config)

    def parts(self, layer: Convolution | Product, stage: str) -> tuple[Part, ...]:
        """List the products of a stage of a layer.

        Parameters
        ----------
        layer : Convolution or Product
        stage : str
            ``"FF"``, ``"BP"`` or ``"WU"``; a product of activations has no ``"WU"``.
        """
        if isinstance(layer, Product):
            m, k, n = layer.m, layer.k, layer.n
            sizes: list[tuple[int, int, int, int | None]] = [(m, k, n, None)] if stage == "FF" else [(m, n, k, 0), (k, m, n, 1)]
            return tuple(self._activations(layer, *size) for size in sizes)
        return {"FF": self._forward, "BP": self._backward, "WU": self._gradient}[stage](layer)

    def _activations(self, layer: Product, m: int, k: int, n: int, gradient: int | None) -> Part:
        gemm = Gemm(m=m, n=n, taps=1, channels=k, pattern=dense(self.config))
        region = Region.plain(m, k * word(self.config.act_bits))
        work = ProductWork(gemm=gemm, repeats=self.batch * layer.count, region=region, dynamic=True)
        return Part(work=work, axis="repeats", each=layer.count, gradient=gradient)

    def _forward(self, layer: Convolution) -> tuple[Part, ...]:
        height, width, channels = self.network.image(layer.inputs[0])
        down, across = layer.window.positions(height, width)
        gemm = Gemm(
            m=self.batch * down * across,
            n=layer.filters // layer.groups,
            taps=layer.window.taps,
            channels=channels // layer.groups,
            pattern=self.at(layer, "FF"),
        )
        region = Region(self.batch, height, width, layer.window, gemm.channels * word(self.config.act_bits))
        return (Part(work=ProductWork(gemm=gemm, repeats=layer.groups, region=region), axis="m", each=down * across),)

    def _backward(self, layer: Convolution) -> tuple[Part, ...]:
        height, width, channels = self.network.image(layer.inputs[0])
        down, across = layer.window.positions(height, width)
        size, filters = word(self.config.act_bits), layer.filters // layer.groups
        found, empty = [], 0
        for phase in phases(layer.window, (down, across), (height, width)):
            each = phase.positions.size
            if phase.empty:
                empty += each
                continue
            gemm = Gemm(
                m=self.batch * each, n=channels // layer.groups, taps=phase.window.taps, channels=filters, pattern=self.at(layer, "BP")
            )
            region, axis = Region(self.batch, down, across, phase.window, filters * size), "m"
            if self.operand(layer, "BP") == "gradient":  # columns are pixels
                gemm = Gemm(m=gemm.n, n=gemm.m, taps=gemm.taps, channels=gemm.channels, pattern=gemm.pattern)
                region, axis = Region.plain(gemm.m, gemm.k * size), "n"
            work = ProductWork(gemm=gemm, repeats=layer.groups, region=region)
            found.append(Part(work=work, axis=axis, each=each, gradient=0 if axis == "m" else 1))
        zeros = self.batch * empty * channels * size
        return (*found[:-1], dataclasses.replace(found[-1], zeros=zeros))

    def _gradient(self, layer: Convolution) -> tuple[Part, ...]:
        height, width, channels = self.network.image(layer.inputs[0])
        down, across = layer.window.positions(height, width)
        rows, positions = layer.window.taps * channels // layer.groups, self.batch * down * across
        gemm = Gemm(m=rows, n=layer.filters // layer.groups, taps=1, channels=positions, pattern=dense(self.config))
        region = Region.plain(rows, positions * word(self.config.act_bits))
        work = ProductWork(gemm=gemm, repeats=layer.groups, region=region, dynamic=True)
        return (Part(work=work, axis="k", each=down * across, gradient=1),)
