"""From cell embeddings to one embedding of a patch (GeneFlow, eqs. 3 to 7 and appendix D.1).

Each head weighs the cells by a softmax over the cells that are there and sums its own projection of them; heads are
averaged. Cells do not attend to each other.
"""

import torch
from torch import nn


def _scores(width: int, heads: int, kind: str) -> nn.ModuleList | nn.Sequential:
    if kind == "paper":
        # w_h tanh(W_h e + b_h): a network per head.
        return nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False)) for _ in range(heads)
        )
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, heads))


def _score(scores: nn.ModuleList | nn.Sequential, e: torch.Tensor) -> torch.Tensor:
    if isinstance(scores, nn.ModuleList):
        return torch.cat([score(e) for score in scores], -1)
    return scores(e)


def _projections(width: int, heads: int, kind: str) -> nn.ModuleList:
    if kind == "paper":
        return nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(heads))
    return nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU()) for _ in range(heads))


class _Heads(nn.Module):
    """The weights and the projections of some heads; with 0 heads, neither."""

    def __init__(self, width: int, heads: int, attention: str, projection: str):
        super().__init__()
        self.heads = heads
        if heads:
            self.scores = _scores(width, heads, attention)
            self.projections = _projections(width, heads, projection)


class CellPooling(_Heads):
    """Masked multi-head pooling of cells [B, C, width] to [B, width]; with 0 heads, the mean of the cells.

    A patch without cells gives zeros (in the public code: NaN).
    """

    def weights(self, cells: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the cells' weights [B, C, heads]: 0 for padding, sum 1 over a patch's cells."""
        if not self.heads:
            return (mask / mask.sum(1, keepdim=True).clamp(min=1)).unsqueeze(-1).to(cells.dtype)
        logits = _score(self.scores, cells).masked_fill(~mask.unsqueeze(-1), float("-inf"))
        # A row of -inf alone would give NaN, in the gradient too: such rows get equal logits and then zeros.
        logits = torch.where(mask.any(1)[:, None, None], logits, torch.zeros_like(logits))
        return torch.softmax(logits, 1) * mask.unsqueeze(-1)

    def forward(self, cells: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool cells [B, C, width] where mask [B, C] is True."""
        weights = self.weights(cells, mask)
        if not self.heads:
            return (weights * cells).sum(1)
        heads = [(weights[..., h, None] * project(cells)).sum(1) for h, project in enumerate(self.projections)]
        return torch.stack(heads).mean(0)


class HeadMixture(_Heads):
    """The single-unit encoder's heads: a soft mixture of projections of its one embedding; with 0 heads, nothing.

    The paper does not describe it; the public code takes the softmax over the heads.
    """

    def forward(self, e: torch.Tensor) -> torch.Tensor:
        """Map [B, width] to [B, width]."""
        if not self.heads:
            return e
        weights = torch.softmax(_score(self.scores, e), -1)
        return sum(weights[:, h, None] * project(e) for h, project in enumerate(self.projections))
