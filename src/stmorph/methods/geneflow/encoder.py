"""The expression encoder: gene relation, gene attention, a stack per cell, pooling, final projection and gate.

GeneFlow, section 3.1 and appendix D.1. One class serves both encoders: a unit is a patch of one cell.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...errors import ConfigError
from .cells import CellPooling, HeadMixture
from .options import PictureOptions

RELATION_WIDTH = 256
_MOST_VALUES = 2**25
"""Of training expression, made float64 at a time."""


class GeneRelation(nn.Module):
    """x + alpha (x U) V, with U [G, K] and V [K, G] predicted for each cell."""

    def __init__(self, genes: int, rank: int, scale: float, dropout: float, start_at_zero: bool):
        super().__init__()
        self.rank, self.scale = rank, scale
        self.base = nn.Sequential(
            nn.Linear(genes, RELATION_WIDTH), nn.LayerNorm(RELATION_WIDTH), nn.SiLU(), nn.Dropout(dropout)
        )
        self.factor_u = nn.Linear(RELATION_WIDTH, genes * rank)
        self.factor_v = nn.Linear(RELATION_WIDTH, rank * genes)
        if start_at_zero:
            nn.init.zeros_(self.factor_v.weight)
            nn.init.zeros_(self.factor_v.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map cells [N, G] to [N, G]."""
        h = self.base(x)
        u = self.factor_u(h).reshape(len(x), x.shape[1], self.rank)
        v = self.factor_v(h).reshape(len(x), self.rank, x.shape[1])
        return x + self.scale * torch.einsum("ng,ngk,nkh->nh", x, u, v)


