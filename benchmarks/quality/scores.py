"""Scores a network: PSNR and SSIM of the test photographs, and how well it tells their degradations apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exda_primitives.errors import ImageError
from exda_primitives.workbench.data import Images, degrade
from exda_primitives.workbench.data.degradations.tensors import Degradation
from exda_primitives.workbench.evaluation import Case, ImageResult, evaluate
from exda_primitives.workbench.evaluation.protocols import PLAIN
from exda_primitives.workbench.inspection import agreement, concatenated, embeddings
from exda_primitives.workbench.restoration import Restorer
from exda_primitives.workbench.shared.crops import centre

SEED = 1234
"""Seed of the test photographs' degradations, the same for all trained networks."""


class Photographs:
    """Test photographs: each is degraded as a whole, once, and then cropped around its centre.

    Args:
        images: the clean photographs.
        crop: side of the crop in pixels, or None for whole photographs.
        more: further degradations by name, in addition to the library's.
    """

    def __init__(self, images: Images, crop: int | None, more: Mapping[str, Degradation] | None = None) -> None:
        self.images, self.crop, self.more = images, crop, more or {}
        self._degraded = lru_cache(maxsize=None)(self._make)
        self._clean = lru_cache(maxsize=None)(lambda index: self._inside(self.images[index]))

    def check(self) -> None:
        """Reads all photographs, so that an unusable one is reported before hours of training.

        Raises:
            ImageError: for a photograph that cannot be read or is smaller than the crop.
        """
        for index, name in enumerate(self.images.names):
            height, width = self.images[index].shape[-2:]
            if self.crop is not None and min(height, width) < self.crop:
                raise ImageError(
                    f"{self.images.path}: {name} has {height} x {width} pixels, too few for the middle "
                    f"{self.crop} x {self.crop}"
                )

    def scored(self, net: nn.Module, degradations: Sequence[str], tile: int | None = None) -> dict[str, Any]:
        """Restores and scores all photographs.

        Args:
            net: the network.
            degradations: names of the degradations.
            tile: side of the tiles in pixels, which overlap by a quarter; None for whole photographs.

        Returns:
            Plain data: degradation -> ``psnr`` (dB) and ``ssim`` of each photograph, and ``degraded_psnr``, the mean
            PSNR of the inputs.

        Raises:
            ImageError: for an output that is not finite.
        """
        cases = [
            Case(name, degradation, partial(self._clean, index), stored=partial(self._degraded, degradation, index))
            for degradation in degradations
            for index, name in enumerate(self.images.names)
        ]
        found: dict[str, list[ImageResult]] = {}
        restorer = Restorer(net.eval(), tile=tile, overlap=tile and tile // 4)
        for result in evaluate(restorer, cases, PLAIN):
            found.setdefault(result.degradation, []).append(result)
        return {
            degradation: {
                "psnr": [round(each.restored.psnr, 4) for each in results],
                "ssim": [round(each.restored.ssim, 5) for each in results],
                "degraded_psnr": round(float(np.mean([each.degraded.psnr for each in results])), 4),
            }
            for degradation, results in found.items()
        }

    def told_apart(self, net: nn.Module, degradations: Sequence[str]) -> dict[str, list[float]] | None:
        """Measures how well k-means on the outputs of all attentions finds the degradation of each photograph.

        Returns:
            Plain data: ``nmi`` and ``ari``, one figure for each seed of k-means, see
            ``exda_primitives.workbench.inspection.agreement``. None for a single degradation or photograph.

        Raises:
            ExDAError: for features that are not finite.
        """
        number = len(self.images)
        if len(degradations) < 2 or number < 2:
            return None
        labels = [degradation for degradation in degradations for _ in range(number)]
        shown = (self._degraded(name, index) for name in degradations for index in range(number))
        found = agreement(concatenated(embeddings(net, shown)), labels)
        return {"nmi": [round(each.nmi, 4) for each in found], "ari": [round(each.ari, 4) for each in found]}

    def degraded(self, degradation: str, index: int) -> Tensor:
        """Returns a degraded photograph (C, H, W) in [0, 1], the same each time."""
        return self._degraded(degradation, index)

    def _make(self, degradation: str, index: int) -> Tensor:
        # A seed of its own for each photograph, the same for all degradations.
        seed = int(np.random.SeedSequence([SEED, index]).generate_state(1)[0])
        if degradation in self.more:
            clean = self.images[index][None]
            return self._inside(self.more[degradation](clean, torch.Generator().manual_seed(seed))[0])
        return self._inside(degrade(self.images[index], degradation, seed))

    def _inside(self, image: Tensor) -> Tensor:
        return image if self.crop is None else centre(image, self.crop).contiguous()
