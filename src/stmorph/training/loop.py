"""The training loop that all methods share, on Lightning Fabric.

Every step is a function of (weights, seed, step): its units and views, its random generator, torch's global seed and
its learning rate. So a checkpoint needs no state of generators, loaders or schedulers, and a run that was killed and
started again ends with the weights of one that was not: bit for bit on a CPU.
"""

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..batches import Batcher, ahead, check_views, rows_of_step
from ..digests import digest_of
from ..errors import CheckpointError, DataError, StmorphError, reason_of
from ..methods.base import Batch, Method
from ..randomness import BatchRandom, seed_of, torch_generator
from ..samples.draw import condition_batcher, draw_seeds
from ..units import Units
from .arithmetic import exact, on_cuda
from .average import Average
from .checkpoints import Checkpoints
from .fabric import latest_of_all, new_fabric, parameter_groups
from .logs import Board, LossTable, Progress, TrainingLogs
from .options import HARMLESS, TrainingOptions, checkpoint_pause_s, ema_decay_at, learning_rate_at
from .signals import STOPPED, StopRequest, stop_requests

log = logging.getLogger(__name__)
PICTURES = 6


@dataclass(frozen=True)
class Trained:
    """A trained method (EMA weights, on the CPU) and what is to be said of its training.

    record: the same whenever the run is the same; it goes into model.json.
    circumstances: device, wall time, resumes; it goes into the provenance.
    """

    method: Method
    record: dict[str, Any] = field(default_factory=dict)
    circumstances: dict[str, Any] = field(default_factory=dict)


def train(
    method: Method,
    units: Units,
    options: TrainingOptions,
    seed: int,
    workdir: str | Path,
    logs: TrainingLogs | None = None,
    identity: dict[str, Any] | None = None,
) -> Trained:
    """Train a method by steps, from its last checkpoint if there is one.

    Parameters
    ----------
    method
        With its initial weights (see `new_method`); it is changed in place.
    units
        The training units and no others.
    seed
        The run's seed.
    workdir
        Folder of the checkpoints, outside the workflow's outputs; only one process may work in it (`ownership.owned`).
    identity
        What else the weights depend on (digests of config, panel, split, code): a checkpoint with another is not used.

    Raises
    ------
    StmorphError
        A loss is not a finite number.
    CheckpointError
        There are checkpoints, but none can be used.
    DataError
        There are no units, or they lack what the method needs.
    SystemExit
        SIGTERM (143) or SIGUSR1 (138) came; a checkpoint has been saved.
    """
    own = {
        "training": digest_of(options.model_dump(exclude=HARMLESS)),
        "method": f"{type(method).__module__}.{type(method).__qualname__}",
        "options": digest_of([method.options.model_dump(), asdict(method.spec)]),
        "seed": seed,
        "units": digest_of([len(units), [str(name) for name in units.names()]]),
    }
    checkpoints = Checkpoints(Path(workdir), {**(identity or {}), **own})
    exactly = exact(options.cpu_threads, deterministic=not on_cuda(options.accelerator))
    with stop_requests() as stop, exactly:
        return _Training(method, units, options, seed, checkpoints, logs or TrainingLogs()).run(stop)


