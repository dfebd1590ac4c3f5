"""The registry of data sets: every sample of the five papers, with an origin, a licence and an owner for each."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from study import STUDY

from stmorph.config.dataset_schema import ArchiveEntry, DatasetConfig
from stmorph.config.load import read_yaml
from stmorph.config.schema import StudyConfig
from stmorph.config.sources import every_source, slide_sources
from stmorph.read import READERS

ROOT = Path(__file__).parents[2]
FILES = {file.stem: file for file in sorted((ROOT / "config" / "datasets").glob("*.yaml"))}
OURS = {"simulated", "mob", "her2st"}
"""In use before the registry; what holds for published samples need not hold for them."""
HOSTS = {
    "cf.10xgenomics.com",
    "s3-us-west-2.amazonaws.com",
    "zenodo.org",
    "raw.githubusercontent.com",
    "data.broadinstitute.org",
}
WITHOUT_EXPRESSION = {"spider"}
"""Read by `stmorph.read.spider` as tiles, not as slides."""
HUBS = {"MahmoodLab/hest"} | {f"histai/SPIDER-{organ}" for organ in ("skin", "colorectal", "thorax", "breast")}


class _OnceLoader(yaml.SafeLoader):
    """Refuses a mapping that names a key twice, of which YAML would silently keep the last."""


def _once(loader: yaml.Loader, node: yaml.Node) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"{sorted(twice)} twice at {node.start_mark}"
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value)}


_OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _once)


def dataset(name: str) -> DatasetConfig:
    return DatasetConfig.model_validate(read_yaml(FILES[name]))


def config(tmp_path: Path, **changes) -> StudyConfig:
    return StudyConfig.model_validate({**STUDY, "downloads": str(tmp_path), **changes})


def entries(name: str) -> list[ArchiveEntry]:
    """Return all that a data set says may be fetched."""
    one = dataset(name)
    files = [*one.files.values(), *one.gene_sets.values()]
    files += [file for slide in one.slides.values() for file in slide.files.values()]
    return [*one.archives.values(), *(file for file in files if isinstance(file, ArchiveEntry))]


def people(name: str) -> set[str]:
    return {slide.patient for slide in dataset(name).slides.values()}


# --- every file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_keys_stand_there_once_and_fit_the_schema(name):
    content = yaml.load(FILES[name].read_text("utf-8"), _OnceLoader)
    found = DatasetConfig.model_validate(content)
    assert found.licence.strip() and found.attribution.strip() and found.title.strip()
    assert found.citation.strip(), "papers are to be cited"
    assert found.homepage or name == "simulated"


@pytest.mark.parametrize("name", FILES)
def test_the_reader_gets_its_roles_and_options(name):
    one = dataset(name)
    if one.reader in WITHOUT_EXPRESSION:
        assert set(one.files) == {"image"}  # no counts: no slide of a study
        return
    reader = READERS[one.reader]
    drawn = {"truth", "truth_json"} if one.simulate is not None else set()
    for slide in one.slides.values():
        roles = {**one.files, **slide.files}.keys() - drawn
        assert roles <= reader.roles.keys()
        assert {role for role, needed in reader.roles.items() if needed} <= roles
        reader.Options.model_validate({**one.reader_options, **slide.reader_options})


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_an_origin_or_a_place_below_data_root(name, tmp_path):
    one = dataset(name)
    for key, source in every_source(name, one, config(tmp_path)):
        assert "{" not in source.path, key
        if source.address is None and one.simulate is None:
            # Not to be fetched: the file must be findable on disk, and the YAML must say why it is not fetched.
            assert Path(source.path).is_relative_to(tmp_path / (one.root or name)), key
            assert source.unavailable or name in OURS or "# not verified" in FILES[name].read_text("utf-8"), key


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_checked_is_said(name):
    """A file without a digest is one that we could not check."""
    unchecked = [entry for entry in entries(name) if entry.fetched and entry.sha256 is None]
    if unchecked and name not in OURS:
        assert "# not verified" in FILES[name].read_text("utf-8")


@pytest.mark.parametrize("name", FILES)
def test_addresses_are_those_of_the_publishers(name):
    one = dataset(name)
    addresses = [url for entry in entries(name) for url in (entry.url, *entry.mirrors) if url]
    assert {urlsplit(url).hostname for url in addresses} <= HOSTS
    assert all(url.startswith("https://") for url in addresses)
    assert one.hub is None or one.hub.repo in HUBS
    # Both hubs give nothing to who has not accepted the terms.
    assert (one.hub is None) == (one.gate is None)
    assert one.gate is None or one.gate.page == f"https://huggingface.co/datasets/{one.hub.repo}"


def test_no_two_data_sets_fetch_different_files_to_one_path(tmp_path):
    taken = {}
    for name in FILES:
        for key, source in every_source(name, dataset(name), config(tmp_path)):
            for one in filter(None, (source, source.archive)):
                if one.address is not None:
                    first = taken.setdefault(one.path, (name, one))
                    assert first[1].address == one.address, (first[0], name, key)
                    assert None in (first[1].sha256, one.sha256) or first[1].sha256 == one.sha256


def test_data_below_data_root_are_found_without_fetching(tmp_path):
    """The layout on an air-gapped cluster is that of the YAML: HEST's own folders."""
    for path in ("st/ZEN48.h5ad", "wsis/ZEN48.tif"):
        (tmp_path / "hest" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hest" / path).touch()
    sources = slide_sources("hest_c2l_st", dataset("hest_c2l_st"), "ZEN48", config(tmp_path, data_root=str(tmp_path)))
    assert Path(sources["counts"].path).is_file() and Path(sources["image"].path).is_file()
    assert all(source.address is None for source in sources.values())


# --- what the papers use ----------------------------------------------------------------------------------------------


def test_genes2morphology():
    assert dataset("kidney_visium_hd").reader_options["pool"] == {"bins": 27, "stride": 5}
    assert set(dataset("kidney_visium").slides) == {"sample1"}
    hidden = dataset("kidney_proprietary")
    assert set(hidden.slides) == {f"sample{number}" for number in (2, 3, 4, 5)}
    assert "proprietary" in hidden.unavailable
    # Six samples in all, and GO Cellular Component of the mouse (Appendix F).
    assert len(hidden.slides) + 1 + 1 == 6
    assert dataset("kidney_visium").gene_sets["go_cc"].path.startswith("m5.go.cc")


def test_the_proprietary_kidneys_say_why(tmp_path):
    one = dataset("kidney_proprietary")
    for slide in one.slides:
        for source in slide_sources("kidney_proprietary", one, slide, config(tmp_path)).values():
            assert source.unavailable == one.unavailable and source.address is None


def test_stem():
    kidney = dataset("hest_kidney").slides
    assert set(kidney) == {f"NCBI{number}" for number in range(692, 715)}  # 23 sections
    assert len(people("hest_kidney")) == 22
    assert kidney["NCBI701"].patient == kidney["NCBI702"].patient  # cortex and medulla of one
    assert set(dataset("hest_her2st").slides) == {f"SPA{number}" for number in range(119, 155)}
    prostate = dataset("hest_prostate").slides
    assert set(prostate) == {f"MEND{number}" for number in range(139, 163)} - {"MEND155"} and len(prostate) == 23
    assert len(people("hest_prostate")) == 2
    assert set(dataset("hest_mouse_brain").slides) == {f"NCBI{number}" for number in range(658, 672)}  # 14 sections
    assert dataset("hest_mouse_brain").species == "mouse"
    held_out = {"hest_kidney": "NCBI697", "hest_her2st": "SPA148", "hest_prostate": "MEND145"}
    held_out |= {"hest_mouse_brain": "NCBI667"}
    assert all(slide in dataset(name).slides for name, slide in held_out.items())


def test_geneflow():
    assert set(dataset("xenium_skin").slides) == {"C1", "C2", "P1"}
    published = [archive.url for name, archive in dataset("xenium_skin").archives.items() if "geneflow" in name]
    assert len(published) == 3 and all("zenodo.org/records/17429142/files/" in url for url in published)
    samples = dataset("hest_xenium").slides
    assert len(samples) == 59
    lung = {name: slide for name, slide in samples.items() if slide.patient.startswith("GSE250346.")}
    assert len(lung) == 20 and len({slide.patient for slide in lung.values()}) == 15
    assert {slide.organ for slide in lung.values()} == {"lung"}
    assert len({slide.organ for slide in samples.values()}) == 13


def test_c2l_st_and_bleep():
    assert set(dataset("hest_c2l_st").slides) == {"ZEN48", "TENX13", "MEND40", "MEND90"}
    assert len(people("hest_c2l_st")) == 4
    assert set(dataset("hest_liver").slides) == {f"NCBI{number}" for number in range(672, 676)}
    assert len(people("hest_liver")) == 1
    assert {name for name in FILES if name.startswith("spider_")} == {
        f"spider_{organ}" for organ in ("skin", "colorectal", "thorax", "breast")
    }


def test_ge2hist():
    assert len(dataset("visium_hd_colon").slides) == 1
    assert set(dataset("visium_hd_breast").slides) == {"fresh_frozen", "fresh_frozen_ultima", "ffpe"}
    for name in ("visium_hd_colon", "visium_hd_breast"):
        one = dataset(name)
        # Bins inside nuclei are made of the finest bins.
        assert one.reader_options == {"bin_um": 2} and "square_002um" in one.files["counts"].path


def test_her2st_all_is_the_whole_set_and_agrees_with_the_checked_part(tmp_path):
    every, part = dataset("her2st_all"), dataset("her2st")
    sections = {f"{p}{i}" for p in "ABCD" for i in range(1, 7)} | {f"{p}{i}" for p in "EFGH" for i in range(1, 4)}
    assert set(every.slides) == sections and len(sections) == 36
    assert all(slide.patient == name[0] for name, slide in every.slides.items())
    for slide in part.slides:
        ours, theirs = (
            slide_sources(name, one, slide, config(tmp_path)) for name, one in (("her2st", part), ("her2st_all", every))
        )
        assert {role: (s.address, s.sha256, s.size_bytes) for role, s in ours.items()} == {
            role: (s.address, s.sha256, s.size_bytes) for role, s in theirs.items()
        }
        assert all(source.sha256 and source.size_bytes for source in ours.values())
        assert every.slides[slide].um_per_px == part.slides[slide].um_per_px


def test_sections_are_the_same_in_both_forms_of_her2st():
    """HEST-1k numbers them backwards: SPA154 is A1, SPA119 is H3."""
    hest = [slide for _, slide in sorted(dataset("hest_her2st").slides.items(), key=lambda item: -int(item[0][3:]))]
    plain = [slide for _, slide in sorted(dataset("her2st_all").slides.items())]
    assert [slide.patient for slide in hest] == [f"her2st.{slide.patient}" for slide in plain]
    assert [slide.um_per_px for slide in hest] == pytest.approx([slide.um_per_px for slide in plain], abs=5e-5)


# --- whose tissue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES.keys() - OURS - {"her2st_all"}))
def test_patients_are_named_with_their_study(name):
    assert all(re.fullmatch(r"[A-Za-z0-9_]+\.[A-Za-z0-9_.]+", person) for person in people(name))


def test_one_person_has_one_name():
    samples, skin = dataset("hest_xenium").slides, dataset("xenium_skin").slides
    for ours, theirs in (("C1", "TENX115"), ("C2", "TENX117"), ("P1", "TENX158")):
        assert skin[ours].patient == samples[theirs].patient
        assert skin[ours].um_per_px == samples[theirs].um_per_px
    assert people("visium_hd_colon") == {samples["TENX148"].patient}
    assert len({samples[name].patient for name in ("TENX147", "TENX148", "TENX149")}) == 3


# --- docs/datasets.md -------------------------------------------------------------------------------------------------


def test_the_page_tells_what_the_files_say():
    page = (ROOT / "docs" / "datasets.md").read_text("utf-8")
    row = r"^\| `(\w+)` \| [^|]+ \| (\d+) \| (\d+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \|$"
    rows = re.findall(row, page, re.MULTILINE)
    assert {row[0] for row in rows} == set(FILES)
    for name, slides, persons, reader, licence, how in rows:
        one = dataset(name)
        assert (int(slides), int(persons), reader) == (len(one.slides), len(people(name)), one.reader), name
        assert licence in one.licence, name
        assert ("token" in how or "terms" in how) == (one.gate is not None), name
        assert ("nobody" in how) == (one.unavailable is not None), name
