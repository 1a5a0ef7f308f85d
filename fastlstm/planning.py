"""What a call will do, before it does it: the core's decisions as numbers and in words."""

import numpy as np

LARGEST = 2**28  # FL_LARGEST of the engine


def _short(number):
    """Three digits, and no exponent for large ones."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _time(ns):
    return f"{_short(ns / 1e6)} ms" if ns >= 1e6 else f"{_short(ns / 1e3)} us"


def _kb(count):
    return f"{_short(count / 1e3)} kB"


def _count(number, word):
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


class Plan:
    """What a call will do, as numbers (attributes) and in words (str).

    threads, split ("none", "rows", "blocks", "directions"), chunk, hoist, ahead, blas: the decisions. step_flops:
    floating-point operations of one step of the first layer; panel_bytes: weights read in one step of all layers.
    why, why_hoist: the reason for threads and split, and for hoist, in a word or two. work_ns, estimate_ns: estimated
    time of the call on one thread, and as it is planned; compared: for each split its best number of threads and the
    time with them, {"none": (1, ns), "rows": (16, ns)}, without those that cannot divide the call (with so little work
    that waking a thread takes longer, "none" alone). step_ns: estimated time of one step of the first layer on one
    thread; layer_bytes: weights of one layer, on average. flops_per_ns, wake_ns, barrier_ns, private_cache, cores: some
    of the machine that was weighed, see ``fastlstm.runtime.machine``. Results do not depend on any of it, unless blas
    is true.
    """

    def __init__(self, found, steps, batch):
        self.steps, self.batch = steps, batch
        self.threads, self.split, self.blas = found["threads"], found["split"], bool(found["blas"])
        self.chunk, self.hoist, self.ahead = found["chunk"], found["hoist"], found["ahead"]
        self.step_flops, self.panel_bytes = found["step_flops"], found["panel_bytes"]
        self.why, self.why_hoist = found["why"], found["why_hoist"]
        self.work_ns, self.estimate_ns, self.compared = found["work_ns"], found["estimate_ns"], found["compared"]
        self.step_ns, self.layer_bytes = found["step_ns"], found["layer_bytes"]
        self.flops_per_ns, self.wake_ns = found["flops_per_ns"], found["wake_ns"]
        self.barrier_ns, self.private_cache = found["barrier_ns"], found["private_cache"]
        self.workspace_bytes, self.cores = found["workspace_bytes"], found["cores"]

    def __repr__(self):
        return (
            f"Plan(threads={self.threads}, split={self.split!r}, chunk={self.chunk}, hoist={self.hoist}, "
            f"blas={self.blas})"
        )

    def __str__(self):
        who = {
            "none": "on the calling thread",
            "rows": f"{self.threads} threads, each its own rows of the batch (no barrier)",
            "blocks": f"{self.threads} threads, each its own hidden units and their weights (a barrier per step)",
            "directions": f"{self.threads} threads, one direction each (a barrier per layer)",
        }[self.split]
        lines = [f"{_count(self.steps, 'step')} of {_count(self.batch, 'row')}: {who}"]
        lines.append(
            f"estimate: {_time(self.estimate_ns)}; on one thread a step of the first layer "
            f"{_short(self.step_flops / 1e6)} Mflop, {_time(self.step_ns)}, at {self.flops_per_ns:.3g} flop/ns at most"
        )
        lines.append(f"compared: {self._compared_in_words()}")
        lines.append(f"threads: {self._threads_in_words()}")
        if self.threads > 1:
            lines.append(f"cores: {self._cores_in_words()}")
        fits = "fit in" if self.layer_bytes <= self.private_cache else "are more than"
        lines.append(
            f"weights: {_kb(self.panel_bytes)} per step; a layer's {_kb(self.layer_bytes)} {fits} "
            f"the {_kb(self.private_cache)} one core keeps"
        )
        lines.append(self._products_in_words())
        if self.chunk < self.steps:
            lines.append(f"{_count(self.chunk, 'step')} at a time through all layers")
        lines.append(f"workspace: {_kb(self.workspace_bytes)}")
        return "\n".join(lines)

    def _compared_in_words(self):
        ways = []
        for split, (threads, ns) in self.compared.items():
            who = _count(threads, "thread")
            ways.append(f"{who if split == 'none' else f'{split} {who}'} {_time(ns)}")
        return "; ".join(ways)

    def _threads_in_words(self):
        wake, barrier = f"waking a thread ({_time(self.wake_ns)})", f"a barrier per step ({_time(self.barrier_ns)})"
        return {
            "limit": "no more than one is allowed",
            "empty": "nothing to do",
            "small": f"half of so little work does not outweigh {wake}",
            "unshared": "every way to share the work would take longer",
            "rows": f"sharing rows takes least, and outweighs {wake}",
            "few rows": f"sharing a step takes least, as there are few rows, and outweighs {barrier}",
            "cache": f"each reading only its part of the weights takes least, and outweighs {barrier}",
            "directions": "the two directions side by side take least, without a barrier per step",
        }[self.why]

    def _cores_in_words(self):
        if self.threads <= self.cores:
            return f"{self.threads} of {self.cores}, one for each thread"
        return f"{_count(self.cores, 'core')} for {self.threads} threads, so some share one"

    def _products_in_words(self):
        if self.ahead:
            start = f"input products: {self.ahead} steps ahead, beside the recurrent ones"
        elif self.hoist:
            how = "by BLAS" if self.blas else "ahead of the recurrence"
            start = f"input products: {how}, {_count(self.hoist, 'step')} at a time"
        else:
            start = "input products: in one chain with the recurrent ones"
        reason = {
            "few rows": "one step's rows do not fill a tile, several steps' do",
            "blas": "FASTLSTM_GEMM says so",
            "full tile": "a step's own rows fill a tile",
            "narrow": "with so few inputs storing partial sums would cost more",
            "one step": "there is no second step to take along",
            "row": "the cell must see the sums of a whole row",
        }[self.why_hoist]
        return f"{start}, as {reason}"


class StackPlan(Plan):
    """The plan of a stack whose layers differ in size: `layers`, a `Plan` for each, one after the other.

    Of the attributes, threads is the most that any layer takes; work_ns, estimate_ns, panel_bytes and workspace_bytes
    are sums, layer_bytes is their mean; step_flops and step_ns are the first layer's, the others those of the layer
    with the most work.
    """

    def __init__(self, layers):
        most = max(layers, key=lambda one: one.work_ns)
        vars(self).update(vars(most))
        self.layers = tuple(layers)
        self.threads = max(one.threads for one in layers)
        self.step_flops, self.step_ns = layers[0].step_flops, layers[0].step_ns
        for name in ("work_ns", "estimate_ns", "panel_bytes", "workspace_bytes", "layer_bytes"):
            setattr(self, name, sum(getattr(one, name) for one in layers))
        self.layer_bytes /= len(layers)

    def __str__(self):
        return "\n".join(f"layer {number}: {one}" for number, one in enumerate(self.layers))


def plan(packed, steps, batch, threads=0):
    """The Plan of an inference call. Raises TypeError or ValueError for sizes that are none."""
    for name, value in (("T", steps), ("B", batch)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
        if not 0 <= value <= LARGEST:
            raise ValueError(f"{name} must be in 0..2**28, got {value}")
    layers = []
    for model in getattr(packed, "models", [packed]):  # a chain of models, or one
        found = model.plan(steps, batch, threads=threads)
        found["workspace_bytes"] = model.workspace_bytes(steps, batch, threads=threads)
        layers.append(Plan(found, steps, batch))
    return layers[0] if len(layers) == 1 else StackPlan(layers)
