"""Small methods and data with known answers for the tests of training and sampling."""

import json
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from stmorph.methods.base import DataSpec, Method, MethodOptions
from stmorph.randomness import normal_rows
from stmorph.units import Units


class Linear(Method):
    """Predictor: expression = embedding @ weight + bias, with dropout so that the global generator matters."""

    family = "predictor"
    needs = frozenset({"embedding"})

    class Options(MethodOptions):
        dropout: float = 0.0
        noise: float = 0.0
        batch_norm: bool = True

    def __init__(self, options, spec):
        super().__init__(options, spec)
        self.dropout = torch.nn.Dropout(options.dropout)
        self.linear = torch.nn.Linear(spec.embedding_dim, len(spec.genes))
        norm = torch.nn.BatchNorm1d(spec.embedding_dim, affine=False)
        self.norm = norm if options.batch_norm else torch.nn.Identity()
        self.register_buffer("mean", torch.zeros(len(spec.genes)))

    def prepare(self, units):
        self.mean = torch.as_tensor(units.expression).mean(0)

    def forward(self, embedding):
        return self.linear(self.dropout(self.norm(embedding))) + self.mean

    def training_step(self, batch, rng):
        noise = self.options.noise * rng.normal(*batch.expression.shape[1:])
        error = (self(batch.embedding) - batch.expression - noise.to(batch.expression)).square()
        return {"loss": error.mean(), "worst": error.max()}

    def draw(self, batch, seeds):
        noise = normal_rows(seeds.flatten(), (len(self.spec.genes),)).reshape(*seeds.shape, -1)
        return self(batch.embedding)[:, None] + 0.1 * noise.to(batch.embedding)


class Slow(Linear):
    """A step takes long enough to be interrupted; how long is no option, for it must not make the run another one."""

    pause = 0.0

    def training_step(self, batch, rng):
        time.sleep(self.pause)
        return super().training_step(batch, rng)


def train_to_files(folder: Path, pause: float = 0.0, identity=None, method_options=None, **changes) -> None:
    """Train a toy in `folder` and write what came out; also the body of processes that tests kill."""
    from stmorph.training.fit import new_method
    from stmorph.training.logs import TrainingLogs
    from stmorph.training.loop import train
    from stmorph.training.nodes import by_srun, is_helper, train_on_nodes
    from stmorph.training.options import TrainingOptions
    from stmorph.training.ownership import owned

    units = toy_units()
    options = {"steps": 60, "batch_size": 8, "learning_rate": 0.05, "views": 2, "log_every": 3, "accelerator": "cpu"}
    how = {"dropout": 0.3, "noise": 0.1, **(method_options or {})}
    method = new_method(Slow, Slow.Options(**how), toy_spec(units), 1)
    method.pause = pause
    nodes = changes.get("nodes", 1)
    if nodes > 1 and not by_srun():
        with owned(folder / "work"):
            train_on_nodes(nodes, changes.get("devices", 1), 1)
        return
    # The script is started again for each further process; the first one has the files.
    with nullcontext() if is_helper() or by_srun() else owned(folder / "work"):
        trained = train(
            method,
            units,
            TrainingOptions(**options | changes),
            1,
            folder / "work",
            TrainingLogs(csv=folder / "losses.csv"),
            identity or {"config": "c", "split": "s"},
        )
    if is_helper():
        return
    torch.save(trained.method.state_dict(), folder / "weights.pt")
    (folder / "circumstances.json").write_text(json.dumps(trained.circumstances))


class Painter(Method):
    """Generator: paints the tile in a grey that is linear in the first gene."""

    family = "generator"
    needs = frozenset({"tiles"})

    def __init__(self, options, spec):
        super().__init__(options, spec)
        self.linear = torch.nn.Linear(len(spec.genes), 1)

    def training_step(self, batch, rng):
        return {"loss": (self.linear(batch.expression)[:, 0] - batch.image.mean((1, 2, 3))).square().mean()}

    def draw(self, batch, seeds):
        assert batch.image is None and batch.embedding is None
        torch.rand(3)  # takes from the global generator: pictures must not disturb training
        grey = (self.linear(batch.expression)[:, 0] + 1) * 127.5
        noise = normal_rows(seeds.flatten(), ()).reshape(seeds.shape).to(grey)
        value = (grey[:, None] + noise).round().clamp(0, 255).to(torch.uint8)
        side, channels = self.spec.tile_px, self.spec.channels
        return value[..., None, None, None].expand(*seeds.shape, side, side, channels)


class Mean(Method):
    """Predictor fitted in closed form, with a buffer whose length depends on the units."""

    family = "predictor"
    needs = frozenset()
    trains = "once"

    def __init__(self, options, spec):
        super().__init__(options, spec)
        self.register_buffer("mean", torch.zeros(len(spec.genes)))
        self.register_buffer("seen", torch.zeros(0, dtype=torch.int64))

    def fit(self, units):
        self.mean = torch.as_tensor(units.expression).mean(0)
        self.seen = torch.arange(len(units))

    def draw(self, batch, seeds):
        return self.mean.expand(*seeds.shape, -1).clone()


class ArrayTiles:
    def __init__(self, tiles):
        self.tiles = tiles

    def read(self, index):
        return self.tiles[index]


def toy_units(n=40, genes=3, dim=5, views=2, side=4, seed=0, cells=False):
    """Units whose expression is linear in view 0 of their embedding and whose tile's grey follows gene 0."""
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(n, views, dim)).astype(np.float32)
    embedding[:, 1:] = embedding[:, :1]
    weight = np.random.default_rng(99).normal(size=(dim, genes))
    expression = (embedding[:, 0] @ weight + 2).astype(np.float32)
    grey = np.clip(128 + 20 * expression[:, 0], 0, 255)[:, None, None, None]
    tiles = np.clip(grey + rng.normal(size=(n, side, side, 3)) * 5, 0, 255).astype(np.uint8)
    return Units(
        slide=np.array(["A"] * (n // 2) + ["B"] * (n - n // 2)),
        barcode=np.array([f"b{i:03d}" for i in range(n)]),
        spatial_um=rng.uniform(0, 1000, size=(n, 2)),
        genes=tuple(f"G{i}" for i in range(genes)),
        expression=expression,
        embedding=embedding,
        tiles=ArrayTiles(tiles),
        cells=[rng.normal(size=(i % 4, genes)).astype(np.float32) for i in range(n)] if cells else None,
    )


def toy_spec(units, side=4):
    dim = 0 if units.embedding is None else units.embedding.shape[2]
    return DataSpec(genes=units.genes, target_space="log1p_cp10k", embedding_dim=dim, tile_px=side)


KINDS = {"linear": Linear, "painter": Painter, "mean": Mean}
