"""Stem's denoiser: one token a gene, DiT blocks with adaLN-Zero, one condition for all (section 4, appendix C)."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

TIME_FEATURES = 256


def time_features(t: torch.Tensor, dim: int = TIME_FEATURES) -> torch.Tensor:
    """Return cosines then sines of integer times t [B], float32 [B, dim], periods 2 pi to 2 pi 10^4 (appendix C)."""
    frequencies = torch.exp(
        -math.log(10_000) * torch.arange(dim // 2, device=t.device, dtype=torch.float32) / (dim // 2)
    )
    angles = t.to(torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return x [B, G, D] normalised over D without learned affine, scaled and shifted by [B, D]."""
    return torch.addcmul(shift[:, None], F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale[:, None])


class Block(nn.Module):
    """A DiT block: self-attention between genes and a feed-forward, both shifted, scaled and gated by the condition."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.heads = heads
        self.activation = activation
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the tokens [B, G, D] after the block; condition [B, D] has been through SiLU."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, dim=-1)
        batch, genes, width = x.shape
        qkv = self.qkv(modulate(x, shift_a, scale_a)).reshape(batch, genes, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, genes, width)
        x = torch.addcmul(x, gate_a[:, None], self.attention_out(mixed))
        hidden = self.activation(self.mlp_in(modulate(x, shift_m, scale_m)))
        return torch.addcmul(x, gate_m[:, None], self.mlp_out(hidden))


class GeneDiT(nn.Module):
    """Predicts, for every gene, what the diffusion target is (and, with two channels, its variance).

    Parameters
    ----------
    genes, embedding_dim
        Sizes of the panel and of a tile's embedding.
    genes_per_token
        1 in the paper; k puts k neighbours of the panel into one token, as DiT does with pixels: attention costs
        k^2 less, which is what makes a small scale possible without a GPU.
    width, blocks, heads, mlp_ratio
        Size of the transformer (paper: 384, 12, 6; DiT: 4).
    condition_hidden
        Hidden width of the embedding's MLP.
    channels
        Outputs a gene: 1, or 2 with a learned variance.
    activation
        Of the feed-forward within blocks; every other MLP has SiLU.
    """

    def __init__(
        self,
        genes: int,
        embedding_dim: int,
        *,
        genes_per_token: int,
        width: int,
        blocks: int,
        heads: int,
        mlp_ratio: float,
        condition_hidden: int,
        channels: int,
        activation: Callable[[torch.Tensor], torch.Tensor],
    ):
        super().__init__()
        self.genes, self.genes_per_token, self.channels = genes, genes_per_token, channels
        tokens = math.ceil(genes / genes_per_token)
        self.gene_value = nn.Sequential(nn.Linear(genes_per_token, width), nn.SiLU(), nn.Linear(width, width))
        self.gene_type = nn.Parameter(torch.empty(tokens, width))
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.image = nn.Sequential(
            nn.Linear(embedding_dim, condition_hidden), nn.SiLU(), nn.Linear(condition_hidden, width)
        )
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, activation) for _ in range(blocks))
        self.final_modulation = nn.Linear(width, 2 * width)
        self.final = nn.Linear(width, genes_per_token * channels)
        self._initialise()

    def _initialise(self) -> None:
        """Start as the public code does: modulations and output are zero, so each block is the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (*self.time[::2], *self.image[::2]):
            nn.init.normal_(layer.weight, std=0.02)
        nn.init.kaiming_uniform_(self.gene_type, a=math.sqrt(5))
        for layer in (*(block.modulation for block in self.blocks), self.final_modulation, self.final):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens [B, tokens, D]: an MLP of the gene's value plus its learned type (section 4); x [B, G]."""
        values = F.pad(x, (0, len(self.gene_type) * self.genes_per_token - self.genes))
        return self.gene_value(values.unflatten(-1, (-1, self.genes_per_token))) + self.gene_type

    def forward(self, x: torch.Tensor, t: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Return the prediction [B, G] (or [B, G, channels] with two channels).

        Parameters
        ----------
        x
            Noisy expression [B, G].
        t
            Times, int64 [B].
        image
            The tile's condition vector, `self.image(embedding)`, [B, D]: computed once for all steps of a draw.
        """
        condition = F.silu(self.time(time_features(t)) + image)
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens, condition)
        output = self.final(modulate(tokens, *self.final_modulation(condition).chunk(2, dim=-1)))
        output = output.reshape(len(x), -1, self.channels)[:, : self.genes]
        return output.squeeze(-1) if self.channels == 1 else output
