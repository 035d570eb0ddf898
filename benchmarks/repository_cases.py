"""The attention classes and networks of public repositories that ``repositories.py`` looks at, and what each one is.

The expectation of a class was written from its formula, before ``exda.plan`` was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

NEAR_MISS = "near miss"
NOTHING = "nothing"


@dataclass(frozen=True)
class Case:
    """A class of a public repository.

    Attributes:
        repository: owner/name.
        file: path of its file.
        name: the class.
        expected: families with ``+`` between them, ``NEAR_MISS`` or ``NOTHING``.
        formula: what it computes, in a few words.
        make: builds a small one from the class.
        inputs: returns arguments for a call, in float64. Integers go to the parent of an attention alone.
        search: folders of the repository that the file's absolute imports start from.
        families: the argument of ``plan``; None for all families of the paper.
        backbone: name of the network whose stages must be known, or None.
    """

    repository: str
    file: str
    name: str
    expected: str
    formula: str
    make: Callable[[Any], nn.Module]
    inputs: Callable[[], Sequence[Any]]
    search: tuple[str, ...] = ("",)
    families: str | None = None
    backbone: str | None = None


class Text(nn.Module):
    """Stands for CLIP: the text's features are the text."""

    def encode_text(self, text: Tensor) -> Tensor:
        return text


def _random(*shapes: tuple[int, ...]) -> Callable[[], Sequence[Tensor]]:
    return lambda: [torch.rand(shape, dtype=torch.float64) for shape in shapes]


def _attention(dim: int = 32, heads: int = 4) -> Callable[[Any], nn.Module]:
    return lambda kind: kind(dim, heads, False)


def _network(**arguments: Any) -> Callable[[Any], nn.Module]:
    return lambda kind: kind(**arguments)


_MAP = _random((2, 32, 12, 10))
_TWO_MAPS = _random((2, 32, 12, 10), (2, 32, 12, 10))
_BHWC = _random((2, 12, 10, 32))
_TOKENS = _random((2, 24, 32))
_IMAGE = _random((1, 3, 32, 32))
_WINDOWS = _random((4, 16, 32))
_BLOCKS = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
_U_NET = {"dim": 16, "heads": [1, 2, 2, 4], **_BLOCKS}
_SWIN = {"img_size": 16, "embed_dim": 32, "depths": [2], "num_heads": [4], "window_size": 4, "upscale": 1}


def _masked_map() -> Sequence[Tensor]:
    return [*_MAP(), (torch.rand(2, 1, 6, 5) < 0.6).double()]


def _tokens_of_map() -> Sequence[Any]:
    return [*_TOKENS(), 4, 6]


def _windows_with_index() -> Sequence[Tensor]:
    return [*_WINDOWS(), torch.randint(49, (16, 16)), torch.zeros(2, 16, 16, dtype=torch.float64)]


def _styled_image() -> Sequence[Any]:
    image, style, *features = _random((1, 3, 32, 32), (1, 128), (1, 32, 16, 16), (1, 64, 8, 8), (1, 128, 4, 4))()
    return [image, style, features]


def _mdta(repository: str, file: str, name: str = "Attention", **others: Any) -> Case:
    return Case(repository, file, name, "mdta", "MDTA", _attention(), _MAP, **others)


def _restormer(repository: str, file: str, name: str = "Restormer", **others: Any) -> Case:
    whole = Case(repository, file, name, "mdta", "network of MDTA", _network(**_U_NET), _IMAGE, backbone="restormer")
    return replace(whole, **others)


def _spatial(repository: str, file: str, name: str, formula: str, *arguments: Any, **others: Any) -> Case:
    return Case(repository, file, name, NOTHING, formula, lambda kind: kind(*arguments), _MAP, **others)


_RESTORMER = "basicsr/models/archs/restormer_arch.py"
_AMIR = "Yaziwel/All-In-One-Medical-Image-Restoration-via-Task-Adaptive-Routing"
_X = "xrestormer/archs"
_DIFF = "DiffIR-demotionblur/DiffIR/archs"
_RETI = ("ChunmingHe/Reti-Diff", "Reti-Diff/archs/S2_arch.py")
_MASK = "MILab-PKU/MaskDCPT"
_MST = "simulation/train_code/architecture"
_SPECTRAL = "S-MSA: channels of BHWC, four linear layers, a positional branch on V"


