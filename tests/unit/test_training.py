"""The shared loop: what it learns, what it logs, and that nothing beside the config changes a weight."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from training_toys import Linear, Mean, Painter, toy_spec, toy_units

from stmorph.errors import DataError, StmorphError
from stmorph.training.average import Average
from stmorph.training.fit import fit_or_train, new_method
from stmorph.training.logs import Progress, TrainingLogs, beside
from stmorph.training.loop import train
from stmorph.training.options import TrainingOptions, ema_decay_at, learning_rate_at


def options(**changes):
    return TrainingOptions(
        **{
            "steps": 30,
            "batch_size": 16,
            "learning_rate": 0.05,
            "ema_decay": 0.9,
            "log_every": 10,
            "picture_every": 0,
            "accelerator": "cpu",
            **changes,
        }
    )


def run(tmp_path, name="run", kind=Linear, units=None, logs=None, seed=3, method_options=None, **changes):
    units = toy_units() if units is None else units
    method = new_method(kind, kind.Options(**(method_options or {})), toy_spec(units), seed)
    return train(method, units, options(**changes), seed, tmp_path / name, logs)


def same(one, other):
    a, b = one.method.state_dict(), other.method.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_linear_relation_is_learnt(tmp_path):
    units = toy_units(n=200)
    trained = run(tmp_path, units=units, steps=400, schedule="cosine", batch_size=64)
    predicted = trained.method(torch.as_tensor(units.embedding[:, 0]))
    truth = torch.as_tensor(units.expression)
    assert (predicted - truth).square().mean() < 0.01 * truth.var(0).mean()
    assert trained.record["final_loss"] < 0.2
    assert not trained.method.training


def test_the_same_config_gives_the_same_weights_and_another_seed_does_not(tmp_path):
    how = {"method_options": {"dropout": 0.3, "noise": 0.1}, "views": 2}
    one = run(tmp_path, "one", **how)
    torch.manual_seed(123)
    torch.rand(5)  # what the caller does with the global generator has no influence
    assert same(one, run(tmp_path, "two", **how))
    assert not same(one, run(tmp_path, "three", seed=4, **how))


def test_prefetch_threads_and_checkpoints_change_nothing(tmp_path):
    how = {"method_options": {"dropout": 0.3, "noise": 0.1}, "views": 2}
    one = run(tmp_path, "one", prefetch=0, **how)
    assert same(one, run(tmp_path, "two", prefetch=3, **how))
    assert same(one, run(tmp_path, "three", checkpoint_minutes=0, **how))


def test_pictures_do_not_touch_the_training(tmp_path):
    logs = TrainingLogs(tensorboard=tmp_path / "board")
    without = run(tmp_path, "one", Painter)
    with_pictures = run(tmp_path, "two", Painter, logs=logs, picture_every=7)
    assert same(without, with_pictures)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("real above drawn")] == [7, 14, 21, 28, 30]
    assert [event.step for event in events.Scalars("training/loss")] == [10, 20, 30]


def test_the_callers_state_is_left_as_it_was(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    before = torch.get_num_threads()
    run(tmp_path, cpu_threads=before + 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_average_of_weights_has_its_known_answer():
    method = new_method(Linear, Linear.Options(), toy_spec(toy_units()), 0)
    average = Average(method)
    start = method.linear.weight.detach().clone()
    with torch.no_grad():
        method.linear.weight += 1
        method.norm.running_mean += 5
    average.update(method, 0.75)
    torch.testing.assert_close(average.method.linear.weight, start + 0.25)
    average.update(method, 0.75)
    torch.testing.assert_close(average.method.linear.weight, start + 0.4375)
    assert torch.equal(average.method.norm.running_mean, method.norm.running_mean)
    assert method.linear.weight.requires_grad


def test_without_averaging_the_model_is_the_last_step(tmp_path):
    units = toy_units()
    method = new_method(Linear, Linear.Options(), toy_spec(units), 0)
    trained = train(method, units, options(ema_decay=0.0), 0, tmp_path / "run")
    assert torch.equal(trained.method.linear.weight, method.linear.weight)


def test_ema_warm_up_forgets_the_start():
    assert ema_decay_at(options(ema_decay=0.999), 0) == 0.1
    assert ema_decay_at(options(ema_decay=0.999), 90) == 0.91
    assert ema_decay_at(options(ema_decay=0.999), 10**6) == 0.999
    assert ema_decay_at(options(ema_decay=0.999, ema_warmup=False), 0) == 0.999


def test_learning_rate_schedules_have_their_known_answers():
    cosine = options(steps=101, learning_rate=2.0, schedule="cosine", min_lr_fraction=0.1)
    assert learning_rate_at(cosine, 0) == 2.0
    assert learning_rate_at(cosine, 50) == pytest.approx(1.1)
    assert learning_rate_at(cosine, 25) == pytest.approx(2 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2))
    assert learning_rate_at(cosine, 100) == pytest.approx(0.2)
    constant = options(steps=10, learning_rate=1.0, warmup_steps=4)
    assert [learning_rate_at(constant, k) for k in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    warm = options(steps=15, learning_rate=1.0, warmup_steps=4, schedule="cosine", min_lr_fraction=0.0)
    assert [learning_rate_at(warm, k) for k in (4, 9, 14)] == pytest.approx([1.0, 0.5, 0.0])


class Steep(Linear):
    """Its gradient is known: 3 for the one weight that takes part, scaled."""

    def training_step(self, batch, rng):
        return {"loss": 3 * self.linear.weight[0, 0] + 4 * self.linear.bias[0]}

    def forward(self, embedding):
        return self.linear(embedding)


def test_the_gradient_is_clipped_by_its_norm(tmp_path, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        seen.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    logs = TrainingLogs(csv=tmp_path / "losses.csv")
    run(tmp_path, "clipped", Steep, steps=1, log_every=1, gradient_clip=0.5, logs=logs)
    run(tmp_path, "free", Steep, steps=1, log_every=1, gradient_clip=None)
    assert seen == pytest.approx([0.5, 5.0], rel=1e-5)
    assert pd.read_csv(tmp_path / "losses.csv").gradient_norm.tolist() == pytest.approx([5.0])


def test_norms_and_biases_can_be_spared_the_weight_decay(tmp_path):
    class Still(Linear):
        def training_step(self, batch, rng):
            return {"loss": 0 * (self.linear.weight.sum() + self.linear.bias.sum())}

    how = {"kind": Still, "steps": 1, "weight_decay": 0.5, "learning_rate": 0.1, "ema_decay": 0.0}
    start = new_method(Still, Still.Options(), toy_spec(toy_units()), 3)
    every, spared = (run(tmp_path, str(x), decay_norm_and_bias=x, **how).method for x in (True, False))
    torch.testing.assert_close(every.linear.weight, 0.95 * start.linear.weight)
    torch.testing.assert_close(every.linear.bias, 0.95 * start.linear.bias)
    torch.testing.assert_close(spared.linear.weight, 0.95 * start.linear.weight)
    assert torch.equal(spared.linear.bias, start.linear.bias)


def test_the_table_of_losses_holds_means_between_its_lines(tmp_path):
    fine, coarse = (TrainingLogs(csv=tmp_path / name) for name in ("fine.csv", "coarse.csv"))
    run(tmp_path, "one", logs=fine, log_every=1, steps=25)
    run(tmp_path, "two", logs=coarse, log_every=10, steps=25)
    fine, coarse = pd.read_csv(fine.csv), pd.read_csv(coarse.csv)
    assert coarse.columns.tolist() == ["step", "learning_rate", "gradient_norm", "loss", "worst"]
    assert fine.step.tolist() == list(range(1, 26))
    assert coarse.step.tolist() == [10, 20, 25]
    assert coarse.loss.tolist() == pytest.approx(
        [fine.loss[:10].mean(), fine.loss[10:20].mean(), fine.loss[20:].mean()]
    )


def test_a_loss_that_is_not_finite_names_its_step_and_spoils_no_checkpoint(tmp_path):
    class Breaks(Linear):
        def training_step(self, batch, rng):
            Breaks.calls = getattr(Breaks, "calls", 0) + 1
            losses = super().training_step(batch, rng)
            return {"loss": losses["loss"] * (float("nan") if Breaks.calls == 7 else 1)}

    with pytest.raises(StmorphError, match=r"is nan at step 7 of 30.*learning_rate"):
        run(tmp_path, "run", Breaks)
    with pytest.raises(StmorphError, match="at step 7"):
        Breaks.calls = 0
        run(tmp_path, "saved", Breaks, checkpoint_minutes=0)
    assert sorted(path.name for path in (tmp_path / "saved").glob("*.json")) == [
        "step-000000005.json",
        "step-000000006.json",
    ]


def test_no_units_and_too_few_views_are_said_before_training(tmp_path):
    with pytest.raises(DataError, match="no training units"):
        run(tmp_path, units=toy_units().take(np.arange(0)))
    with pytest.raises(DataError, match=r"8 views.*holds 2"):
        run(tmp_path, views=8)


def test_a_closed_form_method_is_fitted_once(tmp_path):
    units = toy_units()
    method = new_method(Mean, Mean.Options(), toy_spec(units), 0)
    logs = TrainingLogs(csv=tmp_path / "losses.csv")
    trained = fit_or_train(method, units, options(), 0, tmp_path / "work", logs)
    torch.testing.assert_close(trained.method.mean, torch.as_tensor(units.expression.mean(0)))
    assert (tmp_path / "losses.csv").read_text() == "step\n"
    assert not (tmp_path / "work").exists()


def test_progress_writes_lines_and_no_carriage_returns_into_a_log():
    stream = io.StringIO()
    progress = Progress(total=500, initial=100, stream=stream)
    for _ in range(400):
        progress.advance()
        progress.show(0.25)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert 1 <= len(lines) < 20
    assert "500/500" in lines[-1] and "loss 0.25" in lines[-1]


def test_the_picture_grid_has_real_above_drawn():
    real, drawn = np.zeros((3, 4, 5, 3), np.uint8), np.full((3, 4, 5, 3), 200, np.uint8)
    grid = beside(real, drawn, gap_px=2)
    assert grid.shape == (2 * 4 + 2, 3 * 7 - 2, 3)
    assert (grid[:4, :5] == 0).all() and (grid[6:, 14:] == 200).all() and (grid[4:6] == 255).all()


def test_bf16_trains_on_the_cpu_too(tmp_path):
    trained = run(tmp_path, precision="bf16", steps=60)
    assert trained.method.linear.weight.dtype == torch.float32
    assert trained.circumstances["precision"] == "bf16"
    assert trained.record["final_loss"] < run(tmp_path, "short", steps=1, precision="bf16").record["final_loss"]