class GeneAttention(nn.Module):
    """One learned weight per gene, the same for all cells (eq. 1)."""

    def __init__(self, genes: int, times_genes: bool):
        super().__init__()
        self.logits = nn.Parameter(torch.full((genes,), 1 / genes))
        self.scale = genes if times_genes else 1

    def weights(self) -> torch.Tensor:
        """Return the weights [G] that genes are multiplied with."""
        return self.scale * torch.softmax(self.logits, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map cells [N, G] to [N, G]."""
        return x * self.weights()


class PlainBlock(nn.Module):
    """Linear, SiLU, dropout: the block of appendix D.1."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        self.first = nn.Linear(inputs, outputs)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, inputs] to [N, outputs]."""
        return functional.dropout(functional.silu(self.first(x)), self.dropout, self.training)

    def reading(self) -> list[torch.Tensor]:
        """Return the weights that read the input."""
        return [self.first.weight]


class ResidualBlock(nn.Module):
    """Two linear layers beside a skip, linear where the width changes."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        self.first = nn.Linear(inputs, outputs)
        self.second = nn.Linear(outputs, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, inputs] to [N, outputs]."""
        h = self.dropout(functional.silu(self.first(x)))
        return self.skip(x) + self.dropout(self.second(h))

    def reading(self) -> list[torch.Tensor]:
        """Return the weights that read the input."""
        return [self.first.weight] + ([self.skip.weight] if isinstance(self.skip, nn.Linear) else [])


class ExpressionEncoder(nn.Module):
    """Expression of a unit [B, G], or of its cells [B, C, G] with a mask [B, C], to an embedding [B, embedding_dim].

    Raises
    ------
    ConfigError
        The options contradict each other.
    """

    def __init__(self, options: PictureOptions, genes: int):
        super().__init__()
        o = self.options = options
        if o.sparsity_of == "code" and o.first_norm == "fixed":
            raise ConfigError(
                "sparsity_of is 'code', which penalises the first LayerNorm's gains, but first_norm is 'fixed', which "
                "has no such layer; set first_norm: code or sparsity_of: fixed"
            )
        self.register_buffer("mean", torch.zeros(genes))
        self.register_buffer("sd", torch.ones(genes))
        self.hide = nn.Dropout(o.gene_dropout)
        zero = o.relation_start == "zero"
        self.relation = (
            GeneRelation(genes, o.relation_rank, o.relation_scale, o.encoder_dropout, zero) if o.gene_relation else None
        )
        self.gene_attention = GeneAttention(genes, o.gene_attention_scale == "fixed") if o.gene_attention else None
        block = PlainBlock if o.cell_block == "paper" else ResidualBlock
        hidden, width = o.widths
        self.first_norm = nn.Identity() if o.first_norm == "fixed" else nn.LayerNorm(genes)
        self.first_block = block(genes, hidden, o.encoder_dropout)
        self.second_norm = nn.LayerNorm(hidden)
        self.second_block = block(hidden, width, o.encoder_dropout)
        pool = CellPooling if o.encoder == "multi" else HeadMixture
        self.pool = pool(width, o.heads if o.head_mixture else 0, o.cell_attention, o.head_projection)
        self.count = None
        if o.encoder == "multi" and o.cell_count != "code":
            self.count = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.final = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, o.embedding_dim),
            nn.Dropout(o.encoder_dropout),
            nn.LayerNorm(o.embedding_dim),
        )
        self.gate = nn.Linear(o.embedding_dim, o.embedding_dim) if o.feature_gate else None
        if o.reading_start == "zero":
            # A gene then weighs by what was learned from it, not by where its weights began.
            reading = self.first_block.reading() + ([self.relation.base[0].weight] if self.relation else [])
            for weight in reading:
                nn.init.zeros_(weight)

    def standardise_by(self, expression: torch.Tensor) -> None:
        """Keep the mean and standard deviation of training expression [n, G]; a constant gene keeps its scale."""
        # Some genes at a time: the whole in float64 would take twice the memory of the data.
        wide = max(1, _MOST_VALUES // max(1, len(expression)))
        for first in range(0, expression.shape[1], wide):
            genes = slice(first, first + wide)
            part = expression[:, genes].double()
            self._keep(genes, part.mean(0), part.std(0, correction=0))

    def standardise_by_parts(self, parts: Iterable[np.ndarray]) -> None:
        """Keep those of rows that come in parts, float32 [k, G] each, of which one is held at a time."""
        count, mean, squares = 0, np.zeros(len(self.mean)), np.zeros(len(self.mean))
        for part in parts:
            if not len(part):
                continue
            rows = np.asarray(part, dtype=np.float64)
            here = rows.mean(axis=0)
            step, total = here - mean, count + len(rows)
            # Chan, Golub and LeVeque 1983, eq. 2.1: no difference of large sums.
            squares += np.square(rows - here).sum(axis=0) + np.square(step) * (count * len(rows) / total)
            mean += step * (len(rows) / total)
            count = total
        if count:
            sd = np.sqrt(squares / count)
            self._keep(slice(None), torch.from_numpy(mean), torch.from_numpy(sd))

    def _keep(self, genes: slice, mean: torch.Tensor, sd: torch.Tensor) -> None:
        self.mean[genes].copy_(mean)
        self.sd[genes].copy_(torch.where(sd > 1e-6, sd, torch.ones_like(sd)))

    def embed_cells(self, x: torch.Tensor) -> torch.Tensor:
        """Map cells [N, G] to embeddings [N, width], each alone."""
        if self.options.input_scaling == "fixed":
            x = (x - self.mean) / self.sd
        x = self.hide(x)
        if self.relation is not None:
            x = self.relation(x)
        if self.gene_attention is not None:
            x = self.gene_attention(x)
        return self.second_block(self.second_norm(self.first_block(self.first_norm(x))))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map [B, G], or [B, C, G] and a bool mask [B, C], True where there is a cell, to [B, embedding_dim]."""
        if self.options.encoder == "multi":
            # Only real cells pass the networks: padding costs nothing and cannot leak.
            present = self.embed_cells(x[mask])
            cells = present.new_zeros(*mask.shape, present.shape[-1])
            cells[mask] = present
            pooled = self.pool(cells, mask)
        else:
            pooled = self.pool(self.embed_cells(x))
        if self.count is not None:
            pooled = pooled + self.count(torch.log1p(mask.sum(1, keepdim=True).to(pooled.dtype)))
        z = self.final(pooled)
        return z if self.gate is None else z * torch.sigmoid(self.gate(z))

    def sparsity(self) -> torch.Tensor:
        """Return the L1 penalty before its weight lambda (section 3.1)."""
        if self.options.sparsity_of == "code":
            return self.first_norm.weight.abs().sum()
        if self.options.sparsity_of == "paper":
            return self.first_block.first.weight.abs().sum()
        reading = self.first_block.reading()
        if self.relation is not None:
            reading = [*reading, self.relation.base[0].weight]
        return sum(weight.abs().sum() / len(weight) for weight in reading)