_FOUND = "specialist_model/basicsr/archs"
_TURTLE = ("Ascend-Research/Turtle", "basicsr/models/archs/turtle_arch.py")
_TAYLOR = ("FVL2020/ICCV-2023-MB-TaylorFormer", "basicsr/models/archs/MB_TaylorFormer.py")
_BURST = ("akshaydudhane16/Burstormer", "Burst Super-resolution/Network.py")
_HSIR = "ZhehuiWu/MP-HSIR"
_TRAINNER = "traiNNer/archs"
_LEVELS = [f"{half}coder{level}" for half in ("en", "de") for level in (1, 2, 3)]
_TURTLES = {
    **dict.fromkeys(("inp_channels", "out_channels"), 3),
    "dim": 16,
    **dict.fromkeys(("Enc_blocks", "Dec_blocks"), (1, 1, 1)),
    "Middle_blocks": 2,
    "num_heads": [1, 2, 2, 4],
    "num_heads_blks": [1, 2, 2, 4],
    "num_refinement_blocks": 1,
    "ffn_expansion_factor": 1,
    "bias": False,
    "LayerNorm_type": "WithBias",
    **{f"{level}_attn_type{n}": "Channel" if level[:2] == "en" else "CHM" for level in _LEVELS for n in (1, 2)},
    **dict.fromkeys([*(f"{level}_ffw_type" for level in _LEVELS), "latent_ffw_type", "refinement_ffw_type"], "GFFW"),
    **dict.fromkeys(("latent_attn_type1", "latent_attn_type2", "latent_attn_type3"), "FHR"),
    **dict.fromkeys(("refinement_attn_type1", "refinement_attn_type2"), "Channel"),
    "use_both_input": False,
    "num_frames_tocache": 1,
}
"""Turtle's arguments: channel attention in the encoder, with earlier frames' keys and values behind it."""


def _diffir(task: str, file: str, search: str, **others: Any) -> list[Case]:
    attention = Case(
        "Zj-BinXia/DiffIR",
        file,
        "Attention",
        "prior",
        f"MDTA of x scaled and shifted by a vector ({task})",
        _attention(),
        _random((2, 32, 12, 10), (2, 256)),
        search=(search,),
    )
    network = replace(
        attention,
        name="DIRformer",
        formula=f"network of MDTA with a prior ({task})",
        make=_network(**_U_NET),
        inputs=_random((1, 3, 32, 32), (1, 256)),
        backbone="restormer",
    )
    return [attention, replace(network, **others)]


def _tmt(file: str, name: str, formula: str) -> Case:
    maps = _random((1, 32, 4, 8, 8))
    if name == "AttentionC":
        return Case("xg416/TMT", file, name, NEAR_MISS, formula, _attention(), maps, search=("code",))
    make = lambda kind: kind(32, 4, False, n_frames=4)  # noqa: E731
    return Case("xg416/TMT", file, name, NEAR_MISS, formula, make, maps, search=("code",))


