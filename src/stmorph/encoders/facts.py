"""What is published about each pretrained network: where its weights are, how it is built and how it wants its input.

Sources: the models' pages on the Hugging Face hub (model card and config.json) and their repositories. Parameter counts
are those of the image tower as it is built here.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

#: The names that timm has no default for; `networks.py` replaces the strings by the classes.
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}


@dataclass(frozen=True)
class Facts:
    """One pretrained network.

    hub_id, files: the hub's repository and the names of its weights file, the first that is there is taken.
    family: which builder and which layout of the checkpoint. architecture: what the builder is told.
    pooling: `class token`; `class token and patch mean` (both, one after the other); `attention`; `average`.
    input_px, interpolation, mean, std: what happens to a tile before the network.
    trained_um_per_px: of the pictures it was trained on; empty where they were not of tissue.
    """

    hub_id: str
    files: tuple[str, ...]
    family: Literal["timm vit", "conch", "hf vit", "resnet50"]
    pooling: Literal["class token", "class token and patch mean", "attention", "average"]
    dim: int
    licence: str
    gated: bool
    trained_um_per_px: tuple[float, ...]
    architecture: dict[str, Any] = field(default_factory=dict)
    input_px: int = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def page(self) -> str:
        """The web page where its conditions are read and accepted."""
        return f"https://huggingface.co/{self.hub_id}"


FACTS: dict[str, Facts] = {
    "uni": Facts(  # Chen et al. 2024, Nature Medicine 30:850; 303 M parameters
        hub_id="MahmoodLab/UNI",
        files=("pytorch_model.bin",),
        family="timm vit",
        pooling="class token",
        dim=1024,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        trained_um_per_px=(0.5,),
        architecture={"model": "vit_large_patch16_224", "img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
    ),
    "uni2-h": Facts(  # 681 M parameters
        hub_id="MahmoodLab/UNI2-h",
        files=("pytorch_model.bin",),
        family="timm vit",
        pooling="class token",
        dim=1536,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        trained_um_per_px=(0.5,),
        architecture={
            "model": "vit_giant_patch14_224",
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
            **SWIGLU,
        },
    ),
    "conch": Facts(  # Lu et al. 2024, Nature Medicine 30:863; image tower of a CoCa, before the contrastive projection
        hub_id="MahmoodLab/CONCH",
        files=("pytorch_model.bin",),
        family="conch",
        pooling="attention",
        dim=512,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        trained_um_per_px=(0.5,),
        architecture={
            "model": "vit_base_patch16_224",
            "img_size": 448,
            "dynamic_img_size": True,
            "pool_dim": 512,
            "pool_heads": 8,
        },
        input_px=448,
        interpolation="bicubic",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    "virchow2": Facts(  # Zimmermann et al. 2024, arXiv 2408.00738; 632 M parameters
        hub_id="paige-ai/Virchow2",
        files=("model.safetensors", "pytorch_model.bin"),
        family="timm vit",
        pooling="class token and patch mean",
        dim=2560,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        trained_um_per_px=(2.0, 1.0, 0.5, 0.25),
        architecture={
            "model": "vit_huge_patch14_224",
            "img_size": 224,
            "init_values": 1e-5,
            "reg_tokens": 4,
            "mlp_ratio": 5.3375,
            "dynamic_img_size": True,
            **SWIGLU,
        },
        interpolation="bicubic",
    ),
    "h-optimus-0": Facts(  # Saillard et al. 2024; 1.13 G parameters
        hub_id="bioptimus/H-optimus-0",
        files=("model.safetensors", "pytorch_model.bin"),
        family="timm vit",
        pooling="class token",
        dim=1536,
        licence="Apache-2.0",
        gated=True,
        trained_um_per_px=(0.5,),
        architecture={
            "model": "vit_giant_patch14_reg4_dinov2",
            "img_size": 224,
            "init_values": 1e-5,
            "dynamic_img_size": False,
        },
        interpolation="bicubic",
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
    ),
    "phikon": Facts(  # Filiot et al. 2023, medRxiv 2023.07.21.23292757; 86 M parameters
        hub_id="owkin/phikon",
        files=("model.safetensors", "pytorch_model.bin"),
        family="hf vit",
        pooling="class token",
        dim=768,
        licence="Owkin non-commercial licence",
        gated=False,
        trained_um_per_px=(0.5,),
        architecture={"model": "vit_base_patch16_224", "img_size": 224},
    ),
    "resnet50": Facts(  # torchvision's IMAGENET1K_V1, as mirrored by timm under the same keys
        hub_id="timm/resnet50.tv_in1k",
        files=("model.safetensors", "pytorch_model.bin", "resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"),
        family="resnet50",
        pooling="average",
        dim=2048,
        licence="BSD-3-Clause",
        gated=False,
        trained_um_per_px=(),
    ),
}
