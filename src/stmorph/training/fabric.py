"""Devices, precision and the optimiser's groups, as Lightning Fabric and torch want them."""

import os
from typing import Any

import torch

from ..methods.base import Method
from .arithmetic import on_cuda
from .options import TrainingOptions


def new_fabric(options: TrainingOptions) -> tuple[Any, str]:
    """Return the Fabric of some options and its precision; `auto` is bf16 on CUDA devices that have it, else 32 bit."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    cuda = on_cuda(options.accelerator)
    bf16 = options.precision == "bf16" or (
        options.precision == "auto" and cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=options.devices,
        precision="bf16-mixed" if bf16 else "32-true",
        plugins=[LightningEnvironment()],  # a cluster's own variables must not change how many processes there are
    )
    return fabric, "bf16" if bf16 else "32"


def is_helper() -> bool:
    """Return whether Fabric started this process to train beside the first one: it runs the same script once more."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def parameter_groups(method: Method, options: TrainingOptions) -> list[dict[str, Any]]:
    """Return the optimiser's groups; vectors and scalars (norms, biases) may be spared the weight decay."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    if options.decay_norm_and_bias:
        return [{"params": parameters, "weight_decay": options.weight_decay}]
    decayed, spared = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
