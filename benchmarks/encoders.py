"""Embedding through the encoder interface, as a ratio to the bare network's forward in the same run and precision.

    PYTHONPATH=src python benchmarks/encoders.py [--encoders resnet50 uni] [--batches 4] [--image slide.svs]

Both sides start from the same pixels in memory. The bare network gets them as its finished input: resized, normalised,
on its device. The interface gets uint8 tiles, of the network's size and (told beside it) larger ones that it has to
resize. Networks have their full size and random weights, for speed does not depend on the numbers; they are loaded
from a file as the hub lays it out. Rounds alternate; time is the wall's on a GPU and the processor's on a CPU.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rows import Row, add_options, give, processor
from safetensors.torch import save_file
from slides import one_core, picture, source_name, take_picture

from stmorph.encoders.facts import FACTS
from stmorph.encoders.load import MORPHOMETRIC, load_encoder
from stmorph.encoders.networks import build

GOAL = 95


def tiles(n: int, side: int) -> np.ndarray:
    image = picture()
    corner = np.random.default_rng(0).integers(0, np.array(image.shape[:2]) - side + 1, (n, 2))
    return np.stack([image[y : y + side, x : x + side] for y, x in corner])


def weights(name: str, folder: Path) -> Path:
    """Write random weights as the hub's file of encoder `name` holds them."""
    torch.manual_seed(0)
    network = build(FACTS[name]).to_empty(device="cpu")
    for key, value in network.state_dict().items():
        torch.nn.init.constant_(value, 1) if value.ndim < 2 else torch.nn.init.normal_(value, std=0.02)
        if key.endswith("running_mean"):
            value.zero_()
    prefix = {"timm vit": ("trunk.", ""), "conch": ("", "visual."), "resnet50": ("", "")}[FACTS[name].family]
    state = {prefix[1] + key.removeprefix(prefix[0]): value for key, value in network.state_dict().items()}
    save_file(state, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def seconds(call, device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def compare(name: str, batches: int, rounds: int, folder: Path) -> Row:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 64 if device == "cuda" else 4
    encoder = load_encoder(name, {"weights": str(weights(name, folder)), "batch": batch}, device)
    pixels = tiles(batches * batch, encoder.input_px)
    large = tiles(batches * batch, encoder.input_px * 4 // 3)
    with torch.inference_mode():
        parts = [
            encoder.prepare(torch.from_numpy(pixels[start : start + batch]).to(device))
            for start in range(0, len(pixels), batch)
        ]

    def bare():
        with torch.inference_mode(), encoder._autocast():
            for part in parts:
                encoder.network(part)

    calls = {"bare": bare, "ours": lambda: encoder.encode(pixels, 0.5), "resized": lambda: encoder.encode(large, 0.5)}
    spent = {kind: [] for kind in calls}
    for _ in range(rounds + 1):
        for kind, call in calls.items():
            spent[kind].append(seconds(call, device))
    rate = {kind: len(pixels) / np.median(values[1:]) for kind, values in spent.items()}
    note = f"{rate['ours']:.1f} of {rate['bare']:.1f} tiles/s on {device}; resized from {large.shape[1]} px "
    note += f"{100 * rate['resized'] / rate['bare']:.0f} %"
    return Row(f"embedding, {name}", "bare network's forward", 100 * rate["ours"] / rate["bare"], GOAL, "%", note)


def morphometric() -> None:
    encoder = load_encoder(MORPHOMETRIC)
    for side, um_per_px in ((64, 1.0), (224, 0.5)):
        batch = tiles(2**18 // side**2, side)
        encoder.encode(batch[:1], um_per_px)
        spent = seconds(lambda e=encoder, b=batch, u=um_per_px: e.encode(b, u), "cpu")
        print(f"{MORPHOMETRIC} {side} px: {len(batch) / spent:.1f} tiles/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [name for name in FACTS if FACTS[name].family != "hf vit"]
    parser.add_argument("--encoders", nargs="*", default=["resnet50"], choices=known)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    arguments = parser.parse_args()
    take_picture(arguments.image)
    if not torch.cuda.is_available():
        one_core()
        torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "one core"
    print(f"{processor()}, {device}; {source_name()}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.encoders:
            rows.append(compare(name, arguments.batches, arguments.rounds, Path(folder)))
            print(" | ".join(rows[-1].cells()), flush=True)
    morphometric()
    give(rows, arguments.rows)


if __name__ == "__main__":
    main()
