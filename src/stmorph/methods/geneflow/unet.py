"""The conditioned U-Net (GeneFlow, section 3.1 and appendix D.2).

Our own rather than diffusers' UNet2DModel: down- and upsampling inside residual blocks, zero-initialised last layers
and attention by downsampling factor are the published structure, and importing diffusers costs some 10 s a process.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from .options import PictureOptions


def sinusoid(t: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the sinusoidal features [B, dim] of times [B], with periods from 2 pi to 2 pi 10^4."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


def norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with at most 32 groups of at least 4 channels."""
    groups = next(g for g in range(min(32, max(channels // 4, 1)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def zero(layer: nn.Module) -> nn.Module:
    """Return the layer with all its weights at 0."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


class ResBlock(nn.Module):
    """Twice GroupNorm, SiLU, convolution, beside a skip; the condition enters between."""

    def __init__(
        self, inputs: int, outputs: int, emb: int, dropout: float, film: bool, padding: str, resample: str = ""
    ):
        super().__init__()
        self.film, self.resample = film, resample
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=padding)
        self.condition = nn.Linear(emb, 2 * outputs if film else outputs)
        self.norm2 = norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1, padding_mode=padding))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def _resampled(self, x: torch.Tensor) -> torch.Tensor:
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        if self.resample == "up":
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, H, W] and conditions [B, emb] to [B, outputs, H', W']."""
        h = self.conv1(self._resampled(functional.silu(self.norm1(x))))
        condition = self.condition(functional.silu(emb))[:, :, None, None]
        if self.film:
            scale, shift = condition.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h) + condition
        return self.skip(self._resampled(x)) + self.conv2(self.dropout(functional.silu(h)))


class Attention(nn.Module):
    """Self-attention over the pixels of a feature map."""

    def __init__(self, channels: int, head_channels: int):
        super().__init__()
        self.heads = max(channels // head_channels, 1)
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width).transpose(-1, -2)
        attended = functional.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + self.out(attended.transpose(-1, -2).reshape(b, c, height, width))


class UNet(nn.Module):
    """Pictures [B, C, H, W], times [B] in [0, 1] and conditions [B, embedding_dim] to [B, C, H, W].

    H and W are multiples of `patch` times 2 to the power of the number of levels less one.
    """

    def __init__(self, options: PictureOptions, channels: int):
        super().__init__()
        o = options
        self.patch, self.base = o.patch, o.base
        self.time_scale = 1000.0 if o.time_scale == "fixed" else 1.0
        self.additive = o.conditioning == "paper"
        emb = 4 * o.base
        self.time = nn.Sequential(nn.Linear(o.base, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.rna = (
            nn.Linear(o.embedding_dim, emb)
            if self.additive
            else nn.Sequential(nn.Linear(o.embedding_dim, emb), nn.SiLU(), nn.Linear(emb, emb))
        )

        def block(inputs: int, outputs: int, resample: str = "") -> ResBlock:
            return ResBlock(inputs, outputs, emb, o.dropout, not self.additive, o.padding, resample)

        def attention(width: int, factor: int) -> nn.Module:
            return Attention(width, o.head_channels) if factor in o.attention_factors else nn.Identity()

        folded = channels * o.patch**2
        widths = [o.base * m for m in o.multipliers]
        self.conv_in = nn.Conv2d(folded, o.base, 3, padding=1, padding_mode=o.padding)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = o.base, [o.base]
        for level, target in enumerate(widths):
            for _ in range(o.blocks):
                self.down.append(nn.ModuleList([block(width, target), attention(target, 2**level)]))
                width = target
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([block(width, width, "down"), nn.Identity()]))
                skips.append(width)
        self.middle = nn.ModuleList([block(width, width), Attention(width, o.head_channels), block(width, width)])
        for level, target in reversed(list(enumerate(widths))):
            for i in range(o.blocks + 1):
                parts = [block(width + skips.pop(), target), attention(target, 2**level)]
                if level and i == o.blocks:
                    parts.append(block(target, target, "up"))
                self.up.append(nn.ModuleList(parts))
                width = target
        last = zero(nn.Conv2d(width, folded, 3, padding=1, padding_mode=o.padding))
        self.out = nn.Sequential(norm(width), nn.SiLU(), last)

    def forward(self, x: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the network's output [B, C, H, W] at pictures x, times t and conditions z."""
        emb = self.time(sinusoid(t * self.time_scale, self.base).to(z.dtype)) + self.rna(z)
        h = self.conv_in(functional.pixel_unshuffle(x, self.patch))
        skips = [h]
        for res, attend in self.down:
            h = attend(res(h, emb))
            skips.append(h)
        first, attend, second = self.middle
        h = second(attend(first(h, emb)), emb)
        for res, attend, *double in self.up:
            h = attend(res(torch.cat([h, skips.pop()], 1), emb))
            for resample in double:
                h = resample(h, emb)
        return functional.pixel_shuffle(self.out(h), self.patch)