class _Training:
    def __init__(
        self,
        method: Method,
        units: Units,
        options: TrainingOptions,
        seed: int,
        checkpoints: Checkpoints,
        logs: TrainingLogs,
    ):
        if not len(units):
            raise DataError("there are no training units; look at the split's report for what became of them")
        check_views(units, method.needs, options.views)
        self.method, self.units, self.options, self.seed = method, units, options, seed
        self.checkpoints, self.logs = checkpoints, logs
        self.batcher = Batcher(units, method.needs, method.spec.max_cells or None)
        self.fabric, self.precision = new_fabric(options)
        self.step = 0  # steps done
        self.pending: list[torch.Tensor] = []  # losses of the steps since the last line of the log
        self.names: list[str] = []  # what they are called
        self.loss = float("nan")
        self.started, self.seconds = time.monotonic(), 0.0  # the latter: of the interrupted starts before this one

    def run(self, stop: StopRequest) -> Trained:
        self._set_up()
        first = self.step
        fabric = self.fabric
        board = Board(self.logs.tensorboard if fabric.is_global_zero else None, first)
        progress = Progress(self.options.steps, first, self.logs.progress, silent=not fabric.is_global_zero)
        saved_at, saved_step, save_s = time.monotonic(), first, 0.0
        batches = ahead(self._batch, range(first, self.options.steps), self.options.prefetch)
        try:
            for batch in batches:
                self._step(batch)
                if self.step % self.options.log_every == 0 or self.step == self.options.steps:
                    self._log(board, progress)
                progress.advance()
                every = self.options.picture_every
                if every and (self.step % every == 0 or self.step == self.options.steps):
                    self._pictures(board)
                due = time.monotonic() - saved_at >= checkpoint_pause_s(self.options, save_s)
                number, due = self._agree(stop.number, due or self.step == self.options.steps)
                if due or number:
                    began = time.monotonic()
                    self._save()
                    saved_at, saved_step = time.monotonic(), self.step
                    save_s = saved_at - began
                if number and self.step < self.options.steps:
                    log.warning(
                        "%s %d: saved after step %d of %d; start again to go on",
                        STOPPED,
                        number,
                        self.step,
                        self.options.steps,
                    )
                    raise SystemExit(128 + number)
        finally:
            batches.close()
            progress.close()
            board.close()
        assert saved_step == self.step == self.options.steps
        if fabric.is_global_zero:
            self.table.close(self.logs.csv)
        parameters = sum(p.numel() for p in self.method.parameters())
        record = {"steps": self.step, "final_loss": self.loss, "units": len(self.units), "parameters": parameters}
        seconds = time.monotonic() - self.started
        circumstances = {
            "device": str(fabric.device),
            "precision": self.precision,
            "resumed_at_step": first,
            "seconds": round(self.seconds + seconds, 1),
            "steps_per_second": round((self.step - first) / seconds, 3),
        }
        return Trained(self.average.method.to("cpu"), record, circumstances)

    def _set_up(self) -> None:
        """Build optimiser and average, and load the last checkpoint into them."""
        torch.manual_seed(seed_of(self.seed, "set up"))
        self.method.prepare(self.units)
        self.fabric.launch()
        self.average = Average(self.method)
        self.average.method.to(self.fabric.device)
        optimizer = torch.optim.AdamW(
            parameter_groups(self.method, self.options), lr=self.options.learning_rate, betas=self.options.betas
        )
        self.module, self.optimizer = self.fabric.setup(self.method, optimizer)
        self.module.mark_forward_method("training_step")
        found = latest_of_all(self.checkpoints, self.fabric, self.options.steps)
        text = ""
        if found is not None:
            self.step, state = found
            try:
                self.method.load_state_dict(state["method"])
                self.average.method.load_state_dict(state["average"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.pending = [row.to(self.fabric.device) for row in state["pending"]]
                self.names, self.loss, text = state["names"], state["loss"], state["losses"]
                self.seconds = state["seconds"]
            except (RuntimeError, KeyError, ValueError) as error:
                raise CheckpointError(
                    f"the checkpoint of step {self.step} in {self.checkpoints.folder} does not fit the method "
                    f"({reason_of(error)}); delete the folder to train from the beginning"
                ) from error
        if self.fabric.is_global_zero:
            self.table = LossTable(self.checkpoints.folder / "losses.csv", text)

    def _batch(self, step: int) -> Batch:
        rows, views = rows_of_step(self.seed, step, len(self.units), self.options.batch_size, self.options.views)
        return self.batcher.batch(rows[self._mine()], views[self._mine()])

    def _mine(self) -> slice:
        """Return which rows of a batch this process computes."""
        return slice(self.fabric.global_rank, None, self.fabric.world_size)

    def _step(self, batch: Batch) -> None:
        rank = self.fabric.global_rank
        torch.manual_seed(seed_of(self.seed, "step", self.step, rank))
        generator = torch_generator(self.seed, "step", self.step, 0, "rng")
        rng = BatchRandom(generator, self.options.batch_size, self._mine())
        rate = learning_rate_at(self.options, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.module.train()
        losses = self.module.training_step(batch.to(self.fabric.device), rng)
        self.fabric.backward(losses["loss"])
        norm = self.fabric.clip_gradients(
            self.module,
            self.optimizer,
            max_norm=self.options.gradient_clip or float("inf"),
            error_if_nonfinite=False,  # looked at with the losses: every look waits for the device
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.method, ema_decay_at(self.options, self.step))
        self.names = ["gradient_norm", "loss", *sorted(losses.keys() - {"loss"})]
        values = {"gradient_norm": norm, **losses}
        self.pending.append(torch.stack([values[name].detach().float().reshape(()) for name in self.names]))
        self.step += 1

    def _finite(self) -> torch.Tensor:
        """Return the pending losses [steps, parts] on the CPU, after a look at each.

        Raises
        ------
        StmorphError
            One is not finite; names the step and the part.
        """
        values = self.fabric.all_reduce(torch.stack(self.pending), reduce_op="mean").cpu()
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            row, part = bad[0].tolist()
            step = self.step - len(values) + row + 1
            raise StmorphError(
                f"{self.names[part]} is {values[row, part].item()} at step {step} of {self.options.steps}; expected a "
                "finite number: lower training.learning_rate, set training.gradient_clip, use training.precision 32, "
                f"or look for extreme values in the data (the last good checkpoint is in {self.checkpoints.folder})"
            )
        return values

    def _log(self, board: Board, progress: Progress) -> None:
        mean = dict(zip(self.names, self._finite().double().mean(0).tolist()))
        self.pending, self.loss = [], mean["loss"]
        if self.fabric.is_global_zero:
            values = {"step": self.step, "learning_rate": learning_rate_at(self.options, self.step - 1), **mean}
            self.table.add(values)
            board.scalars(values, self.step)
            progress.show(self.loss)

    def _pictures(self, board: Board) -> None:
        if self.method.family != "generator" or board.writer is None or self.units.tiles is None:
            return
        chosen = self.units.take(np.linspace(0, len(self.units) - 1, min(PICTURES, len(self.units))).round())
        every = np.arange(len(chosen))
        with torch.random.fork_rng(), torch.no_grad():
            batch = condition_batcher(self.method, chosen).batch(every).to(self.fabric.device)
            drawn = self.average.method.draw(batch, torch.from_numpy(draw_seeds(chosen, 1, self.seed)))
        board.pictures(chosen.tiles.read(every), drawn[:, 0].cpu().numpy(), self.step)

    def _agree(self, signal_number: int, due: bool) -> tuple[int, bool]:
        """Return the signal and whether a checkpoint is due, the same on all devices."""
        if self.fabric.world_size == 1:
            return signal_number, due
        told = torch.tensor([float(signal_number), float(due)], device=self.fabric.device)
        told = self.fabric.all_gather(told).reshape(-1, 2).amax(0)
        return int(told[0]), bool(told[1])

    def _save(self) -> None:
        if self.pending:
            # Never keep weights that a bad step has spoilt; and keep the batch's losses, not this process's share.
            self.pending = list(self._finite().to(self.fabric.device))
        if self.fabric.is_global_zero:
            state = {
                "method": self.method.state_dict(),
                "average": self.average.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "pending": [row.cpu() for row in self.pending],
                "names": self.names,
                "loss": self.loss,
                "losses": self.table.text,
                "seconds": self.seconds + time.monotonic() - self.started,
            }
            self.checkpoints.save(self.step, state)
        self.fabric.barrier()
