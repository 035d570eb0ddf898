"""The medical images of AMIR: PET synthesis, CT denoising and MRI super-resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ....errors import ImageError
from ....extras import require_extra
from .files import PairedFiles, Search
from .plain_pickle import read_array

RANGES = {"PET": (0.0, 20.0), "CT": (-1024.0, 3071.0), "MRI": (0.0, 4095.0)}
"""Modality -> the values that are mapped to 0 and 1; values beyond are clipped."""


def medical_files(root: str | Path, split: Literal["train", "validation", "test"] = "test") -> PairedFiles:
    """Finds the pairs of AMIR's images, in three modalities.

    Layout, as in Yaziwel/All-In-One-Medical-Image-Restoration-via-Task-Adaptive-Routing (data/MedicalDataUniform.py)::

        {PET,CT,MRI}/train/{LQ,HQ}/X.bin                    pickled arrays
        {PET,CT,MRI}/{validation,test}/{LQ,HQ}/X.nii        NIfTI

    AMIR publishes no numbers of images, so none are checked.

    Args:
        root: folder of the benchmark.
        split: "train", "validation" or "test".

    Returns:
        Pairs with the degradations ``PET``, ``CT`` and ``MRI``, which are read by ``read_slice``.

    Raises:
        DataError: files are missing or left over; the message lists which.
    """
    search = Search(f"AMIR's medical set ({split})", Path(root), read_slice)
    for modality in RANGES:
        folder = f"{modality}/{split}"
        search.pair(f"{folder}/LQ", f"{folder}/HQ", modality, suffixes=[".bin" if split == "train" else ".nii"])
    return search.found({})


def read_slice(path: Path, modality: str) -> Tensor:
    """Reads one slice and maps the range of its modality to [0, 1], as AMIR does.

    Rows and columns are in SimpleITK's order. NIfTI needs nibabel, from the extra ``data``. Pickled arrays are read
    without running code.

    Args:
        path: a ``.nii`` or ``.bin`` file.
        modality: ``"PET"``, ``"CT"`` or ``"MRI"``.

    Returns:
        (1, H, W) float32 in [0, 1].

    Raises:
        ImageError: the file is damaged, or holds anything but one slice of finite numbers.
        ExDAError: nibabel is missing.
    """
    values = np.squeeze(_nifti(path) if path.suffix == ".nii" else read_array(path))
    if values.ndim != 2:
        raise ImageError(f"{path} has shape {values.shape}; one slice (H, W) is read")
    if not np.isfinite(values).all():
        raise ImageError(f"{path} holds NaN or infinity")
    low, high = RANGES[modality]
    return torch.from_numpy((values.astype(np.float32).clip(low, high) - low) / (high - low))[None]


def _nifti(path: Path) -> Any:
    nibabel = require_extra("nibabel", "data")
    try:
        # Transposed: x is the first axis in nibabel, and the last in SimpleITK's arrays.
        return nibabel.load(path).get_fdata(dtype=np.float32).T
    # On a damaged header nibabel raises errors of several packages, whose only common base is Exception.
    except Exception as error:
        raise ImageError(f"{path} is no NIfTI file that can be read ({type(error).__name__}: {error})") from error
