"""Devices, precision and the optimiser's groups, as Lightning Fabric and torch want them."""

import logging
from typing import Any

import torch

from ..errors import CheckpointError
from ..methods.base import Method
from .arithmetic import on_cuda
from .checkpoints import Checkpoints
from .nodes import by_srun, no_nodes
from .options import TrainingOptions

log = logging.getLogger(__name__)


def new_fabric(options: TrainingOptions) -> tuple[Any, str]:
    """Return the Fabric of some options and its precision; `auto` is bf16 on CUDA devices that have it, else 32 bit.

    Raises
    ------
    ConfigError
        Several nodes are asked for, and this process was not started on one of them.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

    if options.nodes > 1 and not by_srun():
        raise no_nodes(options.nodes)
    cuda = on_cuda(options.accelerator)
    bf16 = options.precision == "bf16" or (
        options.precision == "auto" and cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=options.devices,
        num_nodes=options.nodes,
        precision="bf16-mixed" if bf16 else "32-true",
        # Of a job that trains on one node a cluster's variables must not change how many processes there are.
        plugins=[SLURMEnvironment(auto_requeue=False) if by_srun() else LightningEnvironment()],
    )
    return fabric, "bf16" if bf16 else "32"


def latest_of_all(checkpoints: Checkpoints, fabric: Any, steps: int) -> tuple[int, dict[str, Any]] | None:
    """Return the checkpoint from which all processes go on, or None, and say so in the log.

    Raises
    ------
    CheckpointError
        There are checkpoints, but none can be read; or not all processes find the same.
    """
    found = checkpoints.latest()
    step = -1 if found is None else found[0]
    # A shared file system may show a node an old state of the folder.
    if (first := fabric.broadcast(step)) != step:
        raise CheckpointError(
            f"process {fabric.global_rank} finds the checkpoint of step {step} in {checkpoints.folder}, the first "
            f"process that of step {first} (-1: none); expected the same: see that all nodes share the folder, and run "
            "again"
        )
    if fabric.is_global_zero and found is not None:
        log.info("goes on after step %d of %d, from %s", step, steps, checkpoints.path(step))
    elif fabric.is_global_zero:
        log.info("begins anew because %s", checkpoints.why_anew)
    return found


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
