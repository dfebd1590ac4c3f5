"""The exponential moving average (EMA) of a method's weights: what a trained model is."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..methods.base import Method


class Average:
    """A copy of a method whose parameters follow the trained ones; it starts as they start.

    Buffers (running statistics, scales) are copied as they are: an average of counters or masks means nothing.
    """

    def __init__(self, method: Method):
        self.method = copy.deepcopy(method).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, method: Method, decay: float) -> None:
        """Set every parameter to decay * average + (1 - decay) * trained."""
        averaged, trained = list(self.method.parameters()), [p.detach() for p in method.parameters()]
        if averaged:
            get_ema_multi_avg_fn(decay)(averaged, trained, None)
        for old, new in zip(self.method.buffers(), method.buffers(), strict=True):
            old.copy_(new)
