"""Fine-tunes only the parameters that ExDA added, on the demo's photograph: a few seconds that show how it is done.

    python examples/finetune_new_parameters.py

Real training differs only in its data and length: patch, freeze the host (or not), train, save the state dict.
"""

import torch
from torch import nn

import exda_primitives as exda
from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.demo.photograph import photograph

STEPS = 20


def main() -> None:
    """Trains and prints the loss before and after."""
    torch.manual_seed(0)
    model = exda.models.Restormer(dim=12, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, ffn_expansion_factor=2)
    report = exda.patch(model)
    print(report)

    parameters = exda.train_only_new(model)
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)

    clean = photograph()[..., 128:256, 192:320]
    degraded = mixed(clean, torch.Generator().manual_seed(0))
    losses = []
    for _ in range(STEPS):
        loss = nn.functional.l1_loss(model(degraded), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"{len(parameters)} tensors trained; L1 loss {losses[0]:.4f} -> {losses[-1]:.4f} after {STEPS} steps")


if __name__ == "__main__":
    main()
