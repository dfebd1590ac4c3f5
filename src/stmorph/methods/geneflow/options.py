"""GeneFlow's hyper-parameters and every point where the paper, its public code and a mended version differ.

A switch is `paper`, `code` or `fixed`; where two of them mean the same, both names are accepted.
"""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ...flow.path import NoiseDerivative, Shape
from ...flow.solver import Solver
from ..base import MethodOptions

Switch = Literal["paper", "code", "fixed"]


class PictureOptions(MethodOptions):
    """What GeneFlow and its diffusion comparator share: the expression encoder and the conditioned U-Net."""

    # Encoder (section 3.1 and appendix D.1)
    encoder: Literal["single", "multi"] = "single"
    """`single`: one expression vector per tile; `multi`: the cells of a tile, pooled by masked attention."""
    relation_rank: PositiveInt = 50
    """K of the gene relation; its last layer has 512 G K weights (128 million for 5000 genes at K = 50)."""
    relation_scale: float = 0.1
    relation_start: Literal["random", "zero"] = "zero"
    """`zero`: V is 0 at first, so that training starts from plain expression; `random`: the layer's usual start."""
    reading_start: Literal["random", "zero"] = "random"
    """`zero`: weights that read genes start at 0, so that a gene weighs by what was learned from it alone."""
    gene_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a unit's genes that training hides (0 in the scale of `input_scaling`); not in the paper. Genes that
    tell the same then share the weight, and a gene that tells nothing keeps none."""
    widths: tuple[PositiveInt, PositiveInt] = (512, 256)
    heads: PositiveInt = 4
    embedding_dim: PositiveInt = 512
    encoder_dropout: float = Field(0.1, ge=0, lt=1)
    # Ablations of appendix B.2
    gene_relation: bool = True
    gene_attention: bool = True
    head_mixture: bool = True
    feature_gate: bool = True
    # Differences in the encoder
    input_scaling: Switch = "fixed"
    """paper, code: log expression as it is; fixed: standardised by the training units' mean and standard deviation."""
    first_norm: Switch = "fixed"
    """paper, code: LayerNorm over a unit's genes; fixed: none, for it blows an average unit's noise up to full size."""
    gene_attention_scale: Switch = "fixed"
    """paper, code: softmax(a), which divides expression by about G; fixed: G softmax(a), 1 on average."""
    cell_block: Switch = "fixed"
    """paper: LayerNorm, Linear, SiLU, dropout; code, fixed: two linear layers with a skip, as "residual" says."""
    cell_attention: Switch = "fixed"
    """How a cell's weight is found. paper: w tanh(W e); code, fixed: LayerNorm, Linear, SiLU, Linear."""
    head_projection: Switch = "fixed"
    """paper: linear; code, fixed: LayerNorm, Linear, SiLU."""
    cell_count: Switch = "fixed"
    """paper, fixed: the number of cells is embedded and added (multi only); code: not told."""
    sparsity: float = Field(0.001, ge=0)
    """lambda of the L1 penalty."""
    sparsity_of: Switch = "fixed"
    """paper: sum of the first linear layer's weights; code: of the first LayerNorm's gains, which are no gene weights;
    fixed: of every weight that reads a gene, per output of its layer (so that lambda means the same at any width)."""

    guide: float = Field(0.0, ge=0)
    """Weight of a second loss, not in the paper: a linear map of the embedding must give each channel's mean and spread
    over the tile. It teaches the encoder which genes matter long before the velocity does; for short runs."""

    # U-Net (section 3.1 and appendix D.2)
    base: PositiveInt = 128
    multipliers: tuple[PositiveInt, ...] = (1, 2, 2, 2)
    blocks: PositiveInt = 2
    attention_factors: tuple[PositiveInt, ...] = ()
    """Downsampling factors with self-attention beside the middle block's (the code's `16` matches no level)."""
    head_channels: PositiveInt = 16
    dropout: float = Field(0.1, ge=0, lt=1)
    patch: PositiveInt = 1
    """Side of the pixel blocks that are folded into channels before the U-Net; 1 as in the paper, more is faster."""
    padding: Literal["zeros", "reflect", "replicate"] = "zeros"
    """What a convolution sees beyond the tile's rim; zeros as in the public code. Tissue goes on there, which `reflect`
    and `replicate` imitate: fewer artefacts at the rim."""
    # Differences in the U-Net and in the data it sees
    conditioning: Switch = "fixed"
    """paper: Linear(time + Linear(z)) is added; code, fixed: MLP(time) + MLP(z) scale and shift after GroupNorm."""
    time_scale: Switch = "fixed"
    """paper, code: t in [0, 1] enters the sinusoids; fixed: 1000 t, so that they tell times apart."""
    image_range: Switch = "fixed"
    """code: [0, 1]; paper (not stated), fixed: [-1, 1]."""


class GeneFlowOptions(PictureOptions):
    """GeneFlow: rectified flow (section 3.2)."""

    path: Shape = "sine"
    sigma: float = Field(0.05, ge=0)
    time_power: float = Field(1.0, gt=0)
    """Training times are u^time_power with u uniform; 1 as in the paper. A tile's overall colour is settled in the
    first tenth of the path, where alone it must be read from the genes: 2 or 3 gives short runs more of these times."""
    predicts: Literal["velocity", "data"] = "velocity"
    """`velocity`: the U-Net's output is the velocity, as in the paper; `data`: it estimates the picture, and the
    velocity follows from that and the path. The loss is still the velocity's, with its weight bounded near the picture;
    the network need not learn to subtract noise pixel by pixel. Not in the paper; for short runs."""
    precondition: bool = False
    """Not in the paper: the velocity is the U-Net's output plus the best guess linear in x_t, for the training
    pictures' mean and spread. The noise is then subtracted from the first step on; for short runs. Only where the U-Net
    predicts `velocity`."""
    noise_derivative: NoiseDerivative = "fixed"
    """paper: +sigma z (the sign of eq. 9); code: left out; fixed: -sigma z, the derivative of the path."""
    start_noise: Switch = "fixed"
    """paper, code: sampling starts with variance 1; fixed: with 1 + sigma^2, as training did."""
    solver: Solver = "dopri5"
    steps: PositiveInt = 20
    """Equal steps of `rk4` and `euler`."""
    rtol: PositiveFloat = 1e-3
    atol: PositiveFloat = 1e-4
    max_steps: PositiveInt = 1000


class GeneFlowDiffusionOptions(PictureOptions):
    """The diffusion comparator: the same networks, denoising diffusion instead of a flow."""

    timesteps: PositiveInt = 1000
    schedule: Literal["cosine", "linear"] = "cosine"
    predict: Literal["noise", "x0"] = "noise"
    """One setting for training and sampling; the public defaults are `x0` in training and `noise` in sampling."""
    sampling_steps: PositiveInt = 1000
    """Ancestral steps; fewer than `timesteps` are spread evenly over them."""
