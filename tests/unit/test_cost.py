"""What a study would cost: the jobs of the real plan, each once; numbers that say where they come from."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml

from stmorph.bundle.given import Given
from stmorph.config.workflow import Workflow, open_study
from stmorph.cost.estimate import estimate, estimates, total
from stmorph.cost.jobs import Job, jobs_of, study_jobs
from stmorph.cost.past import Benchmarks, Past, read_benchmark
from stmorph.cost.rules import Asked
from stmorph.cost.show import by_rule

ROOT = Path(__file__).parents[2]
HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def demo(**changes) -> Workflow:
    raw = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    return open_study({**raw, "results": "results/demo", **changes}, ROOT)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Workflow:
    monkeypatch.chdir(tmp_path)
    return demo()


def ask(job: Job) -> Asked:
    where = {
        "train": "{dataset}/{split}/{panel}/{label}/seed{seed,[0-9]+}",
        "sample": "{dataset}/{split}/{panel}/{label}/seed{seed,[0-9]+}",
        "slide": "{dataset,[^/]+}/{slide,[^/]+}",
    }
    pattern = where.get(job.rule)
    return Asked(2, 600, 1000, pattern and f"results/demo/benchmarks/{job.rule}/{pattern}.tsv")


def benchmark(path: str | Path, seconds, cpu, rss=100.0) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"{HEAD}{seconds}\t0:00:01\t{rss}\t1\t1\t1\t1\t1\t1\t{cpu}\n")


def record(folder: str, run, **changes) -> None:
    """Write what a past run left: its config and the device."""
    place = Path(folder, "runs", run.trained.folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.json").write_text(json.dumps({"config": {**run.as_trained(), **changes}}))
    (place / "provenance.json").write_text(json.dumps({"device": "cpu"}))


def drawn(folder: str, run, draws: int, units: int, test_units: int) -> None:
    path = Path(folder, "runs", run.folder, "samples.zarr.zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as store:
        store.writestr("zarr.json", json.dumps({"attributes": {"draws": draws, "test_units": test_units}}))
        store.writestr("barcode/zarr.json", json.dumps({"shape": [units]}))


def job_of(study: Workflow, rule: str, label: str = "stem") -> Job:
    return next(j for j in study_jobs(study).values() if j.rule == rule and j.run and j.run.label == label)


def known(study: Workflow, job: Job) -> list[Past]:
    return Benchmarks(study.config.results).of(job, ask(job).benchmark)


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_table_needs_each_job_of_its_runs_once(study):
    makers = study_jobs(study)
    jobs = jobs_of(study.targets["stem_table1"][1], makers)
    runs = study.plan.table_runs("stem_table1")
    count = {rule: sum(job.rule == rule for job in jobs) for rule in {job.rule for job in jobs}}
    assert count["score"] == count["sample"] == len(runs)
    assert count["train"] == len({run.trained.key for run in runs}) < len(runs)  # shuffled ones draw from the paired
    assert count["slide"] == count["tiles"] == count["embedding"] == len(study.slides("simulated"))
    assert count["table"] == count["split"] == 1 and "figure" not in count


def test_what_is_given_has_nothing_behind_it(study):
    runs = study.plan.table_runs("stem_table1")
    given = Given(frozenset(study.paths.run("scores.parquet", run) for run in runs))
    jobs = jobs_of(study.targets["stem_table1"][1], study_jobs(study, given))
    assert {job.rule for job in jobs} == {"table", "score"}


def test_more_seeds_train_more_and_share_the_slides(study):
    def count(study, rule):
        files = study.targets["stem_table1"][1]
        return sum(job.rule == rule for job in jobs_of(files, study_jobs(study)))

    three = demo(seeds=[0, 1, 2])
    assert count(three, "train") == 3 * count(study, "train")
    assert count(three, "slide") == count(study, "slide")


# --- what is known ----------------------------------------------------------------------------------------------------


def test_without_a_benchmark_the_limits_bound_the_cost(study):
    job = job_of(study, "train")
    one = estimate(job, ask(job), [])
    assert (one.basis, one.cpu_s, one.mem_mb, one.size_bytes) == ("at most", 2 * 600, 1000, None)
    gpu = Job("train", {}, (), (), job.run, gpu=2)
    assert estimate(gpu, ask(job), []).gpu_s == 2 * 600


def test_the_benchmark_of_the_job_itself_is_measured(study):
    job = job_of(study, "train")
    record("results/demo", job.run)
    benchmark(f"results/demo/benchmarks/train/{job.run.folder}.tsv", 100, 60, rss=333)
    one = estimate(job, ask(job), known(study, job))
    assert (one.basis, one.cpu_s, one.gpu_s, one.mem_mb) == ("measured", 60, 0, 333)


def test_training_is_scaled_by_its_steps(study):
    job = job_of(study, "train")
    steps = job.run.training["steps"]
    record("results/other", job.run, training={**job.run.training, "steps": steps // 4})
    benchmark(f"results/other/benchmarks/train/{job.run.folder}.tsv", 100, 60)
    one = estimate(job, ask(job), known(study, job))
    assert one.basis == "scaled" and one.cpu_s == pytest.approx(240)


@pytest.mark.parametrize("change", [{"options": {"blocks": 99}}, {"method": "ridge"}, {"tiles": "wide"}])
def test_another_network_tells_nothing(study, change):
    job = job_of(study, "train")
    record("results/other", job.run, **change)
    benchmark(f"results/other/benchmarks/train/{job.run.folder}.tsv", 100, 60)
    assert known(study, job) == []


def test_a_cpu_tells_nothing_of_a_gpu(study):
    job = job_of(study, "train")
    record("results/demo", job.run)
    benchmark(f"results/demo/benchmarks/train/{job.run.folder}.tsv", 100, 60)
    on_gpu = Job(job.rule, job.wildcards, job.patterns, job.inputs, job.run, gpu=1)
    assert known(study, job) and not known(study, on_gpu)


def test_sampling_is_scaled_by_draws_and_units(study):
    job = job_of(study, "sample")
    record("results/other", job.run)
    drawn("results/other", job.run, draws=job.run.sampling["draws"] * 2, units=50, test_units=100)
    benchmark(f"results/other/benchmarks/sample/{job.run.folder}.tsv", 100, 60)
    (past,) = known(study, job)
    assert past.scale == pytest.approx(0.5 * 100 / 50)


def test_another_slide_of_the_data_set_tells_and_another_data_set_does_not(study):
    job = next(job for job in study_jobs(study).values() if job.rule == "slide")
    benchmark("results/demo/benchmarks/slide/her2st/C1.tsv", 900, 900)
    assert known(study, job) == []
    benchmark("results/demo/benchmarks/slide/simulated/another.tsv", 10, 8)
    one = estimate(job, ask(job), known(study, job))
    assert (one.basis, one.cpu_s) == ("scaled", 8)


def test_a_figure_of_another_study_tells_nothing(study):
    job = next(job for job in study_jobs(study).values() if job.rule == "figure")
    pattern = "results/demo/benchmarks/figure/{figure,[^/]+}.tsv"
    benchmark(f"results/other/benchmarks/figure/{job.wildcards['figure']}.tsv", 10, 8)
    assert Benchmarks(study.config.results).of(job, pattern) == []
    benchmark(f"results/demo/benchmarks/figure/{job.wildcards['figure']}.tsv", 10, 8)
    assert [past.same_job for past in Benchmarks(study.config.results).of(job, pattern)] == [True]


def test_a_floor_that_deals_out_half_of_the_tiles_did_all_it_could(study):
    job = job_of(study, "sample", "real_against_real")
    record("results/demo", job.run)
    units = min(50, job.run.sampling["max_units"] or 50)
    drawn("results/demo", job.run, draws=job.run.sampling["draws"], units=units, test_units=100)
    benchmark(f"results/demo/benchmarks/sample/{job.run.folder}.tsv", 100, 60)
    assert [past.same_job for past in known(study, job)] == [True]


@pytest.mark.parametrize("text", ["", HEAD, "s\tcpu_time\nNA\t1\n", "\x00"])
def test_a_broken_benchmark_counts_as_none(tmp_path, text):
    (tmp_path / "broken.tsv").write_text(text)
    assert read_benchmark(tmp_path / "broken.tsv") is None


def test_a_job_too_short_to_be_looked_at_has_its_wall_time(study):
    job = next(job for job in study_jobs(study).values() if job.rule == "slide")
    benchmark("results/demo/benchmarks/slide/simulated/another.tsv", 0.5, "NA", rss="-")
    one = estimate(job, ask(job), known(study, job))
    assert (one.cpu_s, one.mem_mb) == (0.5, 1000)


# --- sums -------------------------------------------------------------------------------------------------------------


def test_sums_add_up_whatever_the_grouping(study):
    jobs = jobs_of([file for _, files in study.targets.values() for file in files], study_jobs(study))
    every = estimates(jobs, ask, Benchmarks(study.config.results))
    whole = total(every)
    parts = [total([one for one in every if one.job.rule == rule]) for rule in {one.job.rule for one in every}]
    assert sum(part.jobs for part in parts) == whole.jobs == len(jobs)
    assert sum(part.cpu_h for part in parts) == pytest.approx(whole.cpu_h)
    assert whole.mem_mb == max(part.mem_mb for part in parts)
    assert whole.bounded and sum(whole.bases.values()) == whole.jobs


def test_downloads_count_what_is_not_there_and_say_what_is_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = {"known": 1000, "there": 500, "unknown": None}
    Path("there").write_bytes(b"x" * 7)
    jobs = [Job("fetch", {}, (k,), (), sizes={} if v is None else {k: v}) for k, v in sizes.items()]
    sums = total(estimate(job, Asked(1, 600, 500, None), []) for job in jobs)
    assert (sums.downloads, sums.download_bytes, sums.downloads_unknown) == (2, 1000, 1)
    assert (sums.cpu_h, sums.bases, sums.size_bytes) == (0, {"not counted": 3}, 1007)


def test_a_bound_is_marked_in_the_table_and_a_measured_sum_is_not(study):
    slide = next(job for job in study_jobs(study).values() if job.rule == "slide")
    train = job_of(study, "train")
    past = Past(3600, 7200, 50, 1000, same_job=True, scale=1)
    text = by_rule([estimate(slide, ask(slide), [past]), estimate(train, ask(train), [])])
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:]] for line in text.splitlines()}
    assert rows["slide"][2] == "2.0" and rows["slide"][6] == "1 measured"
    assert rows["train"][2] == "<= 0.3" and rows["train"][5] == "?"
    assert rows["all rules"][2] == "<= 2.3" and rows["all rules"][0] == "2"
