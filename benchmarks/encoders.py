"""Tiles a second of the encoders on one core: `python benchmarks/encoders.py [encoder ...]`.

Pretrained networks are timed at full size with random weights, for their speed does not depend on the numbers.
"""

import sys
import time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from stmorph.encoders.facts import FACTS
from stmorph.encoders.load import MORPHOMETRIC, load_encoder
from stmorph.encoders.networks import build


def tiles(n, side):
    rng = np.random.default_rng(0)
    return np.clip(gaussian_filter(rng.normal(170, 350, (n, side, side, 3)), (0, 2, 2, 0)), 0, 255).astype(np.uint8)


def measured(call, n):
    call()
    start = time.perf_counter()
    call()
    return n / (time.perf_counter() - start)


def main(names):
    torch.set_num_threads(1)
    for name in names:
        if name == MORPHOMETRIC:
            encoder = load_encoder(name)
            for side, um_per_px in ((16, 4.0), (32, 2.0), (64, 1.0), (128, 0.5), (224, 0.5)):
                batch = tiles(2**18 // side**2, side)
                rate = measured(lambda e=encoder, b=batch, u=um_per_px: e.encode(b, u), len(batch))
                print(f"{name:14} {side:4} px {rate:10.1f} tiles/s")
        else:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            network = build(FACTS[name]).to_empty(device=device)
            for value in network.parameters():
                torch.nn.init.normal_(value, std=0.02)
            n, px = 2 if device == "cpu" else 64, FACTS[name].input_px
            images = torch.zeros(n, 3, px, px, device=device)

            def call(network=network, images=images):
                with torch.inference_mode():
                    network(images).sum().item()

            print(f"{name:14} {px:4} px {measured(call, n):10.1f} tiles/s ({device}, float32)")


if __name__ == "__main__":
    main(sys.argv[1:] or [MORPHOMETRIC])
