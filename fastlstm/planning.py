"""What a call will do, before it does it: the core's decisions as numbers and in words."""

import numpy as np

LARGEST = 2**28  # FL_LARGEST of the engine


class Plan:
    """What a call will do, as numbers (attributes) and in words (str).

    threads, split ("none", "rows", "blocks", "directions"), chunk, hoist, blas: the decisions. step_flops: floating-
    point operations of one step of the first layer; panel_bytes: weights read in one step of all layers.
    Results do not depend on any of it, unless blas is true.
    """

    def __init__(self, found, steps, batch):
        self.steps, self.batch = steps, batch
        self.threads, self.split, self.blas = found["threads"], found["split"], bool(found["blas"])
        self.chunk, self.hoist = found["chunk"], found["hoist"]
        self.step_flops, self.panel_bytes = found["step_flops"], found["panel_bytes"]
        self.workspace_bytes = found["workspace_bytes"]

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
        lines = [f"{self.steps} steps of {self.batch} rows: {who}"]
        lines.append(
            f"one step: {self.step_flops / 1e6:.3g} Mflop in the first layer, "
            f"{self.panel_bytes / 1e3:.4g} kB of weights in all layers"
        )
        if self.blas:
            lines.append(f"input products by BLAS, {self.hoist} steps at a time")
        elif self.hoist:
            lines.append(f"input products ahead of the recurrence, {self.hoist} steps as one product")
        else:
            lines.append("input and recurrent products in one chain, step by step")
        if self.chunk < self.steps:
            lines.append(f"{self.chunk} steps go through all layers before the next ones")
        lines.append(f"workspace {self.workspace_bytes / 1e3:.4g} kB")
        return "\n".join(lines)


def plan(packed, steps, batch, threads=0):
    """The Plan of an inference call. Raises ValueError for negative sizes."""
    for name, value in (("T", steps), ("B", batch)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
        if not 0 <= value <= LARGEST:
            raise ValueError(f"{name} must be in 0..2**28, got {value}")
    found = packed.plan(steps, batch, threads=threads)
    found["workspace_bytes"] = packed.workspace_bytes(steps, batch, threads=threads)
    return Plan(found, steps, batch)