CASES: tuple[Case, ...] = (
    _mdta("swz30/Restormer", _RESTORMER),
    _restormer("swz30/Restormer", _RESTORMER),
    _mdta("va1shn9v/PromptIR", "net/model.py"),
    # The prompts' channels are written for dim = 48.
    _restormer(
        "va1shn9v/PromptIR",
        "net/model.py",
        "PromptIR",
        make=_network(dim=48, decoder=True, **_BLOCKS),
        backbone="promptir",
    ),
    _mdta("c-yn/AdaIR", "net/model.py"),
    Case(
        "c-yn/AdaIR",
        "net/model.py",
        "Chanel_Cross_Attention",
        "cross",
        "MDTA with q of one map, k and v of another",
        _attention(),
        _TWO_MAPS,
    ),
    _restormer(
        "c-yn/AdaIR",
        "net/model.py",
        "AdaIR",
        expected="cross + mdta",
        formula="network of both",
        make=_network(dim=48, **_BLOCKS),
        backbone="adair",
    ),
    Case(
        "sunshangquan/Histoformer",
        "basicsr/models/archs/histoformer_arch.py",
        "Attention_histogram",
        "histogram",
        "MDTA of sorted pixels, in two layouts, softmax_1",
        _attention(),
        _MAP,
    ),
    _restormer(
        "sunshangquan/Histoformer",
        "basicsr/models/archs/histoformer_arch.py",
        "Histoformer",
        expected="histogram",
        formula="network of it",
        make=_network(**_U_NET, ffn_expansion_factor=2),
        backbone="histoformer",
    ),
    _mdta("eduardzamfir/MoCE-IR", "src/net/moce_ir.py"),
    Case(
        "eduardzamfir/MoCE-IR",
        "src/net/moce_ir.py",
        "CrossAttention",
        "cross",
        "MDTA with q of one map, k and v of another, 7x7",
        _attention(),
        _TWO_MAPS,
    ),
    Case(
        "eduardzamfir/MoCE-IR",
        "src/net/moce_ir.py",
        "MoCEIR",
        "cross + mdta",
        "network of both",
        _network(dim=32),
        _IMAGE,
        backbone="moceir",
    ),
    _mdta(_AMIR, "model/Model_AMIR.py"),
    _restormer(
        _AMIR,
        "model/Model_AMIR.py",
        "AMIR",
        make=_network(dim=42, **_BLOCKS),
        inputs=_random((1, 1, 32, 32)),
        backbone="amir",
    ),
    Case(
        _AMIR,
        "model/Model_DRMC.py",
        "Attention_Expert",
        NEAR_MISS,
        "MDTA with the depthwise convolution after the aggregation",
        lambda kind: kind(32, num_heads=4),
        _MAP,
    ),
    _mdta("Andrew0613/X-Restormer", f"{_X}/xrestormer_arch.py", "ChannelAttention"),
    _mdta("Andrew0613/X-Restormer", f"{_X}/restormer_base_arch.py"),
    Case(
        "Andrew0613/X-Restormer",
        f"{_X}/xrestormer_arch.py",
        "OCAB",
        NOTHING,
        "pixels of overlapping windows",
        lambda kind: kind(32, 4, 0.5, 4, 8, False),
        _random((2, 32, 8, 12)),
    ),
    _restormer(
        "Andrew0613/X-Restormer",
        f"{_X}/xrestormer_arch.py",
        "XRestormer",
        formula="network of MDTA and overlapping windows",
        make=_network(dim=16, channel_heads=[1, 2, 2, 4], spatial_heads=[1, 2, 2, 4], **_BLOCKS),
        inputs=_random((1, 3, 64, 64)),
        backbone="xrestormer",
    ),
    _spatial("Andrew0613/X-Restormer", f"{_X}/NAFSSR_arch.py", "SCAM", "columns of one view and another", 32),
    Case(
        "Andrew0613/X-Restormer",
        f"{_X}/Uformer_arch.py",
        "WindowAttention",
        "window",
        "pixels of windows; q and kv inside of a further module",
        lambda kind: kind(32, (4, 4), 4),
        _WINDOWS,
        families="window",
    ),
    Case(
        "Andrew0613/X-Restormer",
        f"{_X}/Uformer_arch.py",
        "Attention",
        NOTHING,
        "tokens; q and kv inside of a further module",
        lambda kind: kind(32, 4),
        _TOKENS,
    ),
    *_diffir("motion, stage 1", f"{_DIFF}/S1_arch.py", "DiffIR-demotionblur"),
    *_diffir("motion, stage 2", f"{_DIFF}/S2_arch.py", "DiffIR-demotionblur"),
    *_diffir(
        "super-resolution",
        "DiffIR-RealSR/DiffIR/archs/S2_arch.py",
        "DiffIR-RealSR",
        inputs=_random((1, 3, 64, 64), (1, 256)),
    ),
    *_diffir(
        "inpainting",
        "DiffIR-inpainting/archs/S2_arch.py",
        "DiffIR-inpainting",
        inputs=_random((1, 4, 32, 32), (1, 256)),
        backbone="restormer-unrefined",
    ),
    Case(
        *_RETI,
        "Attention",
        "prior",
        "MDTA of x scaled by 1 + a vector",
        _attention(),
        _random((2, 32, 12, 10), (2, 256)),
        search=("Reti-Diff",),
    ),
    Case(
        *_RETI,
        "Rttention",
        NEAR_MISS,
        "q of three quarters of the channels, k and v of the rest",
        _attention(),
        _random((2, 32, 12, 10), (2, 256)),
        search=("Reti-Diff",),
    ),
    _restormer(
        *_RETI,
        "RGFormer",
        expected="prior + near miss",
        formula="network of both",
        inputs=_random((1, 3, 32, 32), (1, 256), (1, 256)),
        search=("Reti-Diff",),
        backbone="restormer-unrefined",
    ),
    Case(
        "zhengchen1999/HI-Diff",
        "hi_diff/archs/Transformer_arch.py",
        "Attention",
        "prior",
        "MDTA of x scaled and shifted by an optional vector",
        lambda kind: kind(32, 4, False, 16, 1),
        _random((2, 32, 12, 10), (2, 64)),
    ),
    Case(
        "zhengchen1999/HI-Diff",
        "hi_diff/archs/Transformer_arch.py",
        "HIM",
        NOTHING,
        "pixels attend to the entries of a prior",
        lambda kind: kind(32, 4, False, 16, "WithBias"),
        _random((2, 32, 12, 10), (2, 6, 64)),
    ),
    _restormer(
        "zhengchen1999/HI-Diff",
        "hi_diff/archs/Transformer_arch.py",
        "Transformer",
        expected="prior",
        formula="network of MDTA with a prior at one level",
        inputs=_random((1, 3, 32, 32), (1, 16, 192)),
    ),
    *(
        Case(
            _MASK,
            f"basicsr/archs/{file}_arch.py",
            "Attention",
            "masked",
            "MDTA with a mask on q, k and v",
            _attention(),
            _masked_map,
        )
        for file in ("mask_restormer", "mask_promptir")
    ),
    _mdta(_MASK, "basicsr/archs/restormer_arch.py"),
    Case(
        _MASK,
        "basicsr/archs/mask_swinir_arch.py",
        "WindowAttention",
        NOTHING,
        "pixels of windows, without relative positions",
        lambda kind: kind(32, (4, 4), 4),
        _WINDOWS,
        families="window",
    ),
    Case(
        _MASK,
        "basicsr/archs/mask_restormer_arch.py",
        "MaskRestormer",
        "masked",
        "network of MDTA with a mask",
        # Its mask at full size has 96 channels, twice this number.
        _network(dim=48, **_BLOCKS),
        _IMAGE,
        backbone="restormer",
    ),
    Case(
        "MyuLi/SERT",
        "models/competing_methods/SST.py",
        "GSAttention",
        "gsa",
        "MDTA without depthwise convolutions",
        _attention(),
        _MAP,
    ),
    Case(
        "MyuLi/SERT",
        "models/competing_methods/SST.py",
        "NLSA",
        "window",
        "pixels of windows, relative positions",
        lambda kind: kind(32, (4, 4), 4),
        _WINDOWS,
        families="window",
    ),
    Case(
        "MyuLi/SERT",
        "models/competing_methods/SST.py",
        "SST",
        "gsa",
        "network of GSAttention and NLSA",
        _network(dim=24, depths=[2], num_heads=[4], window_size=4),
        _random((1, 31, 16, 16)),
    ),
    Case(
        "MyuLi/SERT",
        "models/sert.py",
        "LePEAttention",
        NOTHING,
        "pixels of stripes",
        lambda kind: kind(32, 8, 0, 4, num_heads=4),
        _random((3, 2, 64, 32)),
    ),
    Case(
        "MyuLi/SERT",
        "models/sert.py",
        "ChannelAttention",
        NOTHING,
        "gates of pooled channels; softmax over memory entries",
        lambda kind: kind(32, 4),
        _TOKENS,
    ),
    *(
        Case(
            "Mdraqibkhan/Spectroformer",
            file,
            "MDTA",
            NEAR_MISS,
            "MDTA, then a second attention with q of the spectrum",
            lambda kind: kind(32, 4),
            _MAP,
        )
        for file in ("model.py", "Final_model_AGSSF.py")
    ),
    Case(
        "XLearning-SCU/2023-CVPR-CODE",
        "model.py",
        "ChannelAttention",
        NEAR_MISS,
        "channels, with q, k, v of one channel each (grouped)",
        lambda kind: kind(32, 8, 4),
        _MAP,
    ),
    _spatial("XLearning-SCU/2023-CVPR-CODE", "model.py", "SpatialAttention", "pixels", 32, 8, 4),
    Case(
        "XLearning-SCU/2023-CVPR-CODE",
        "model.py",
        "CODEFormer",
        NEAR_MISS,
        "network of both",
        _network(embed_dim=16, num_blocks=(1, 1, 1, 1), refine_blocks=1),
        _random((1, 1, 32, 32)),
    ),
    _mdta("mdyao/NDR-Restore", "models/modules/NDR.py"),
    Case(
        "mdyao/NDR-Restore",
        "models/modules/NDR.py",
        "Degradation_Attention",
        NOTHING,
        "pixels attend to a dictionary",
        lambda kind: kind(32),
        _random((2, 32, 12, 10), (2, 32, 128)),
    ),
    Case(
        "mdyao/NDR-Restore",
        "models/modules/NDR.py",
        "RestorationNet",
        "mdta",
        "network of MDTA and the dictionary",
        lambda kind: kind(nn.Parameter(torch.randn(1, 32, 128)), dim=48, **_BLOCKS),
        _IMAGE,
        backbone="ndr",
    ),
    _mdta("XunpengYi/Text-IF", "model/Text_IF_model.py"),
    _spatial("XunpengYi/Text-IF", "model/Text_IF_model.py", "Attention_spatial", "pixels", 32),
    Case(
        "XunpengYi/Text-IF",
        "model/Text_IF_model.py",
        "Cross_attention",
        NOTHING,
        "pixels of two maps",
        lambda kind: kind(32),
        _TWO_MAPS,
    ),
    Case(
        "XunpengYi/Text-IF",
        "model/Text_IF_model.py",
        "Text_IF",
        "mdta",
        "network of MDTA",
        lambda kind: kind(Text(), dim=16, heads=[1, 2, 2, 4], **_BLOCKS),
        _random((1, 3, 32, 32), (1, 3, 32, 32), (1, 512)),
        backbone="textif",
    ),
    _mdta("ZZZHANG-jx/DocRes", "models/restormer_arch.py"),
    _restormer(
        "ZZZHANG-jx/DocRes",
        "models/restormer_arch.py",
        make=_network(inp_channels=6, **_U_NET),
        inputs=_random((1, 6, 32, 32)),
    ),
    _mdta("xianggkl/VLU-Net", "net/Final.py"),
    Case(
        "xianggkl/VLU-Net",
        "net/Final.py",
        "CrossAttention",
        NEAR_MISS,
        "MDTA with k of a prompt, q and v of the map",
        lambda kind: kind(32, 4, False, 8),
        _random((2, 32, 12, 10), (2, 8, 12, 10)),
    ),
    Case(
        "xianggkl/VLU-Net",
        "net/Final.py",
        "VLUNet",
        "mdta + near miss",
        "network of both",
        _network(de_dim=5, dim=48, **_BLOCKS),
        _random((1, 3, 32, 32), (1, 512)),
        backbone="restormer",
    ),
    _mdta("TxpHome/DFPIR", "net/model.py"),
    Case(
        "TxpHome/DFPIR",
        "net/model.py",
        "Topm_CrossAttention_Restormer",
        NEAR_MISS,
        "cross attention of the largest 90% of the logits",
        _attention(),
        _TWO_MAPS,
    ),
    _restormer(
        "TxpHome/DFPIR",
        "net/model.py",
        "ChannelShuffle_skip_textguaid",
        expected="mdta + near miss",
        formula="network of both",
        make=_network(device="cpu", **_U_NET),
        inputs=_random((1, 3, 32, 32), (1, 512)),
    ),
    _mdta("House-yuyu/Perceive-IR", "src/basicsr/archs/restormer_arch.py"),
    _restormer("House-yuyu/Perceive-IR", "src/basicsr/archs/restormer_arch.py"),
    _restormer(
        "House-yuyu/Perceive-IR",
        "src/basicsr/archs/restormer_arch.py",
        "Restormer_Encoder",
        backbone="restormer-encoder",
    ),
    _mdta("Dongqi-Fan/ConStyle_v2", "archs/ConStyle_Restormer_arch.py"),
    Case(
        "Dongqi-Fan/ConStyle_v2",
        "archs/ConStyle_Restormer_arch.py",
        "ConStyleRestormer",
        "mdta",
        "network of MDTA",
        _network(
            dim=48,
            left_blk_num=[1, 1, 1],
            bottom_blk_num=1,
            right_blk_num=[1, 1, 1],
            num_refinement_blocks=1,
            Train=False,
        ),
        _styled_image,
        backbone="constyle",
    ),
    Case(
        "Fediory/HVI-CIDNet",
        "net/LCA.py",
        "CAB",
        "cross",
        "MDTA with q of one map, k and v of another",
        _attention(),
        _TWO_MAPS,
    ),
    Case(
        "Fediory/HVI-CIDNet",
        "net/CIDNet.py",
        "CIDNet",
        "cross",
        "network of it",
        _network(channels=[8, 8, 16, 32]),
        _IMAGE,
        backbone="hvicidnet",
    ),
    Case(
        "facebookresearch/xcit",
        "xcit.py",
        "XCA",
        "xca",
        "channels of tokens",
        lambda kind: kind(32, 4),
        _tokens_of_map,
    ),
    Case(
        "facebookresearch/xcit",
        "xcit.py",
        "ClassAttention",
        NOTHING,
        "one token attends to all",
        lambda kind: kind(32, 4),
        _TOKENS,
    ),
    Case(
        "facebookresearch/xcit",
        "xcit.py",
        "XCiT",
        "xca",
        "network of both",
        _network(img_size=32, patch_size=8, embed_dim=32, num_heads=4, depth=2, eta=1, num_classes=5, use_pos=False),
        _IMAGE,
        backbone="xcit-p8",
    ),
    Case(
        "mmaaz60/EdgeNeXt",
        "models/sdta_encoder.py",
        "XCA",
        "xca",
        "channels of tokens",
        lambda kind: kind(32, 4),
        _tokens_of_map,
    ),
    Case(
        "mmaaz60/EdgeNeXt",
        "models/edgenext.py",
        "EdgeNeXt",
        "xca",
        "network of it",
        _network(
            depths=[1, 1, 1, 1],
            dims=[16, 16, 32, 32],
            global_block=[0, 1, 1, 1],
            global_block_type=["None", "SDTA", "SDTA", "SDTA"],
            heads=[4, 4, 4, 4],
            use_pos_embd_xca=[False, False, False, False],
            num_classes=5,
            classifier_dropout=0.0,
        ),
        _random((1, 3, 64, 64)),
        backbone="edgenext",
    ),
    Case(
        "megvii-research/TLC",
        _RESTORMER,
        "LocalAttention",
        NEAR_MISS,
        "MDTA on windows of 1.5 times the training size",
        lambda kind: kind(32, 4, False, base_size=(384, 384), train_size=(1, 3, 256, 256)),
        _random((1, 32, 12, 10)),
    ),
    _restormer(
        "megvii-research/TLC",
        _RESTORMER,
        "RestormerLocal",
        expected=NEAR_MISS,
        formula="network of it",
        backbone=None,
    ),
    _restormer("megvii-research/TLC", _RESTORMER),
    _tmt("code/model/TMT.py", "AttentionCTSF", "channels and frames, shuffled between them"),
    _tmt("code/model/TMT.py", "AttentionCTSFNew", "channels and frames, shuffled, with positions"),
    _tmt("code/model/TMT_old.py", "AttentionC", "MDTA of videos (3-D convolutions)"),
    _tmt("code/model/TMT_old.py", "AttentionCT", "channels and frames"),
    _tmt("code/model/TMT_old.py", "AttentionCTS", "channels and frames, frames mixed"),
    Case(
        "lucidrains/vit-pytorch",
        "vit_pytorch/xcit.py",
        "XCAttention",
        NEAR_MISS,
        "XCA of normalised tokens, exp(temperature)",
        lambda kind: kind(32, 4, 8),
        _TOKENS,
    ),
    Case(
        "lucidrains/vit-pytorch",
        "vit_pytorch/xcit.py",
        "Attention",
        NOTHING,
        "tokens",
        lambda kind: kind(32, 4, 8),
        _TOKENS,
    ),
    Case(
        "lucidrains/vit-pytorch",
        "vit_pytorch/xcit.py",
        "XCiT",
        NEAR_MISS,
        "network of both",
        _network(image_size=32, patch_size=8, num_classes=5, dim=32, depth=1, cls_depth=1, heads=4, mlp_dim=32),
        _IMAGE,
    ),
    Case(
        "Amazingren/MIRAGE",
        "net/mirage_small.py",
        "Attention",
        NEAR_MISS,
        "MDTA of a third of the channels, beside two other branches",
        lambda kind: kind(48, 4, False),
        _random((2, 48, 12, 10)),
    ),
    Case(
        "Amazingren/MIRAGE",
        "net/mirage_tiny.py",
        "MIRAGE",
        NEAR_MISS,
        "network of it",
        _network(dim=24, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1),
        _IMAGE,
    ),
    *(
        Case(repository, file, "WindowAttention", "window", formula, make, inputs, families="window")
        for repository, file, formula, make, inputs in (
            (
                "JingyunLiang/SwinIR",
                "models/network_swinir.py",
                "pixels of windows, relative positions",
                lambda kind: kind(32, (4, 4), 4),
                _WINDOWS,
            ),
            (
                "mv-lab/swin2sr",
                "models/network_swin2sr.py",
                "pixels of windows, cosines, positions by a network",
                lambda kind: kind(32, (4, 4), 4),
                _WINDOWS,
            ),
            (
                "XPixelGroup/HAT",
                "hat/archs/hat_arch.py",
                "pixels of windows, relative positions in the call",
                lambda kind: kind(32, (4, 4), 4),
                _windows_with_index,
            ),
        )
    ),
    Case(
        "JingyunLiang/SwinIR",
        "models/network_swinir.py",
        "SwinIR",
        "window",
        "network of it",
        _network(**_SWIN),
        _random((1, 3, 16, 16)),
        families="window",
    ),
    Case(
        "mv-lab/swin2sr",
        "models/network_swin2sr.py",
        "Swin2SR",
        "window",
        "network of it",
        _network(**_SWIN),
        _random((1, 3, 16, 16)),
        families="window",
    ),
    Case(
        "XPixelGroup/HAT",
        "hat/archs/hat_arch.py",
        "OCAB",
        NEAR_MISS,
        "pixels of overlapping windows, inside of a block",
        lambda kind: kind(32, (16, 16), 4, 0.5, 4),
        _TOKENS,
        families="window",
    ),
    Case(
        "XPixelGroup/HAT",
        "hat/archs/hat_arch.py",
        "HAT",
        "window + near miss",
        "network of it, and of pixels of overlapping windows",
        _network(**_SWIN | {"upscale": 2}, squeeze_factor=8, upsampler="pixelshuffle"),
        _random((1, 3, 16, 16)),
        families="window",
    ),
    Case(
        "caiyuanhao1998/MST",
        f"{_MST}/MST.py",
        "MS_MSA",
        NEAR_MISS,
        "S-MSA with a mask on V, through further layers",
        lambda kind: kind(32, 8, 4),
        _BHWC,
    ),
    Case(
        "caiyuanhao1998/MST",
        f"{_MST}/MST_Plus_Plus.py",
        "MS_MSA",
        "smsa",
        _SPECTRAL,
        lambda kind: kind(32, 8, 4),
        _BHWC,
    ),
    Case(
        "caiyuanhao1998/MST",
        f"{_MST}/DAUHST.py",
        "HS_MSA",
        NOTHING,
        "pixels of windows, and across windows",
        lambda kind: kind(32, dim_head=8, heads=4),
        _random((1, 64, 80, 32)),
    ),
    Case(
        "caiyuanhao1998/MST",
        f"{_MST}/CST.py",
        "SAH_MSA",
        NOTHING,
        "pixels of a cluster",
        lambda kind: kind(channels=32, patch_size=(4, 4)),
        _TOKENS,
    ),
    Case(
        "caiyuanhao1998/MST",
        f"{_MST}/TSA_Net.py",
        "TSA_Transform",
        NEAR_MISS,
        "rows, columns and channels, of maps of one size",
        lambda kind: kind((64, 64), 32, 32, 4, (8, 8)),
        _random((1, 32, 64, 64)),
    ),
    Case(
        "caiyuanhao1998/MST",
        f"{_MST}/MST.py",
        "MST",
        NEAR_MISS,
        "network of MS_MSA",
        _network(num_blocks=[1, 1, 1]),
        _random((1, 28, 32, 32)),
    ),
    _spatial("caiyuanhao1998/MST", f"{_MST}/HDNet.py", "SDL_attention", "gates of channels and of pixels", 32, 32),
    _spatial("caiyuanhao1998/MST", f"{_MST}/Lambda_Net.py", "LambdaNetAttention", "pixels", 32),
    _spatial("caiyuanhao1998/MST", f"{_MST}/BIRNAT.py", "self_attention", "pixels", 32),
    Case(
        "caiyuanhao1998/MST-plus-plus",
        "train_code/architecture/MST_Plus_Plus.py",
        "MS_MSA",
        "smsa",
        _SPECTRAL,
        lambda kind: kind(32, 8, 4),
        _BHWC,
    ),
    Case(
        "caiyuanhao1998/MST-plus-plus",
        "train_code/architecture/MST_Plus_Plus.py",
        "MST_Plus_Plus",
        "smsa",
        "network of it",
        _network(out_channels=31, n_feat=31, stage=1),
        _IMAGE,
    ),
    Case(
        "caiyuanhao1998/MST-plus-plus",
        "train_code/architecture/MST.py",
        "MS_MSA",
        NEAR_MISS,
        "S-MSA with a mask on V, through further layers",
        lambda kind: kind(32, 8, 4),
        _BHWC,
    ),
    _mdta("caiyuanhao1998/MST-plus-plus", "train_code/architecture/Restormer.py"),
    _spatial("caiyuanhao1998/MST-plus-plus", "train_code/architecture/hrnet.py", "Self_Attn", "pixels", 32),
    Case(
        "caiyuanhao1998/Retinexformer",
        "basicsr/models/archs/RetinexFormer_arch.py",
        "IG_MSA",
        "igmsa",
        "S-MSA with V scaled by a second map",
        lambda kind: kind(32, 8, 4),
        _random((2, 12, 10, 32), (2, 12, 10, 32)),
    ),
    Case(
        "caiyuanhao1998/Retinexformer",
        "basicsr/models/archs/RetinexFormer_arch.py",
        "RetinexFormer",
        "igmsa",
        "network of it",
        _network(n_feat=16, stage=1),
        _IMAGE,
    ),
    Case(
        "caiyuanhao1998/Retinexformer",
        "basicsr/models/archs/MST_Plus_Plus_arch.py",
        "MS_MSA",
        "smsa",
        _SPECTRAL,
        lambda kind: kind(32, 8, 4),
        _BHWC,
    ),
    _mdta("ZJLAB-AMMI/Restormer-Plus", "restormer_x/model/restormer.py"),
    _restormer("ZJLAB-AMMI/Restormer-Plus", "restormer_x/model/restormer.py", make=_network(**_U_NET, version="plus")),
    _mdta("House-Leo/FoundIR", f"{_FOUND}/Restormer_arch.py"),
    _restormer("House-Leo/FoundIR", f"{_FOUND}/Restormer_arch.py"),
    Case(
        "House-Leo/FoundIR",
        f"{_FOUND}/femasr_arch.py",
        "Attention",
        NEAR_MISS,
        "MDTA with q replaced by the closest channels of a second map",
        lambda kind: kind(32, 4),
        _random((2, 32, 16, 16), (2, 96, 128, 128)),
    ),
    _mdta("House-Leo/FoundIR", f"{_FOUND}/femasr_arch.py", "Attention_restormer"),
    _mdta("the-database/traiNNer-redux", f"{_TRAINNER}/docres_arch.py"),
    _restormer(
        "the-database/traiNNer-redux",
        f"{_TRAINNER}/docres_arch.py",
        "DocRes",
        make=_network(inp_channels=6, **_U_NET),
        inputs=_random((1, 6, 32, 32)),
    ),
    Case(
        "the-database/traiNNer-redux",
        f"{_TRAINNER}/gaterv3_arch.py",
        "Attention",
        NEAR_MISS,
        "pixels, by the layers of MDTA; MDTA where a buffer says so",
        lambda kind: kind(32, 4),
        _MAP,
    ),
    Case(
        "the-database/traiNNer-redux",
        f"{_TRAINNER}/dat_arch.py",
        "Adaptive_Channel_Attention",
        NEAR_MISS,
        "XCA and a convolution of v, mixed by gates",
        lambda kind: kind(32, 4),
        _tokens_of_map,
    ),
    Case(
        "the-database/traiNNer-redux",
        f"{_TRAINNER}/fdat_arch.py",
        "FastChannelAttention",
        NEAR_MISS,
        "XCA that is called with the map's size",
        lambda kind: kind(32, 4),
        _tokens_of_map,
    ),
    _mdta("open-mmlab/mmagic", "mmagic/models/editors/restormer/restormer_net.py"),
    _restormer("open-mmlab/mmagic", "mmagic/models/editors/restormer/restormer_net.py"),
    _mdta("Aitical/CPLIR", "basicsr/archs/cplir_inference_arch.py"),
    _mdta("xl-tang3/DA-RCOT", "model_res.py"),
    # The channels behind the latent level are written for dim = 48.
    _restormer("xl-tang3/DA-RCOT", "model_res.py", "MRCNet", make=_network(dim=48, decoder=True, **_BLOCKS)),
    _mdta("xl-tang3/BaryIR", "model_bary.py"),
    _restormer("xl-tang3/BaryIR", "model_bary.py", "BaryNet", make=_network(dim=48, decoder=True, **_BLOCKS)),
    _mdta("mrluin/UniRestorer", "basicsr/models/archs/restormer_arch.py"),
    _restormer("mrluin/UniRestorer", "basicsr/models/archs/restormer_arch.py"),
    Case(
        "mrluin/UniRestorer",
        "basicsr/models/archs/retinexformer_arch.py",
        "IG_MSA",
        "igmsa",
        "S-MSA with V scaled by a second map",
        lambda kind: kind(32, 8, 4),
        _random((2, 12, 10, 32), (2, 12, 10, 32)),
    ),
    _mdta("sudraj2002/AWRaCLe", "net/model.py"),
    Case(
        "sudraj2002/AWRaCLe",
        "net/model.py",
        "ContextAttention",
        NOTHING,
        "tokens",
        lambda kind: kind(32, 4, 8),
        _TOKENS,
    ),
    Case(
        "sudraj2002/AWRaCLe",
        "net/model.py",
        "CrossAttention",
        NOTHING,
        "pixels attend to tokens",
        lambda kind: kind(32, 4, 8),
        _random((2, 32, 12, 10), (2, 24, 32)),
    ),
    *(_mdta(_HSIR, "net/MP_HSIR.py", name) for name in ("Attention", "Spectral_Attention")),
    Case(
        _HSIR,
        "net/MP_HSIR.py",
        "CrossAttention",
        "cross",
        "MDTA with q of one map, k and v of another",
        _attention(),
        _TWO_MAPS,
    ),
    Case(
        _HSIR,
        "net/MP_HSIR.py",
        "PG_Spectral_Attention",
        NEAR_MISS,
        "channels of the tokens' mean, with q of a prompt; the result scales the tokens",
        lambda kind: kind(32, 2, 4, 8, False),
        _TOKENS,
    ),
    Case(
        _HSIR,
        "net/MP_HSIR.py",
        "Spatial_Attention",
        "window",
        "pixels of windows, relative positions",
        lambda kind: kind(32, (4, 4), 4),
        _WINDOWS,
        families="window",
    ),
    Case(
        _HSIR,
        "net/comparison_methods/deblur/LoFormer_arch.py",
        "Attention",
        NEAR_MISS,
        "LoFormer's: MDTA inside of windows of 8 pixels",
        _attention(),
        _random((2, 32, 16, 24)),
        search=("net/comparison_methods",),
    ),
    Case(
        _HSIR,
        "net/comparison_methods/deblur/LoFormer_arch.py",
        "Attention",
        "mdta",
        'LoFormer\'s: MDTA (cs="channel_global")',
        lambda kind: kind(32, 4, False, cs="channel_global"),
        _MAP,
        search=("net/comparison_methods",),
    ),
    _mdta("INVOKERer/LoFormer", _RESTORMER),
    _mdta("toummHus/HAIR", "net/HAIR.py"),
    Case(
        "toummHus/HAIR",
        "net/HAIR.py",
        "Hyattn",
        NEAR_MISS,
        "MDTA with the convolutions' weights as arguments",
        _attention(),
        _MAP,
    ),
    Case(*_TURTLE, "ChannelAttention", NEAR_MISS, "MDTA that returns two Nones besides", _attention(), _MAP),
    Case(
        *_TURTLE,
        "FrameHistoryRouter",
        NEAR_MISS,
        "MDTA with keys and values of earlier frames, which it returns too",
        _attention(),
        _MAP,
    ),
    Case(
        *_TURTLE,
        "StateAlignBlock",
        NEAR_MISS,
        "patches attend to those of earlier frames, by the layers of cross attention",
        lambda kind: kind(32, 4, False, 1),
        _random((2, 32, 16, 12)),
    ),
    Case(*_TURTLE, "Turtle", NEAR_MISS, "network of the three", _network(**_TURTLES), _random((1, 2, 3, 32, 32))),
    Case(
        *_TAYLOR,
        "Attention",
        NEAR_MISS,
        "pixels, with the softmax's Taylor series, by the layers of MDTA",
        _attention(),
        _MAP,
    ),
    Case(
        *_TAYLOR,
        "MB_TaylorFormer",
        NEAR_MISS,
        "network of it",
        _network(dim=[16, 16, 32, 32], heads=[1, 2, 4, 4], **_BLOCKS),
        _IMAGE,
    ),
    *(
        Case(
            *_BURST,
            "Attention",
            NEAR_MISS,
            f"MDTA with q and k by one layer, v by another (stride {stride} of q and k)",
            lambda kind, stride=stride: kind(32, 4, stride, False),
            _MAP,
        )
        for stride in (1, 2)
    ),
    Case(*_BURST, "burstormer", NEAR_MISS, "network of it", _network(num_features=16), _random((1, 8, 4, 16, 16))),
    Case(
        "Mdraqibkhan/Phaseformer",
        "model_with_eca.py",
        "MDTA",
        NEAR_MISS,
        "MDTA with q and k replaced by their phases",
        lambda kind: kind(32, 4),
        _MAP,
    ),
    Case(
        "Mdraqibkhan/Phaseformer",
        "model_with_eca.py",
        "Restormer",
        NEAR_MISS,
        "network of it",
        _network(num_blocks=[1, 1, 1, 1], num_refinement=1),
        _IMAGE,
    ),
)
