"""Scores the draws of a run against what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..errors import ConfigError, DataError
from ..files import whole
from ..samples.store import read_samples
from ..scores.rows import write_scores
from ..units import Units
from .inputs import tile_scale, units_of

IDENTITY = ("dataset", "split", "panel", "method", "variant", "condition", "seed", "encoder", "tiles", "family")


def score_run(
    run: Mapping[str, Any],
    files: Mapping[str, Sequence[str]],
    options: Mapping[str, Any],
    encoder: Mapping[str, Any] | None,
    out: Mapping[str, str],
) -> None:
    """Write the scores of a run and, for predictors, its genes one by one.

    Parameters
    ----------
    run, files
        As for training, with `samples` among the files and, for generators, `images` and maybe `programmes` and the
        `weights` of the encoder's networks.
    options
        A `ScoreConfig` as plain values.
    encoder
        For generators: the encoder whose features compare pictures (an `EncoderConfig` with its name).
    out
        Paths: scores, genes.
    """
    samples = read_samples(files["samples"][0])
    units = _sampled(units_of(run, files, ["test"]), samples, files["samples"][0])
    seed, resamples = run["seed"], options["bootstrap"]
    if run["family"] == "predictor":
        from ..scores.expression import score_predictor

        train = units_of(run, files, ["train"])
        rows, genes = score_predictor(
            samples.draws,
            units.expression,
            units.slide,
            units.genes,
            train.expression,
            target_space=run["target_space"],
            k=sorted(set(options["k"])),
            estimators=[*options["estimators"], "draw"],
            seed=seed,
            resamples=resamples,
        )
    else:
        from ..encoders.joined import open_encoder
        from ..image.extra_channels import RGB
        from ..scores.features import choose_extractor
        from ..scores.image import score_generator

        _, um_per_px = tile_scale(files)
        network = open_encoder(encoder["model"], encoder["options"], files.get("weights", ()))
        extractor = choose_extractor(options["inception_weights"], network, um_per_px)
        rows = score_generator(
            samples.draws[..., :RGB],
            units.tiles.read(np.arange(len(units))),
            units.slide,
            extractor,
            programmes=_programmes(files, options, units, extractor),
            target_space=run["target_space"],
            seed=seed,
            resamples=resamples,
        )
        if (more := samples.draws.shape[-1] - RGB) > 0:
            note = f"of red, green and blue alone, not of the {more} channels behind them"
            rows = [replace(row, note="; ".join(filter(None, (row.note, note)))) for row in rows]
        genes = pd.DataFrame({"gene": []})
    write_scores(rows, out["scores"], {key: run[key] if run[key] is not None else "" for key in IDENTITY})
    with whole(out["genes"]) as partial:
        genes.to_parquet(partial, index=False)


def _sampled(test: Units, samples: Any, path: str) -> Units:
    """Return the units that were sampled, in the order of the draws; joined by name."""
    position = {name: i for i, name in enumerate(test.names())}
    names = [f"{slide}/{barcode}" for slide, barcode in zip(samples.slide, samples.barcode)]
    strangers = [name for name in names if name not in position]
    if strangers:
        raise DataError(
            f"{path} has draws for {len(strangers)} units that are not tested, the first {strangers[0]}; sample again"
        )
    return test.take(np.array([position[name] for name in names]))


def _programmes(files: Mapping[str, Sequence[str]], options: Mapping[str, Any], units: Units, extractor: Any) -> Any:
    if not files.get("programmes") or not options["programme_features"]:
        return None
    from ..enrichment import read_gmt
    from ..scores.conditioning import Programmes
    from ..scores.image import names_of_features

    members = read_gmt(files["programmes"][0])
    unknown = sorted(set(options["programme_features"]) - set(members))
    if unknown:
        raise ConfigError(
            f"scores.programme_features names {unknown[0]!r}, which {files['programmes'][0]} does not hold; "
            f"it has {', '.join(members)}"
        )
    pairs = sorted(options["programme_features"].items())
    return Programmes(
        units.expression, units.genes, {name: members[name] for name, _ in pairs}, pairs, names_of_features(extractor)
    )
