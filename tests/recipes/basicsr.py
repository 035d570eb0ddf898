"""What the trainers that descend from BasicSR (Restormer's, Histoformer's) do with a network, and no more.

A network and its average, both made by ``define_network``; weights read strictly under ``params`` and ``params_ema``;
gradients of the whole network clipped; state dicts written entry by entry; optimizers in a file of their own.
"""

import copy

import torch
from torch import nn


class Trainer:
    """Trains one network.

    Args:
        define_network: builds the network; the line ``exda.patch`` is in this function.
        folder: where files are written.
        pretrained: file to start from.
        decay: decay of the moving average; 0 for no average.
        learning_rate: learning rate of Adam.
    """

    def __init__(self, define_network, folder, pretrained=None, decay=0.999, learning_rate=1e-3):
        self.folder, self.decay = folder, decay
        self.net_g = define_network()
        if pretrained is not None:
            self.load_network(self.net_g, pretrained, "params")
        self.net_g.train()
        if decay:
            self.net_g_ema = define_network()
            if pretrained is not None:
                self.load_network(self.net_g_ema, pretrained, "params_ema")
            else:
                self.average(0)
            self.net_g_ema.eval()
        trained = [parameter for _, parameter in self.net_g.named_parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=learning_rate)

    def average(self, decay):
        now = dict(self.net_g.named_parameters())
        for name, parameter in self.net_g_ema.named_parameters():
            parameter.data.mul_(decay).add_(now[name].data, alpha=1 - decay)

    def step(self, degraded, clean):
        self.optimizer.zero_grad()
        (self.net_g(degraded) - clean).abs().mean().backward()
        nn.utils.clip_grad_norm_(self.net_g.parameters(), 0.01)
        self.optimizer.step()
        if self.decay:
            self.average(self.decay)

    def save(self, iteration):
        nets = {"params": self.net_g, **({"params_ema": self.net_g_ema} if self.decay else {})}
        held = {}
        for key, net in nets.items():
            state = net.state_dict()
            for name, tensor in state.items():
                state[name] = tensor.cpu()
            held[key] = state
        torch.save(held, self.folder / f"net_g_{iteration}.pth")
        state = {"iter": iteration, "optimizers": [self.optimizer.state_dict()]}
        torch.save(state, self.folder / f"{iteration}.state")

    def load_network(self, net, path, param_key):
        held = torch.load(path, map_location="cpu")
        if param_key not in held:
            param_key = "params"
        held = held[param_key]
        for name, tensor in copy.deepcopy(held).items():
            if name.startswith("module."):
                held[name.removeprefix("module.")] = tensor
                held.pop(name)
        there = net.state_dict()
        # BasicSR compares sizes: every common entry has to be a tensor.
        assert all(there[name].size() is not None and held[name].size() is not None for name in there.keys() & held)
        net.load_state_dict(held, strict=True)

    def resume(self, iteration):
        state = torch.load(self.folder / f"{iteration}.state")
        self.optimizer.load_state_dict(state["optimizers"][0])


def loaded_for_testing(define_network, path):
    """Builds, fills and wraps a network as the repositories' test scripts do."""
    network = define_network()
    network.load_state_dict(torch.load(path)["params"])
    return nn.DataParallel(network).eval()
