"""Pretrained encoders: small random networks are saved in the hub's own layouts and loaded through the real code."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hub_server import COMMIT, serving
from safetensors.torch import save_file
from study import study
from timm.layers import SwiGLUPacked
from torchvision.models import resnet50

from stmorph.config.schema import StudyConfig
from stmorph.config.weights import weight_sources
from stmorph.encoders.facts import FACTS
from stmorph.encoders.joined import open_encoder
from stmorph.encoders.load import load_encoder
from stmorph.encoders.networks import build
from stmorph.errors import ConfigError, WeightsError
from stmorph.fetch import fetch
from stmorph.fetch.lock import LOCK_NAME, read_lock

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
#: What replaces the published architecture in these tests; the rest of it (registers, SwiGLU, layer scale) stays.
ARCHITECTURE = {
    "uni": SMALL,
    "uni2-h": SMALL,
    "conch": {**SMALL, "pool_dim": 16, "pool_heads": 2},
    "virchow2": SMALL,
    "h-optimus-0": SMALL,
    "phikon": SMALL,
}
DIM = {"uni": 24, "uni2-h": 24, "conch": 16, "virchow2": 48, "h-optimus-0": 24, "phikon": 24, "resnet50": 2048}
TILES = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)


def randomise(module):
    """Numbers that matter: timm's start has zeros for biases and nearly zero layer scales, which hide a wrong place."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return module.eval()


def random_resnet():
    """torchvision's own start, with batch statistics that are not those of the start."""
    network = resnet50(weights=None)
    generator = torch.Generator().manual_seed(0)
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.copy_(0.02 * torch.randn(value.shape, generator=generator))
        if key.endswith("running_var"):
            value.copy_(0.3 + 0.2 * torch.rand(value.shape, generator=generator))
    return network.eval()


def published(name):
    """The network as its model card builds it, with timm alone and in a small size."""
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU}
    call = {
        "uni": lambda: timm.create_model("vit_large_patch16_224", init_values=1e-5, dynamic_img_size=True, **SMALL),
        "uni2-h": lambda: timm.create_model(
            "vit_giant_patch14_224",
            init_values=1e-5,
            mlp_ratio=2.66667 * 2,
            no_embed_class=True,
            reg_tokens=8,
            dynamic_img_size=True,
            **gated,
            **SMALL,
        ),
        "virchow2": lambda: timm.create_model(
            "vit_huge_patch14_224",
            init_values=1e-5,
            reg_tokens=4,
            mlp_ratio=5.3375,
            dynamic_img_size=True,
            **gated,
            **SMALL,
        ),
        "h-optimus-0": lambda: timm.create_model("vit_giant_patch14_reg4_dinov2", init_values=1e-5, **SMALL),
        "phikon": lambda: timm.create_model("vit_base_patch16_224", **SMALL),
        "conch": lambda: timm.create_model("vit_base_patch16_224", dynamic_img_size=True, **SMALL),
    }[name]
    network = call()
    network.reset_classifier(0)
    return randomise(network)


def as_hf(state, depth=2):
    """A timm ViT's tensors under the names of Hugging Face's ViTModel."""
    rename = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    rename |= {"attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    result = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "pooler.dense.weight": torch.zeros(24, 24),
        "pooler.dense.bias": torch.zeros(24),
    }
    for end in ("weight", "bias"):
        result[f"embeddings.patch_embeddings.projection.{end}"] = state[f"patch_embed.proj.{end}"]
        result[f"layernorm.{end}"] = state[f"norm.{end}"]
        for i in range(depth):
            for ours, theirs in rename.items():
                result[f"encoder.layer.{i}.{theirs}.{end}"] = state[f"blocks.{i}.{ours}.{end}"]
            for part, value in zip(("query", "key", "value"), state[f"blocks.{i}.attn.qkv.{end}"].chunk(3)):
                result[f"encoder.layer.{i}.attention.attention.{part}.{end}"] = value.clone()
    return result


