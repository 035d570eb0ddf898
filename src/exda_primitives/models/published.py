"""The checkpoints that the authors of networks published, as they describe them. Nothing here downloads any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ACADEMIC = "Academic Public License (no commercial use)"
_BIAS_FREE = {"LayerNorm_type": "BiasFree"}
_MOCE_IR = "https://drive.google.com/drive/folders/1pQBceb8cCPdIzbqbNNGqV5qNXzzqL4uK"
_MOCE_IR_ARGUMENTS = {
    "num_blocks": [4, 6, 6, 8],
    "num_dec_blocks": [2, 4, 4],
    "heads": [1, 2, 4, 8],
    "num_refinement_blocks": 4,
    "depth_type": "constant",
    "stage_depth": [1, 1, 1],
    "rank_type": "spread",
    "with_complexity": True,
}
_HISTOFORMER = "https://drive.google.com/drive/folders/1dmPhr8Z5iPRx9lh7TwdUFPSfwGIxp5l0"
_HISTOFORMER_ARGUMENTS = {"dim": 36, "num_blocks": [4, 4, 6, 8], "ffn_expansion_factor": 2.667}


@dataclass(frozen=True)
class Published:
    """A checkpoint that its authors published.

    Attributes:
        name: name here, which ``--checkpoint`` takes for a file in the folder ``EXDA_HOME``.
        task: what the network was trained for.
        file: the file's name where the authors put it.
        where: page with the file, or from which it is linked.
        licence: of the authors' code; none of them states another one for the weights.
        network: name of the network, one of ``list_models()``.
        parameters: number of its parameters.
        arguments: arguments of its constructor that differ from the defaults; they are inferred when it is loaded.
        sha256: of the file, where the authors state it: none do so far.
        images: whether ``exda restore`` can use it; False for inputs that are not one image of one or three channels.
    """

    name: str
    task: str
    file: str
    where: str
    licence: str
    network: str
    parameters: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    images: bool = True


def _restormer(
    name: str,
    task: str,
    folder: str,
    file: str,
    parameters: int = 26_126_644,
    arguments: Mapping[str, Any] | None = None,
    *,
    images: bool = True,
) -> Published:
    where = f"https://drive.google.com/drive/folders/{folder}"
    return Published(
        f"restormer-{name}", task, file, where, _ACADEMIC, "restormer", parameters, arguments or {}, images=images
    )


def _denoising(kind: str, levels: str, parameters: int, arguments: Mapping[str, Any]) -> Published:
    return _restormer(
        f"gaussian-{kind}-denoising-{levels}",
        f"Gaussian noise, {kind}, {levels.replace('sigma', 'sigma ')}",
        "1Qwsjyny54RZWa7zC4Apg7exixLBo4uF0",
        f"gaussian_{kind}_denoising_{levels}.pth",
        parameters,
        arguments,
    )


def _moce_ir(size: str, dim: int, parameters: int, tasks: str, task: str) -> Published:
    name = f"moce-ir{'-s' if size == 'MoCE_IR_S' else ''}-{tasks.lower()}"
    arguments = {"dim": dim, **_MOCE_IR_ARGUMENTS}
    return Published(name, task, f"{size}_{tasks}/last.ckpt", _MOCE_IR, "Apache-2.0", "moceir", parameters, arguments)


_TASKS = {
    "AIO3": "noise, rain, haze",
    "AIO5": "noise, rain, haze, motion blur, low light",
    "CDD11": "eleven mixed degradations (CDD-11)",
}
_GREY = {"inp_channels": 1, "out_channels": 1}
_LEVELS = ("blind", "sigma15", "sigma25", "sigma50")

PUBLISHED: Mapping[str, Published] = {
    each.name: each
    for each in (
        _restormer("deraining", "rain", "1ZEDDEVW0UgkpWi-N4Lj_JUoVChGXCu_u", "deraining.pth"),
        _restormer("motion-deblurring", "motion blur", "1czMyfRTQDX3j3ErByYeZ1PM4GVLbJeGK", "motion_deblurring.pth"),
        _restormer(
            "single-image-defocus-deblurring",
            "defocus blur",
            "1bRBG8DG_72AGA6-eRePvChlT5ZO4cwJ4",
            "single_image_defocus_deblurring.pth",
        ),
        _restormer(
            "dual-pixel-defocus-deblurring",
            "defocus blur, from the two views of a dual-pixel sensor",
            "1bRBG8DG_72AGA6-eRePvChlT5ZO4cwJ4",
            "dual_pixel_defocus_deblurring.pth",
            26_132_548,
            {"inp_channels": 6, "dual_pixel_task": True},
            images=False,
        ),
        _restormer(
            "real-denoising",
            "a camera's noise",
            "1Qwsjyny54RZWa7zC4Apg7exixLBo4uF0",
            "real_denoising.pth",
            26_111_668,
            _BIAS_FREE,
        ),
        *(_denoising("color", levels, 26_111_668, _BIAS_FREE) for levels in _LEVELS),
        *(_denoising("gray", levels, 26_109_076, {**_BIAS_FREE, **_GREY}) for levels in _LEVELS),
        Published(
            "promptir",
            _TASKS["AIO3"],
            "model.ckpt",
            "https://drive.google.com/file/d/1j-b5Od70pGF7oaCqKAfUzmf-N-xEAjYl/view",
            _ACADEMIC,
            "promptir",
            35_592_263,
        ),
        Published(
            "adair-5",
            _TASKS["AIO5"],
            "adair5d.ckpt",
            "https://drive.google.com/drive/folders/1x2LN4kWkO3S65jJlH-1INUFiYt8KFzPH",
            "MIT",
            "adair",
            28_784_824,
        ),
        Published(
            "histoformer",
            "snow, rain with haze, raindrops",
            "net_g_best.pth",
            _HISTOFORMER,
            "none stated",
            "histoformer",
            16_615_100,
            _HISTOFORMER_ARGUMENTS,
        ),
        Published(
            "histoformer-real",
            "the same, for real photographs",
            "net_g_real.pth",
            _HISTOFORMER,
            "none stated",
            "histoformer",
            16_615_100,
            _HISTOFORMER_ARGUMENTS,
        ),
        *(
            _moce_ir(size, dim, parameters, tasks, task)
            for size, dim, parameters in (("MoCE_IR", 48, 25_353_796), ("MoCE_IR_S", 32, 11_477_752))
            for tasks, task in _TASKS.items()
        ),
    )
}
"""Name -> checkpoint, as the authors' pages describe it. The files themselves were not at hand."""
