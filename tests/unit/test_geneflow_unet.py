import pytest
import torch

from stmorph.methods.geneflow.options import PictureOptions
from stmorph.methods.geneflow.unet import UNet, sinusoid

SMALL = {"embedding_dim": 12, "base": 8, "multipliers": (1, 2), "blocks": 1, "head_channels": 4}


def unet(alive=True, **options) -> UNet:
    torch.manual_seed(0)
    network = UNet(PictureOptions(**(SMALL | options)), 3).eval()
    if alive:  # its last layers start at zero, which would hide everything
        for weight in network.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.1)
    return network


@pytest.mark.parametrize("px", [32, 64, 256])
def test_picture_keeps_its_shape_at_every_tile_size(px):
    network = unet(multipliers=(1, 1, 2, 2), attention_factors=(8,))
    with torch.no_grad():
        assert network(torch.randn(1, 3, px, px), torch.rand(1), torch.randn(1, 12)).shape == (1, 3, px, px)


def test_output_starts_at_zero():
    assert not unet(alive=False)(torch.randn(2, 3, 16, 16), torch.rand(2), torch.randn(2, 12)).any()


@pytest.mark.parametrize("which", ["paper", "fixed"])
@pytest.mark.parametrize("patch", [1, 2])
def test_output_depends_on_time_condition_and_the_whole_picture(which, patch):
    network = unet(conditioning=which, patch=patch)
    x, t, z = torch.randn(1, 3, 16, 16), torch.tensor([0.3]), torch.randn(1, 12)
    with torch.no_grad():
        y = network(x, t, z)
        assert (network(x, t + 0.3, z) - y).abs().max() > 1e-4
        assert (network(x, t, z + 1) - y).abs().max() > 1e-4
        far = x.clone()
        far[..., 0, 0] += 5
        assert (network(far, t, z) - y)[..., -1, -1].abs().max() > 0


def test_rows_do_not_interact():
    network = unet()
    x, t, z = torch.randn(3, 3, 16, 16), torch.rand(3), torch.randn(3, 12)
    with torch.no_grad():
        torch.testing.assert_close(network(x, t, z)[1:2], network(x[1:2], t[1:2], z[1:2]), rtol=1e-4, atol=1e-5)


def test_every_weight_gets_a_gradient():
    network = unet(attention_factors=(1,))
    network(torch.randn(2, 3, 16, 16), torch.rand(2), torch.randn(2, 12)).square().sum().backward()
    # A GroupNorm before an additive constant per channel can cancel a bias, so only absence is a defect.
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_times_are_told_apart_only_when_scaled():
    t = torch.tensor([0.40, 0.42])
    apart = [(sinusoid(t * scale, 128)[0] - sinusoid(t * scale, 128)[1]).norm() for scale in (1, 1000)]
    assert apart[1] > 20 * apart[0]


def test_full_size_is_the_papers():
    network = UNet(PictureOptions(), 3)
    resolutions = [256 // 2**level for level in range(4)]
    assert resolutions[-1] == 32 and network.middle[0].conv1.in_channels == 256
    assert network.time[-1].out_features == 512


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_padding_leaves_an_even_picture_even(padding):
    x, t, z = torch.full((1, 3, 16, 16), 0.5), torch.tensor([0.3]), torch.randn(1, 12)
    with torch.no_grad():
        even, rimmed = (unet(padding=p)(x, t, z).std((2, 3)).max() for p in (padding, "zeros"))
    assert even < 1e-5 < 1e-3 < rimmed