def as_conch(state):
    """A whole CoCa file: the image tower among keys of the text side and of the heads that are not used."""
    pool = torch.nn.MultiheadAttention(16, 2, kdim=24, vdim=24, batch_first=True)
    generator = torch.Generator().manual_seed(1)
    extra = {f"visual.attn_pool_contrast.attn.{key}": value for key, value in randomise(pool).state_dict().items()}
    for key, size in {"ln_q": 16, "ln_k": 24}.items():
        extra[f"visual.attn_pool_contrast.{key}.weight"] = torch.rand(size, generator=generator)
        extra[f"visual.attn_pool_contrast.{key}.bias"] = torch.rand(size, generator=generator)
    extra["visual.attn_pool_contrast.query"] = torch.randn(1, 16, generator=generator)
    extra["visual.ln_contrast.weight"] = torch.rand(16, generator=generator)
    extra["visual.ln_contrast.bias"] = torch.rand(16, generator=generator)
    for unused in ("visual.proj_contrast", "visual.attn_pool_caption.query", "visual.ln_caption.weight", "logit_scale"):
        extra[unused] = torch.zeros(3)
    extra["text.transformer.resblocks.0.ln_1.weight"] = extra["text_decoder.cross_attn.0.ln_1.weight"] = torch.zeros(3)
    return {**{f"visual.trunk.{key}": value for key, value in state.items()}, **extra}


def save(name, folder):
    """Save a random network in its hub layout; return the network (timm's or torchvision's) and the whole state."""
    folder.mkdir(parents=True, exist_ok=True)
    network = random_resnet() if name == "resnet50" else published(name)
    state = network.state_dict()
    state = {"phikon": as_hf, "conch": as_conch}.get(name, dict)(state)
    file = folder / FACTS[name].files[0]
    if file.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, file)
    else:
        torch.save(state, file)
    (folder / "config.json").write_text(json.dumps({"architecture": name}))
    return network, state


def expected(name, network, state, encoder):
    """The embedding of TILES by the model card's recipe."""
    images = encoder.prepare(torch.from_numpy(TILES))
    with torch.inference_mode():
        if name == "resnet50":
            network.fc = torch.nn.Identity()
            return network(images).numpy()
        tokens = network.forward_features(images)
        if name == "virchow2":  # 1 class token and 4 registers, then the patches
            return torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], -1).numpy()
        if name != "conch":
            return network(images).numpy()
        get = {key.removeprefix("visual."): value for key, value in state.items()}
        pool = torch.nn.MultiheadAttention(16, 2, kdim=24, vdim=24, batch_first=True).eval()
        start = "attn_pool_contrast.attn."
        pool.load_state_dict({k.removeprefix(start): v for k, v in get.items() if k.startswith(start)})

        def normal(x, key):
            return torch.nn.functional.layer_norm(x, x.shape[-1:], get[f"{key}.weight"], get[f"{key}.bias"])

        keys = normal(tokens, "attn_pool_contrast.ln_k")
        query = normal(get["attn_pool_contrast.query"], "attn_pool_contrast.ln_q")[None].repeat(len(tokens), 1, 1)
        return normal(pool(query, keys, keys)[0][:, 0], "ln_contrast").numpy()


def options(name, weights, **more):
    px = {} if name == "resnet50" else {"architecture": ARCHITECTURE[name]}
    return {"weights": str(weights), "input_px": 32, **px, **more}


@pytest.mark.parametrize("name", list(FACTS))
def test_every_network_loads_from_its_hub_layout_and_gives_its_cards_embedding(name, tmp_path):
    network, state = save(name, tmp_path)
    encoder = load_encoder(name, options(name, tmp_path, batch=2))
    found = encoder.encode(TILES, 0.5)
    assert found.dtype == np.float32 and found.shape == (5, DIM[name]) and encoder.dim == DIM[name]
    assert (found.std(0) > 0).mean() > 0.5
    wanted = expected(name, network, state, encoder)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4 * wanted.std())
    file = tmp_path / FACTS[name].files[0]
    assert encoder.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert encoder.name == name and encoder.features == ()


