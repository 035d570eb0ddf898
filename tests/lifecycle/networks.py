"""The reference networks at a small size, and small images for them."""

import torch

import exda_primitives as exda

SMALL = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 2}
FEW_BLOCKS = {"num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0}
# One block, at an eighth of the image's side, the level furthest from the input: compiling takes time per block.
ONE_BLOCK = {"num_blocks": [0, 0, 0, 1], "num_refinement_blocks": 0}
CLASSES = {"mdta": exda.models.Restormer, "cross": exda.models.AdaIR, "histogram": exda.models.Histoformer}


def network(family="mdta", seed=0, **options):
    """The unpatched network of a family; the same numbers in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLASSES[family](**SMALL | options).eval()
    # AdaIR starts with these at 0, where its cross attentions have neither effect nor gradient.
    for name, parameter in model.named_parameters():
        if name.endswith("para1"):
            torch.nn.init.ones_(parameter)
    return model


def trained(family="mdta", seed=0, config=None, **options):
    """The patched network of a family, with random values for every new parameter, as if trained."""
    model = network(family, seed, **options)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        exda.patch(model, config)
        for parameter in exda.new_parameters(model):
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def image(seed=0, height=16, width=24, batch=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, height, width, generator=generator).to(dtype)


def loss(model, x):
    return (model(x) - 0.5).square().mean()
