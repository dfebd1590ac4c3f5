"""Builds a pretrained network from its facts and fits a checkpoint's tensors into it, key by key."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import WeightsError
from .facts import Facts

#: Keys that a checkpoint may hold and an image encoder does not use: classification heads, HF's pooler,
#: and in CONCH the text side, the captioning pooler and the contrastive projection.
UNUSED = {
    "timm vit": re.compile(r"(head|head_dist)\."),
    "hf vit": re.compile(r"(pooler|classifier)\."),
    "conch": re.compile(r"(?!visual\.)|visual\.(attn_pool_caption|ln_caption|proj_contrast|head)\b"),
    "resnet50": re.compile(r"fc\."),
}


class VisionTransformer(nn.Module):
    """A timm vision transformer with the pooling of the facts; float [B, 3, H, W] -> float [B, dim]."""

    def __init__(self, trunk: nn.Module, with_patch_mean: bool):
        super().__init__()
        self.trunk = trunk
        self.with_patch_mean = with_patch_mean
        self.dim = trunk.num_features * (2 if with_patch_mean else 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled vectors [B, dim]."""
        tokens = self.trunk.forward_features(images)
        if not self.with_patch_mean:
            return tokens[:, 0]
        # Virchow2's card: the class token, then the mean of the patch tokens without the registers between them.
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return torch.cat([tokens[:, 0], patches.mean(1)], dim=1)


class AttentionPool(nn.Module):
    """Learned queries attend to all tokens (CoCa, Yu et al. 2022, section 3.2)."""

    def __init__(self, width: int, dim: int, heads: int, queries: int = 1):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(queries, dim))
        self.ln_q = nn.LayerNorm(dim)
        self.ln_k = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(dim, heads, kdim=width, vdim=width, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return [B, queries, dim] of tokens [B, T, width]."""
        keys = self.ln_k(tokens)
        queries = self.ln_q(self.query).expand(len(tokens), -1, -1)
        return self.attn(queries, keys, keys, need_weights=False)[0]


class ConchImageTower(nn.Module):
    """CONCH's image tower up to the pooled, normalised vector (its `proj_contrast=False`); the names are the file's."""

    def __init__(self, trunk: nn.Module, dim: int, heads: int):
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = AttentionPool(trunk.num_features, dim, heads)
        self.ln_contrast = nn.LayerNorm(dim)
        self.dim = dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled vectors [B, dim]."""
        pooled = self.attn_pool_contrast(self.trunk.forward_features(images))
        return self.ln_contrast(pooled[:, 0])


def build(facts: Facts, architecture: dict[str, Any] | None = None) -> nn.Module:
    """Return the network without weights (on the meta device), in evaluation mode; it has an attribute `dim`.

    Parameters
    ----------
    architecture
        Replaces entries of `facts.architecture`, for example to load a smaller network saved in the same layout.
    """
    kind = {**facts.architecture, **(architecture or {})}
    with torch.device("meta"):
        if facts.family == "resnet50":
            network = _resnet50()
        elif facts.family == "conch":
            dim, heads = kind.pop("pool_dim"), kind.pop("pool_heads")
            network = ConchImageTower(_timm(kind), dim, heads)
        else:
            network = VisionTransformer(_timm(kind), facts.pooling == "class token and patch mean")
    return network.eval().requires_grad_(False)


def _timm(kind: dict[str, Any]) -> nn.Module:
    import timm
    from timm.layers import SwiGLUPacked

    classes = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}
    kind = {key: classes.get(value, value) if isinstance(value, str) else value for key, value in kind.items()}
    return timm.create_model(kind.pop("model"), pretrained=False, num_classes=0, **kind)


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.dim = network.fc.in_features
    network.fc = nn.Identity()
    return network


def fill(network: nn.Module, facts: Facts, state: dict[str, torch.Tensor], name: str, path: Path) -> nn.Module:
    """Return the network with a checkpoint's tensors in place, as float32 on the CPU.

    Raises
    ------
    WeightsError
        A key is missing or left over, or a tensor has another shape than the network's.
    """
    state = _as_built(facts, state)
    wanted = network.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # some exports leave these out; unused
    state = {**{key: torch.zeros((), dtype=torch.long) for key in counters - set(state)}, **state}
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted]
    wrong = [
        f"{key} is {list(state[key].shape)} and not {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    troubles = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("keys missing", missing), ("keys unknown", extra), ("shapes wrong", wrong))
        if keys
    ]
    if troubles:
        raise WeightsError(
            f"weights of encoder {name}: {path} does not fit the network of {facts.hub_id}: {'; '.join(troubles)}; "
            f"give the weights file of {facts.page}"
        )
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.requires_grad_(False)


def _as_built(facts: Facts, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors under the names of the network as built here, without the parts it does not use."""
    if facts.family == "hf vit":
        state = {key.removeprefix("vit."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not UNUSED[facts.family].match(key)}
    if facts.family == "timm vit":
        return {f"trunk.{key}": value for key, value in state.items()}
    if facts.family == "conch":
        return {key.removeprefix("visual."): value for key, value in state.items()}
    if facts.family == "hf vit":
        return {f"trunk.{key}": value for key, value in _hf_as_timm(state).items()}
    return state


#: Hugging Face's names of a ViT's parts, and timm's.
HF_PARTS = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layernorm.", "norm."),
    ("encoder.layer.", "blocks."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)


def _hf_as_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the parts of a Hugging Face ViT; its query, key and value lie in one matrix in timm, in that order."""
    renamed: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        query = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)", key)
        trio = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if query and all(part in state for part in trio):
            renamed[f"blocks.{query[1]}.attn.qkv.{query[2]}"] = torch.cat([state[part] for part in trio])
        elif query or not re.search(r"\.attention\.attention\.(key|value)\.", key):
            for theirs, timms in HF_PARTS:
                key = key.replace(theirs, timms)
            renamed[key] = value
    return renamed