@pytest.mark.parametrize(
    ("name", "millions", "dim"),
    [
        ("uni", 303.35, 1024),
        ("uni2-h", 681.39, 1536),
        ("virchow2", 631.24, 2560),
        ("h-optimus-0", 1134.77, 1536),
        ("phikon", 85.80, 768),
        ("resnet50", 23.51, 2048),
        ("conch", 86.25 + 1.07, 512),
    ],
)
def test_full_size_has_the_published_number_of_parameters(name, millions, dim):
    network = build(FACTS[name])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.25)
    assert network.dim == dim == FACTS[name].dim
    assert all(p.is_meta for p in network.parameters())


def test_weights_are_found_as_a_file_and_in_a_hub_cache(tmp_path):
    save("uni", tmp_path / "plain")
    file = tmp_path / "plain" / "pytorch_model.bin"
    repository = tmp_path / "hub" / "models--MahmoodLab--UNI"
    for commit in ("aaa", "bbb"):
        (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb")
    (repository / "snapshots" / "aaa" / "pytorch_model.bin").write_bytes(b"an older one")
    shutil.copy(file, repository / "snapshots" / "bbb")
    first = load_encoder("uni", options("uni", file)).encode(TILES, 0.5)
    for place in (tmp_path / "plain", tmp_path / "hub", repository):
        np.testing.assert_array_equal(load_encoder("uni", options("uni", place)).encode(TILES, 0.5), first)


def test_half_precision_files_are_used_as_float32(tmp_path):
    _, state = save("uni", tmp_path)
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "pytorch_model.bin")
    encoder = load_encoder("uni", options("uni", tmp_path))
    assert {p.dtype for p in encoder.network.parameters()} == {torch.float32}


def test_bfloat16_autocast_stays_near_float32(tmp_path):
    save("uni", tmp_path)
    exact = load_encoder("uni", options("uni", tmp_path)).encode(TILES, 0.5)
    rough = load_encoder("uni", options("uni", tmp_path, precision="bfloat16")).encode(TILES, 0.5)
    assert rough.dtype == np.float32 and not np.array_equal(rough, exact)
    assert np.corrcoef(rough.ravel(), exact.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["uni", "conch"])
def test_tiles_are_resized_with_antialiasing_and_normalised(name, tmp_path):
    save(name, tmp_path)
    encoder = load_encoder(name, options(name, tmp_path))
    stripes = np.zeros((1, 128, 128, 3), np.uint8)
    stripes[:, :, ::2] = 255  # finer than the input can show: only a filter gives the mean
    shown = encoder.prepare(torch.from_numpy(stripes))
    assert shown.shape == (1, 3, 32, 32)
    mean, std = (np.array(v)[:, None, None] for v in (encoder.facts.mean, encoder.facts.std))
    np.testing.assert_allclose(shown[0].numpy() * std + mean, 0.5, atol=0.05)


def test_a_row_does_not_depend_on_its_batch(tmp_path):
    save("uni2-h", tmp_path)
    together = load_encoder("uni2-h", options("uni2-h", tmp_path)).encode(TILES, 0.5)
    alone = load_encoder("uni2-h", options("uni2-h", tmp_path, batch=1)).encode(TILES, 0.5)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_the_wrong_file_is_named_with_its_first_keys(tmp_path):
    _, state = save("uni", tmp_path)
    file = tmp_path / "pytorch_model.bin"
    wrong = {**state, "surplus": torch.zeros(1), "cls_token": torch.zeros(1, 1, 25)}
    del wrong["norm.weight"]
    torch.save(wrong, file)
    with pytest.raises(WeightsError) as caught:
        load_encoder("uni", options("uni", tmp_path))
    for part in (str(file), "1 keys missing (trunk.norm.weight)", "1 keys unknown (trunk.surplus)", "[1, 1, 25]"):
        assert part in str(caught.value)
    torch.save(as_hf(state), file)
    with pytest.raises(WeightsError, match=r"keys unknown .*embeddings\.cls_token"):
        load_encoder("uni", options("uni", tmp_path))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "list"])
