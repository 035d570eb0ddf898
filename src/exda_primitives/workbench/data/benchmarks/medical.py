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
"""Modality -> the values that become 0 and 1; what is beyond is cut."""


def medical_files(root: str | Path, split: Literal["train", "validation", "test"] = "test") -> PairedFiles:
    """AMIR's images of three modalities.

    Layout, as in Yaziwel/All-In-One-Medical-Image-Restoration-via-Task-Adaptive-Routing (data/MedicalDataUniform.py)::

        {PET,CT,MRI}/train/{LQ,HQ}/X.bin                    pickled arrays
        {PET,CT,MRI}/{validation,test}/{LQ,HQ}/X.nii        NIfTI

    It states no numbers of images.

    Args:
        root: folder.
        split: "train", "validation" or "test".

    Returns:
        Pairs of ``PET``, ``CT`` and ``MRI``, which are read by ``read_slice``.

    Raises:
        DataError: which file is missing where, or is left over.
    """
    search = Search(f"AMIR's medical set ({split})", Path(root), read_slice)
    for modality in RANGES:
        folder = f"{modality}/{split}"
        search.pair(f"{folder}/LQ", f"{folder}/HQ", modality, suffixes=[".bin" if split == "train" else ".nii"])
    return search.found({})


def read_slice(path: Path, modality: str) -> Tensor:
    """Reads one slice and maps the range of its modality to [0, 1], as AMIR does.

    Rows and columns are those that SimpleITK gives. NIfTI needs nibabel, of the extra ``data``. Pickled arrays are
    read without running code.

    Args:
        path: of a ``.nii`` or ``.bin`` file.
        modality: ``"PET"``, ``"CT"`` or ``"MRI"``.

    Returns:
        (1, H, W) float32 in [0, 1].

    Raises:
        ImageError: for a file that is damaged, or holds anything else than one slice of finite numbers.
        ExDAError: if nibabel is missing.
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
        # Transposed: nibabel counts x first, SimpleITK's arrays last.
        return nibabel.load(path).get_fdata(dtype=np.float32).T
    # Of a damaged header nibabel raises errors of several packages, some of them derived from Exception alone.
    except Exception as error:
        raise ImageError(f"{path} is no NIfTI file that can be read ({type(error).__name__}: {error})") from error
