"""Floor: a linear map from the tile's embedding to expression, with a squared penalty, in closed form."""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from ..errors import ConfigError
from ..units import Units
from .base import Batch, DataSpec, Method, MethodOptions

CANDIDATES = (5.0, 50.0, 500.0, 5000.0)


class RidgeOptions(MethodOptions):
    """How strongly weights are pulled to 0, and how features and genes are centred."""

    penalty: Annotated[float, Field(ge=0)] | Literal["chosen"] = "chosen"
    """Of the squared weights of standardised features; the intercept is not penalised. `chosen`: of `CANDIDATES` the
    one with the least squared error on training slides left out one at a time (a floor should not lose by it)."""
    standardise: Literal["train", "slide"] = "train"
    """`train`: all training units together, stored for new slides. `slide`: training features and genes are z-scored
    within each slide, which takes slide effects out of the fit; predictions return by the training units' pooled mean
    and standard deviation, and new features are z-scored by the training units' pooled statistics: no test unit's data
    is ever used."""


class Ridge(Method):
    """Predicts a linear function of the embedding; every draw is the same."""

    family = "predictor"
    needs = frozenset({"embedding"})
    trains = "once"
    Options = RidgeOptions

    def __init__(self, options: RidgeOptions, spec: DataSpec):
        super().__init__(options, spec)
        dim, genes = spec.embedding_dim, len(spec.genes)
        for name, size in {"mean": dim, "intercept": genes}.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("sd", torch.ones(dim, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(dim, genes, dtype=torch.float64))

    def fit(self, units: Units) -> None:
        """Solve (X'X + penalty I) W = X'Y in float64, of the untransformed tiles' embeddings.

        Raises
        ------
        ConfigError
            There is no penalty and the features do not determine the weights.
        """
        x, y = np.float64(units.embedding[:, 0]), np.float64(units.expression)
        penalty = self.options.penalty
        if penalty == "chosen":
            penalty = self._choose(x, y, units.slide)
            print(f"ridge: penalty {penalty:g}")
        for name, value in self._solve(x, y, units.slide, penalty).items():
            setattr(self, name, torch.from_numpy(value).to(getattr(self, name)))

    def _solve(self, x: np.ndarray, y: np.ndarray, slide: np.ndarray, penalty: float) -> dict[str, np.ndarray]:
        mean, sd = x.mean(0), _scale(x)
        if self.options.standardise == "train":
            features, target, back = (x - mean) / sd, y - y.mean(0), 1.0
        else:
            features, target = _within(x, slide), _within(y, slide)
            back = _scale(y)
        gram = features.T @ features + penalty * np.eye(x.shape[1])
        try:
            weights = np.linalg.solve(gram, features.T @ target) * back
        except np.linalg.LinAlgError as error:
            raise ConfigError(
                f"options.penalty of ridge is {penalty} and the {x.shape[1]} features of {len(x)} units "
                "do not determine the weights; expected a penalty above 0"
            ) from error
        return {"mean": mean, "sd": sd, "intercept": y.mean(0), "weights": weights}

    def _choose(self, x: np.ndarray, y: np.ndarray, slide: np.ndarray) -> float:
        """Return the candidate with the least squared error on what is left out: a slide, or with one slide a fifth."""
        groups = slide if len(np.unique(slide)) > 1 else np.arange(len(x)) * 5 // len(x)
        errors = dict.fromkeys(CANDIDATES, 0.0)
        for name in np.unique(groups):
            out = groups == name
            for penalty in CANDIDATES:
                fit = self._solve(x[~out], y[~out], slide[~out], penalty)
                predicted = (x[out] - fit["mean"]) / fit["sd"] @ fit["weights"] + fit["intercept"]
                errors[penalty] += float(((y[out] - predicted) ** 2).sum())
        return min(errors, key=errors.__getitem__)

    @torch.no_grad()
    def draw(self, batch: Batch, seeds: torch.Tensor) -> torch.Tensor:
        """Return the linear prediction for every draw, float32 [B, draws, G]."""
        features = (batch.embedding.double() - self.mean) / self.sd
        predicted = (features @ self.weights + self.intercept).float()
        return predicted[:, None].expand(-1, seeds.shape[1], -1).clone()


def _scale(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation of columns; 1 for a column that does not vary."""
    sd = values.std(0)
    return np.where(sd > 0, sd, 1.0)


def _within(values: np.ndarray, slide: np.ndarray) -> np.ndarray:
    """Return columns z-scored within each slide."""
    scored = np.empty_like(values)
    for name in np.unique(slide):
        of = slide == name
        scored[of] = (values[of] - values[of].mean(0)) / _scale(values[of])
    return scored


METHOD = Ridge