@pytest.mark.parametrize("name", ["uni", "virchow2"])
def test_a_damaged_file_is_named(name, content, tmp_path):
    file = tmp_path / FACTS[name].files[0]
    if content == "list":
        torch.save([1, 2], file)
    else:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{file.name} cannot be read"):
        load_encoder(name, options(name, tmp_path))


def test_a_file_with_code_is_not_run(tmp_path):
    file, mark = tmp_path / "pytorch_model.bin", tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (mark,))

    torch.save({"cls_token": Evil()}, file)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_encoder("uni", options("uni", file))
    assert not mark.exists()


def test_absent_paths_and_empty_folders_say_what_was_expected(tmp_path):
    with pytest.raises(WeightsError, match=r"does not exist.*pytorch_model\.bin.*huggingface\.co/MahmoodLab/UNI"):
        load_encoder("uni", options("uni", tmp_path / "nowhere"))
    (tmp_path / "README.md").touch()
    with pytest.raises(WeightsError, match=r"holds README\.md where one of model\.safetensors, pytorch_model\.bin"):
        load_encoder("virchow2", options("virchow2", tmp_path))


def test_unknown_options_are_listed():
    with pytest.raises(ConfigError, match=r"wheights.*allowed keys are weights"):
        load_encoder("uni", {"wheights": "x"})


# --- fetched weights --------------------------------------------------------------------------------------------------


def test_weights_that_are_not_given_are_not_looked_for_on_the_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    with pytest.raises(WeightsError, match=r"are not given; name a file by the option `weights` .*MahmoodLab/UNI"):
        load_encoder("uni", {})


def test_fetched_weights_give_the_same_vectors_as_a_local_file(tmp_path, monkeypatch):
    """From the study's entry over a gated hub to the encoder, one after the other as the rules do it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "good-token")
    model, own = "uni+phikon", {one: {"architecture": SMALL, "input_px": 32} for one in ("uni", "phikon")}
    config = StudyConfig.model_validate(study(encoders={"two": {"model": model, "options": own}}))
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.token = "good-token"
        for name in ("uni", "phikon"):
            save(name, tmp_path / name)
            file = FACTS[name].files[0]
            hub.files["model", FACTS[name].hub_id] = {file: (tmp_path / name / file).read_bytes()}
        sources = weight_sources("two", config)
        for source in sources.values():
            fetch(source, config.downloads)
    assert [source.path for source in sources.values()] == [
        "downloads/weights/MahmoodLab/UNI/main/pytorch_model.bin",
        "downloads/weights/owkin/phikon/main/model.safetensors",
    ]
    paths = [source.path for source in sources.values()]
    noted = read_lock(tmp_path / "downloads" / LOCK_NAME)["hub:model:MahmoodLab/UNI@main/pytorch_model.bin"]
    assert noted["commit"] == COMMIT
    monkeypatch.setattr("socket.socket.connect", None)  # as on a compute node
    joined = open_encoder(model, own, paths, "cpu")
    parts = [load_encoder(name, options(name, tmp_path / name)).encode(TILES, 0.5) for name in ("uni", "phikon")]
    np.testing.assert_array_equal(joined.encode(TILES, 0.5), np.concatenate(parts, axis=1))
    assert joined.weights_sha256.split("+")[0] == noted["sha256"]
    with pytest.raises(ConfigError, match="has 2 networks and 1 files of weights"):
        open_encoder(model, own, paths[:1], "cpu")
