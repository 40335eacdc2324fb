"""Faults planted in the RTL's source, each of which the bench of its block must find."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A replacement in one source file.

    Parameters
    ----------
    name : str
        What is wrong, in a word or two joined by hyphens.
    file : str
        Path below the package, such as ``rtl/fifo.py``.
    old, new : str
        Text that occurs once in the file, and what stands there instead.
    """

    name: str
    file: str
    old: str
    new: str


MUTANTS: dict[str, tuple[Mutant, ...]] = {
    "uspe": (
        Mutant(
            "activation-unsigned", "rtl/uspe.py", "activation = Signal(signed(config.act_bits))", "activation = Signal(config.act_bits)"
        ),
        Mutant("value-unsigned", "rtl/uspe.py", "delay(m, used.value, before", "delay(m, used.value.as_unsigned(), before"),
        Mutant("neighbour-element", "rtl/uspe.py", "bundle[used.index]", "bundle[used.index ^ 1]"),
        Mutant("sum-not-restarted", "rtl/uspe.py", "m.Elif(~ready.first)", "m.Elif(1)"),
        Mutant("overflow-not-sticky", "rtl/uspe.py", 'delay(m, augend.overflow, stages - 1, "augend_overflow") | flag', "flag"),
        Mutant("swap-takes-passing-pair", "rtl/uspe.py", "Mux(now.active, kept.as_value(), 0)", "Mux(now.active, pair.as_value(), 0)"),
        Mutant("inactive-row-multiplies", "rtl/uspe.py", "Mux(now.active, kept.as_value(), 0)", "kept.as_value()"),
        Mutant("result-copied-always", "rtl/uspe.py", "with m.If(done.last):", "with m.If(1):"),
        Mutant("pair-south-late", "rtl/uspe.py", 'delay(m, pair, stages - 1, "pair_south")', 'delay(m, pair, stages, "pair_south")'),
        Mutant("inject-late", "rtl/uspe.py", "with m.If(done.inject):", "with m.If(ready.inject & held.step):"),
        Mutant("saturates-to-wrong-bound", "rtl/arithmetic.py", "(~sign).replicate(bits - 1)", "sign.replicate(bits - 1)"),
    ),
    "stce": (
        Mutant("drain-one-early", "rtl/stce.py", "(draining <= stages)", "(draining <= stages + 1)"),
        Mutant("drain-one-late", "rtl/stce.py", "(draining <= stages)", "(draining < stages)"),
        Mutant("ws-before-drain", "rtl/stce.py", "bundle_ends & (draining == 0) &", "bundle_ends &"),
        Mutant("room-not-claimed", "rtl/stce.py", "room.eq(room - claims + self.pop)", "room.eq(room + self.pop)"),
        Mutant("room-not-returned", "rtl/stce.py", "room.eq(room - claims + self.pop)", "room.eq(room - claims)"),
        Mutant("pairs-into-fresh-tile", "rtl/stce.py", " & ~(runs & fresh & ~issue)", ""),
        Mutant("own-bundle-always", "rtl/stce.py", "mine = ~now.ws | ", "mine = 1 | "),
        Mutant("swap-keeps-old-owner", "rtl/stce.py", "Mux(now.swap, next_own, own)", "own"),
        Mutant("last-chunk-only", "rtl/stce.py", "with m.If(now.beat & last):", "with m.If(now.beat & ~last):"),
        Mutant("column-late", "rtl/stce.py", 'delay(m, pair, c + 1, f"north_{c}")', 'delay(m, pair, c + 1 + (c == 1), f"north_{c}")'),
        Mutant(
            "partial-sum-early",
            "rtl/stce.py",
            'config.mult_stages + 2 + c, f"start_acc_{c}"',
            'config.mult_stages + 1 + c, f"start_acc_{c}"',
        ),
        Mutant("partial-sum-overflow-lost", "rtl/stce.py", "pe.sum_i.overflow.eq(overflow)", "pe.sum_i.overflow.eq(0)"),
        Mutant("sums-start-anew", "rtl/stce.py", "word.first.eq(running.first & fresh)", "word.first.eq(fresh)"),
        Mutant("bubble-between-tiles", "rtl/stce.py", "(~runs | done)", "~runs"),
        Mutant("kept-row-leaves", "rtl/stce.py", "self.keep.eq(running.ws & ~running.last", "self.keep.eq(running.ws & running.last"),
    ),
    "core": (
        Mutant("index-off-by-one", "rtl/uspe.py", "bundle[used.index]", "bundle[used.index + 1]"),
        Mutant("sign-of-product", "rtl/uspe.py", "product = Signal(signed(", "product = Signal(unsigned("),
        Mutant("tie-to-odd", "rtl/arithmetic.py", "(sticky | quotient[0])", "(sticky | ~quotient[0])"),
        Mutant("params-off-by-one", "rtl/postprocess.py", "read.addr.eq(address)", "read.addr.eq(address + 1)"),
        Mutant("stall-ignored", "rtl/stce.py", "front.pop.eq(self.o.valid & self.o.ready)", "front.pop.eq(self.o.valid)"),
        Mutant("kept-row-passes", "rtl/accumulator.py", "self.o.valid.eq(self.i.valid), ", "self.o.valid.eq(1), "),
        Mutant("psum-not-taken", "rtl/stce.py", "self.psum_ready.eq(issue & running.ws & ~running.first)", "self.psum_ready.eq(0)"),
    ),
    "accumulator": (
        Mutant(
            "room-miscounted", "rtl/fifo.py", "self.i.ready.eq(self.level != self.depth)", "self.i.ready.eq(self.level != self.depth - 1)"
        ),
        Mutant("write-not-seen", "rtl/fifo.py", "transparent_for=(write,)", "transparent_for=()"),
        Mutant("wrap-late", "rtl/fifo.py", "address == self.depth - 1", "address == self.depth"),
        Mutant("kept-row-passes", "rtl/accumulator.py", "self.o.valid.eq(self.i.valid), ", "self.o.valid.eq(1), "),
        Mutant("stall-ignored", "rtl/accumulator.py", "self.i.ready.eq(self.o.ready)", "self.i.ready.eq(1)"),
        Mutant("overflow-dropped", "rtl/accumulator.py", "payload.overflow.eq(self.i.payload.overflow)", "payload.overflow.eq(0)"),
        Mutant("read-without-ready", "rtl/fifo.py", "leave = self.o.valid & self.o.ready", "leave = self.o.valid"),
    ),
    "vector": (
        Mutant("sum-not-restarted", "rtl/vector.py", "Mux(self.first, 0, acc) + product", "acc + product"),
        Mutant("overflow-not-restarted", "rtl/vector.py", "~self.first & overflow | ", "overflow | "),
        Mutant("overflow-not-sticky", "rtl/vector.py", "~self.first & overflow | ", ""),
        Mutant("maximum-unsigned", "rtl/vector.py", "product[: config.act_bits].as_signed()", "product[: config.act_bits]"),
        Mutant("maximum-is-minimum", "rtl/vector.py", "element > largest", "element < largest"),
        Mutant("first-element-lost", "rtl/vector.py", "self.first | (element > largest)", "element > largest"),
        Mutant("coefficients-swapped", "rtl/vector.py", "Mux(first, job.head, job.tail)", "Mux(first, job.tail, job.head)"),
        Mutant("window-too-long", "rtl/vector.py", "last.eq(beats_left == 1)", "last.eq(beats_left == 0)"),
        Mutant("stall-ignored", "rtl/vector.py", "advance.eq(self.o.ready | ~self.o.valid)", "advance.eq(1)"),
        Mutant("bubble-between-jobs", "rtl/vector.py", "self.job.ready.eq(~active | take_last)", "self.job.ready.eq(~active)"),
        Mutant("sign-of-bound", "rtl/arithmetic.py", "(~sign).replicate(bits - 1)", "sign.replicate(bits - 1)"),
    ),
    "postprocess": (
        Mutant("tie-to-odd", "rtl/arithmetic.py", "(sticky | quotient[0])", "(sticky | ~quotient[0])"),
        Mutant("tie-always-up", "rtl/arithmetic.py", "(sticky | quotient[0])", "1"),
        Mutant("sticky-forgets-guard", "rtl/arithmetic.py", "window[:step].any()", "window[1:step].any()"),
        Mutant("outside-not-seen", "rtl/arithmetic.py", "outside | ~fits(", "~fits("),
        Mutant("half-up-is-floor", "rtl/arithmetic.py", "half_up | half_even & ", "half_even & "),
        Mutant("shift-unsigned", "rtl/arithmetic.py", "window = Cat(0, value).as_signed()", "window = Cat(0, value)"),
        Mutant("clip-without-low", "rtl/arithmetic.py", "Mux(value < lo, lo, ", "Mux(0, lo, "),
        Mutant("clip-high-by-one", "rtl/arithmetic.py", "Mux(value > hi, hi, value)", "Mux(value > hi + 1, hi, value)"),
        Mutant(
            "narrow-quotient",
            "rtl/postprocess.py",
            "quotient = Signal(signed(config.act_bits + 1)",
            "quotient = Signal(signed(config.act_bits)",
        ),
        Mutant(
            "bias-wraps", "rtl/postprocess.py", "biased = Signal(signed(config.acc_bits + 1)", "biased = Signal(signed(config.acc_bits)"
        ),
        Mutant("vector-off-by-one", "rtl/postprocess.py", "with m.If(vectors_left == 1):", "with m.If(vectors_left == 0):"),
        Mutant("base-forgotten", "rtl/postprocess.py", "[address.eq(job.base), ", "[address.eq(0), "),
        Mutant("shift-early", "rtl/postprocess.py", 'delay(m, self.shift, 3, "shift")', 'delay(m, self.shift, 2, "shift")'),
        Mutant("range-late", "rtl/postprocess.py", "delay(m, job[name], 5, name)", "delay(m, job[name], 6, name)"),
        Mutant("source-swapped", "rtl/postprocess.py", "Mux(job.vector, self.vector.payload", "Mux(~job.vector, self.vector.payload"),
        Mutant("stall-ignored", "rtl/postprocess.py", "advance.eq(self.o.ready | ~self.o.valid)", "advance.eq(1)"),
        Mutant("overflow-early", "rtl/postprocess.py", 'delay(m, row.overflow, 5, "overflow")', 'delay(m, row.overflow, 4, "overflow")'),
    ),
    "function": (
        Mutant("table-off-by-one", "rtl/function.py", "for entry in entries)", "for entry in entries[1:] + entries[:1])"),
        Mutant("table-halves-swapped", "rtl/function.py", "tree(high), tree(low))", "tree(low), tree(high))"),
        Mutant("fold-inverts-one-bit", "rtl/function.py", "x ^ where.replicate(node.bits)", "x ^ where"),
        Mutant("limit-included", "rtl/function.py", "x < node.constants[0]", "x <= node.constants[0]"),
        Mutant("choice-swapped", "rtl/function.py", "Mux(where, a, b)", "Mux(where, b, a)"),
        Mutant("bits-one-low", "rtl/function.py", "x >> node.constants[0],", "x >> max(0, node.constants[0] - 1),"),
        Mutant("sum-unsigned", "rtl/function.py", "Shape(node.bits, node.signed), name", "Shape(node.bits - node.signed), name"),
        Mutant("rank-missing", "rtl/function.py", "[stage - place[node]]", "[max(0, stage - place[node] - 1)]"),
        Mutant("register-always-moves", "rtl/function.py", "advance.eq(self.o.ready | ~self.o.valid)", "advance.eq(1)"),
        Mutant("ready-while-waiting", "rtl/function.py", "self.i.ready.eq(advance)", "self.i.ready.eq(1)"),
    ),
    "lfsr": (
        Mutant("lanes-shifted", "rtl/lfsr.py", "state[lane].eq(leap", "state[lane - 1].eq(leap"),
        Mutant("lane-always-steps", "rtl/lfsr.py", "m.If(drawn & self.i.payload.take[lane])", "m.If(drawn)"),
        Mutant(
            "steps-on-a-wait", "rtl/lfsr.py", "m.If(drawn & self.i.payload.take[lane])", "m.If(self.i.valid & self.i.payload.take[lane])"
        ),
        Mutant("stall-ignored", "rtl/lfsr.py", "self.i.ready.eq(seeded & self.o.ready)", "self.i.ready.eq(seeded)"),
        Mutant("words-without-seed", "rtl/lfsr.py", "self.o.valid.eq(seeded & self.i.valid)", "self.o.valid.eq(self.i.valid)"),
        Mutant("last-ignored", "rtl/lfsr.py", "drawn & self.i.payload.last", "drawn"),
        Mutant("bits-reversed", "rtl/lfsr.py", "for bits in parities()", "for bits in reversed(parities())"),
    ),
    "wuve": (
        Mutant("tie-to-odd", "rtl/arithmetic.py", "(sticky | quotient[0])", "(sticky | ~quotient[0])"),
        Mutant("momentum-shift-off-by-one", "rtl/wuve.py", "Const(isa.MOMENTUM_SHIFT, ", "Const(isa.MOMENTUM_SHIFT - 1, "),
        Mutant("decays-swapped", "rtl/wuve.py", "job.decay, job.pruned_decay)", "job.pruned_decay, job.decay)"),
        Mutant("decay-narrow", "rtl/wuve.py", "half_even, len(pull))", "half_even, isa.MASTER_BITS)"),
        Mutant("velocity-wraps", "rtl/wuve.py", "register(clamp(total, isa.MASTER_BITS)", "register(total[: isa.MASTER_BITS].as_signed()"),
        Mutant("step-added", "rtl/wuve.py", "~steps, ~carry)", "steps, carry)"),
        Mutant("step-rounds-down", "rtl/wuve.py", "~steps, ~carry)", "~steps, Const(1))"),
        Mutant("step-narrow", "rtl/wuve.py", "half_even, isa.MASTER_BITS + 2)", "half_even, isa.MASTER_BITS + 1)"),
        Mutant("rate-late", "rtl/wuve.py", '"rate": 5', '"rate": 6'),
        Mutant("gradient-shift-early", "rtl/wuve.py", '"gradient_shift": 2', '"gradient_shift": 1'),
        Mutant("tie-always-up", "rtl/wuve.py", "below[-1] & (below[:-1].any() | whole[0])", "below[-1]"),
        Mutant("working-bound-off-by-one", "rtl/wuve.py", "signed(config.weight_bits + 2)", "signed(config.weight_bits + 1)"),
        Mutant("low-bit-of-word-lost", "rtl/wuve.py", "(below + self.word)", "(below + (self.word & ~1))"),
        Mutant("word-of-neighbour", "rtl/wuve.py", "lane.word.eq(words[column])", "lane.word.eq(words[column - 1])"),
        Mutant("steps-on-a-wait", "rtl/wuve.py", "with m.If(advance & draw):", "with m.If(draw):"),
        Mutant("lane-without-element-steps", "rtl/wuve.py", "Mux(lanes > j, ", "Mux(lanes >= j, "),
        Mutant(
            "zero-draws-no-word",
            "rtl/wuve.py",
            "Mux(lanes > j, ",
            'Mux((lanes > j) & delay(m, self.i.payload.gradient[j].any(), 10, "zero"), ',
        ),
        Mutant("half-even-draws", "rtl/wuve.py", 'draw.eq(valid[-1] & shared["stochastic"])', "draw.eq(valid[-1])"),
        Mutant("job-ends-tensor", "rtl/wuve.py", "job.last & (job.beats == 1)", "job.beats == 1"),
        Mutant("draws-without-seed", "rtl/wuve.py", " & ~(draw & ~seeded)", ""),
        Mutant("final-words-overwritten", "rtl/wuve.py", " & ~(end & self.state.valid & ~self.state.ready)", ""),
        Mutant("stall-ignored", "rtl/wuve.py", "advance.eq((self.o.ready | ~self.o.valid) & ", "advance.eq("),
        Mutant("results-twice", "rtl/wuve.py", "with m.Elif(self.o.ready):", "with m.Elif(0):"),
        Mutant("bubble-between-jobs", "rtl/wuve.py", "self.job.ready.eq(~active | take & (job.beats == 1))", "self.job.ready.eq(~active)"),
    ),
    "sore": (
        Mutant("tie-to-the-later", "rtl/sore.py", "smaller = magnitude < self.magnitude", "smaller = magnitude <= self.magnitude"),
        Mutant(
            "rank-by-signed-value",
            "rtl/sore.py",
            "magnitude.eq(Mux(i.x[number] < 0, -i.x[number], i.x[number]))",
            "magnitude.eq(i.x[number])",
        ),
        Mutant("magnitude-inverted-only", "rtl/sore.py", "Mux(i.x[number] < 0, -i.x[number],", "Mux(i.x[number] < 0, ~i.x[number],"),
        Mutant("one-too-many", "rtl/sore.py", "spare.eq(i.n - 1)", "spare.eq(i.n)"),
        Mutant("old-group-counts", "rtl/sore.py", "above[i].eq(~first & kept[i]", "above[i].eq(kept[i]"),
        Mutant("index-off-by-one", "rtl/sore.py", "if i >> bit & 1", "if i + 1 >> bit & 1"),
        Mutant("highest-first", "rtl/sore.py", "lowest.eq(left & ~(left - 1))", "lowest.eq(left & ~(left >> 1))"),
        Mutant("values-of-the-next-group", "rtl/sore.py", "half.eq(~self.half)", "half.eq(self.half)"),
        Mutant("group-too-long", "rtl/sore.py", "(place == i.m - 1)", "(place == i.m)"),
        Mutant("strip-end-ignored", "rtl/sore.py", "last.eq(i.end | ", "last.eq("),
        Mutant("short-group-padded", "rtl/sore.py", "Mux(index < spare, index, spare) + 1", "spare + 1"),
        Mutant("absent-lane-kept", "rtl/sore.py", "with m.If(i.lanes <= number):", "with m.If(i.lanes < number):"),
        Mutant("lanes-of-the-next-group", "rtl/sore.py", "self.o.payload.lanes.eq(lanes_full)", "self.o.payload.lanes.eq(lanes)"),
        Mutant("stall-ignored", "rtl/sore.py", "move.eq(full & ((pairs == 0) | leave & (pairs == 1)))", "move.eq(full)"),
        Mutant("bubble-between-groups", "rtl/sore.py", "(pairs == 0) | leave & (pairs == 1)", "pairs == 0"),
        Mutant("row-not-turned", "rtl/sore.py", "write.addr.eq(Cat((row ^ bank)[:bits], enters))", "write.addr.eq(Cat(row, enters))"),
        Mutant("lanes-not-exchanged", "rtl/sore.py", "lanes[place ^ 1 << bit]", "lanes[place]"),
        Mutant("block-too-long", "rtl/sore.py", "i.end | (row == config.cols - 1)", "i.end"),
        Mutant("all-columns", "rtl/sore.py", "o.end.eq(column == job.lanes - 1)", "o.end.eq(column == config.cols - 1)"),
        Mutant("job-of-the-next-block", "rtl/sore.py", "job = jobs[leaves]", "job = jobs[enters]"),
        Mutant("block-overwritten", "rtl/sore.py", "self.i.ready.eq(~full.bit_select(enters, 1))", "self.i.ready.eq(1)"),
        Mutant(
            "beat-twice-forward",
            "rtl/sore.py",
            "forward.i.valid.eq(active & self.w.valid & transposer.i.ready)",
            "forward.i.valid.eq(active & self.w.valid)",
        ),
        Mutant(
            "beat-twice-backward",
            "rtl/sore.py",
            "transposer.i.valid.eq(active & self.w.valid & forward.i.ready)",
            "transposer.i.valid.eq(active & self.w.valid)",
        ),
        Mutant("bubble-between-jobs", "rtl/sore.py", "self.job.ready.eq(~active | take & (job.beats == 1))", "self.job.ready.eq(~active)"),
    ),
    "rbf_neuron": (
        Mutant(
            "difference-narrow",
            "rtl/rbf_neuron.py",
            "difference = self.x[i] - self.centre[i]",
            "difference = (self.x[i] - self.centre[i])[:-1].as_signed()",
        ),
        Mutant("sign-forgotten", "rtl/rbf_neuron.py", "difference = self.x[i] - self.centre[i]", "difference = self.x[i] + self.centre[i]"),
        Mutant(
            "magnitude-inverted-only", "rtl/rbf_neuron.py", "sign.replicate(len(value) - 1)) + sign)", "sign.replicate(len(value) - 1)))"
        ),
        Mutant(
            "distance-wraps",
            "rtl/rbf_neuron.py",
            "config.distance_frac :], config.distance_bits)",
            "config.distance_frac :][: config.distance_bits], config.distance_bits)",
        ),
        Mutant(
            "distance-one-bit-low",
            "rtl/rbf_neuron.py",
            "[2 * config.x_frac - config.distance_frac :]",
            "[max(0, 2 * config.x_frac - config.distance_frac - 1) :]",
        ),
        Mutant("exponent-wraps", "rtl/rbf_neuron.py", "saturate(scaled[idle:], config.t_bits - idle)", "scaled[idle : config.t_bits]"),
        Mutant(
            "exponent-saturates-low",
            "rtl/rbf_neuron.py",
            "saturate(scaled[idle:], config.t_bits - idle)",
            "saturate(scaled[idle:], config.t_bits - idle - 1)",
        ),
        Mutant("saturation-sees-one-bit-less", "rtl/arithmetic.py", "value[bits:].any()", "value[bits + 1 :].any()"),
        Mutant(
            "width-early",
            "rtl/rbf_neuron.py",
            'self.i.payload.width, unit.lead, "width"',
            'self.i.payload.width, max(0, unit.lead - 1), "width"',
        ),
        Mutant("square-without-half", "rtl/arithmetic.py", "~Cat(Const(0, 2), value[i + 1 :]", "~Cat(Const(0, 1), value[i + 1 :]"),
        Mutant("square-rows-narrow", "rtl/arithmetic.py", "min(bits - i + 2,", "min(bits - i + 1,"),
        Mutant("product-first-row-lost", "rtl/arithmetic.py", "left, final = Mux(b[0], a, 0), []", "left, final = Const(0, len(a)), []"),
        Mutant("stall-ignored", "rtl/rbf_neuron.py", "advance.eq(self.o.ready | ~self.o.valid)", "advance.eq(1)"),
    ),
    "rbf_network": (
        Mutant("half-forgotten", "rtl/rbf_network.py", "half = 1 << shift >> 1", "half = 0"),
        Mutant("half-too-small", "rtl/rbf_network.py", "half = 1 << shift >> 1", "half = (1 << shift >> 1) - 1"),
        Mutant("bias-forgotten", "rtl/rbf_network.py", "biases[k] + (half", "0 * biases[k] + (half"),
        Mutant("clamp-to-wrong-bound", "rtl/arithmetic.py", "bound(value[-1], bits))\n", "bound(~value[-1], bits))\n"),
        Mutant(
            "row-off-by-one", "rtl/rbf_network.py", "self.params.payload.address == address", "self.params.payload.address == address + 1"
        ),
        Mutant(
            "memory-off-by-one",
            "rtl/rbf_network.py",
            "local = self.params.payload.address - first",
            "local = self.params.payload.address - first - 1",
        ),
        Mutant("memory-without-end", "rtl/rbf_network.py", "mine = write & (local >= 0) & (local < count)", "mine = write & (local >= 0)"),
        Mutant("turn-too-few", "rtl/rbf_network.py", "last.eq(turn == config.passes - 1)", "last.eq(turn >= config.passes - 2)"),
        Mutant("sum-not-restarted", "rtl/rbf_network.py", "Mux(adding == 0, bias, exact)", "exact"),
        Mutant("sum-finished-early", "rtl/rbf_network.py", "(adding == config.passes - 1)", "(adding == config.passes - 2)"),
        Mutant("weights-late", "rtl/rbf_network.py", 'units[0].ranks - 1, "ahead"', 'units[0].ranks, "ahead"'),
        Mutant("stall-ignored", "rtl/rbf_network.py", "advance.eq(self.o.ready | ~self.o.valid)", "advance.eq(1)"),
        Mutant("memory-reads-on-a-wait", "rtl/rbf_network.py", "read.en.eq(advance)", "read.en.eq(1)"),
        Mutant("row-while-samples-inside", "rtl/rbf_network.py", "self.params.ready.eq(~held.any())", "self.params.ready.eq(1)"),
        Mutant(
            "row-while-last-rank-holds", "rtl/rbf_network.py", "self.params.ready.eq(~held.any())", "self.params.ready.eq(~held[:-1].any())"
        ),
        Mutant(
            "sample-beside-a-row",
            "rtl/rbf_network.py",
            "self.i.ready.eq(advance & last & ~self.params.valid)",
            "self.i.ready.eq(advance & last)",
        ),
        Mutant(
            "shown-result-gives-way",
            "rtl/rbf_network.py",
            "self.i.valid & (held | ~self.params.valid)",
            "self.i.valid & ~self.params.valid",
        ),
    ),
}
