"""ExDA as a network of its own: Restormer's U-net with both primitives in every block.

Source: the ExDA paper (2026). It gives parameter counts (about 22, 10 and 6 million) but neither widths nor depths;
those of ``SIZES`` are our choice. The names that end in 3557 have the depths and the feed-forward of MIRAGE (Ren et
al., ICLR 2026), a network by the same first author.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from ..primitives import ExDAAttention, ExDAConfig
from ..primitives.config import common
from .architecture import Architecture, ArchitectureMismatch, StateShapes
from .arguments import check_equal_channels, unet_arguments
from .blocks import NormType, TransformerBlock
from .unet import UNet

_WIDTHS = {"base": 48, "small": 32, "tiny": 24}
_REFINEMENTS = {"base": 4, "small": 3, "tiny": 2}
"""Refinement blocks of the 3557 variants: MIRAGE has 2 in its tiny form and 3 in its small one; it has no base."""

SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {f"exda-{size}": MappingProxyType({"dim": dim}) for size, dim in _WIDTHS.items()}
    | {
        f"exda-{size}-3557": MappingProxyType(
            {
                "dim": dim,
                "num_blocks": (3, 5, 5, 7),
                "num_refinement_blocks": _REFINEMENTS[size],
                "ffn_expansion_factor": 2.0,
            }
        )
        for size, dim in _WIDTHS.items()
    }
)
"""Name -> constructor arguments. Base, small and tiny differ in width.

With blocks 2, 4, 4, 6 and feed-forward factor 2.66 they have 22,380,642, 10,053,526 and 5,715,702 parameters. With
blocks 3, 5, 5, 7 and factor 2 (``-3557``) they have 23,107,050, 10,335,767 and 5,849,100. The paper's counts fit both.
"""

_PAPER = ExDAConfig(init="paper")


class ExDA(UNet):
    """Restormer with the non-linear value and global spatial tokens in all of its attentions, without prompts.

    Its state dict has the keys of a Restormer of the same size with every attention patched, so ``Restormer`` loads it
    except for the new keys.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d and 8d.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size with 2d channels.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden width of the feed-forwards over their channels.
        bias: whether the convolutions have a bias (the embedding and the resampling never have one).
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        config: configuration of the primitives; by default the paper's formula and init.

    Raises:
        ValueError: if ``num_blocks`` or ``heads`` does not have four entries, if a level's channels cannot be
            divided among its heads, or if ``LayerNorm_type`` is unknown.
        ConfigError: if ``config`` does not fit the channels of a head.

    Examples:
        >>> import exda_primitives as exda
        >>> model = exda.models.create("exda-tiny")
        >>> sum(isinstance(module, exda.ExDAAttention) for module in model.modules())
        28
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (2, 4, 4, 6),
        num_refinement_blocks: int = 2,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",  # noqa: N803 - the name that configuration files of this field use
        config: ExDAConfig = _PAPER,
    ) -> None:
        def block(channels: int, num_heads: int) -> nn.Module:
            made = TransformerBlock(channels, num_heads, ffn_expansion_factor, bias, LayerNorm_type)
            made.add_module("attn", ExDAAttention(channels, num_heads, bias, **config.as_dict()))
            return made

        super().__init__(
            inp_channels,
            out_channels,
            dim,
            num_blocks,
            num_refinement_blocks,
            heads,
            bias,
            block,
            insertions={},
            latent_channels=8 * dim,
        )


def _infer(state: StateShapes) -> dict[str, Any]:
    # ``common`` needs the channels per head, because tokens="channels" is recorded as their number.
    built_in = {name: each.config for name, each in state.attentions.items() if each.built_in}
    config = common([(each, _channels_per_head(state, name)) for name, each in built_in.items()]) if built_in else None
    if config is None:
        raise ArchitectureMismatch("no ExDA attentions that were built in, all with one configuration")
    check_equal_channels(state)
    return unet_arguments(state) | {"config": config}


def _channels_per_head(state: StateShapes, attention: str) -> int:
    return state.size(f"{attention}.project_out.weight") // max(state.size(f"{attention}.temperature"), 1)


ARCHITECTURE = Architecture("exda", ExDA, _infer, SIZES)
