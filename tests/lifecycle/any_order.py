"""Random life cycles of a small network, checked against its expected weights by name and configurations by block.

After every step the network must compute, in float64, what a freshly built network computes that is patched and filled
as expected. It must have the same keys and, until it is replaced by a copy, the original parameter objects.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.patching.models import Net
from tests.patching.tokens import XCA
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import exda_primitives as exda
from exda_primitives.models.blocks import CrossAttention, TransformerBlock
from exda_primitives.models.histoformer import HistogramAttention

FAMILIES = ("mdta", "cross", "histogram", "xca")
BLOCKS = 3
CONFIGS = (
    exda.ExDAConfig(),
    exda.ExDAConfig(tokens=2, stride=1, scale="mean"),
    exda.ExDAConfig(tokens=0),
    exda.ExDAConfig(value="none", tokens=4, reinject="channelwise"),
    exda.ExDAConfig(value_position="after", init="paper"),
    exda.ExDAConfig(value="gelu", init="paper"),
    exda.ExDAConfig(value="replace", init="paper", stride=3),
)
blocks = st.sets(st.integers(0, BLOCKS - 1), min_size=1)
configs = st.sampled_from(CONFIGS)


class TokenBlock(nn.Module):
    """``x + attn(x)`` on the pixels of a map; the attention is not told the map's size."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = XCA(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x.flatten(2).mT).mT.unflatten(2, x.shape[2:])


class Blocks(nn.Module):
    """Convolution, blocks, convolution."""

    def __init__(self, *made: nn.Module) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*made)
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = image + self.tail(self.blocks(self.head(image)))
        return out


def host(family: str, seed: int) -> Any:
    """Three blocks of a family, in float64 and eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made: nn.Module
        if family == "mdta":
            made = Blocks(*(TransformerBlock(8, 2, 2, False, "WithBias") for _ in range(BLOCKS)))
        elif family == "xca":
            made = Blocks(*(TokenBlock() for _ in range(BLOCKS)))
        elif family == "cross":
            made = Net(*(CrossAttention(8, 2, False) for _ in range(BLOCKS)), inputs=2)
        else:
            made = Net(*(HistogramAttention(8, 2, False) for _ in range(BLOCKS)))
    return made.double().eval()


@cache
def patched(family: str, configs: tuple[tuple[int, exda.ExDAConfig], ...]) -> nn.Module:
    """A network that is patched once for each configuration; callers copy it."""
    net: nn.Module = host(family, 0)
    for block, config in configs:
        exda.patch(net, config, include=attention(block), verify=False)
    return net


def image() -> Tensor:
    return torch.rand(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def attention(block: int) -> str:
    return f"blocks.{block}.attn"


@dataclass
class Expected:
    """The state that the network is expected to have."""

    family: str
    weights: dict[str, Tensor]
    configs: dict[int, exda.ExDAConfig] = field(default_factory=dict)

    def network(self) -> nn.Module:
        """Returns a freshly built network, patched and filled as expected."""
        net = copy.deepcopy(patched(self.family, tuple(self.configs.items())))
        own = dict(net.named_parameters())
        assert own.keys() == self.weights.keys()
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(self.weights[name])
        return net

    def take(self, net: nn.Module) -> None:
        """Takes over the weights of ``net``, under names without torch.compile's prefix."""
        self.weights = {bare(name): p.detach().clone() for name, p in net.named_parameters()}


def bare(name: str) -> str:
    return name.replace("_orig_mod.", "")


@torch.no_grad()
def restored(net: nn.Module) -> Tensor:
    out: Tensor = net(image())
    return out


class LifeCycle(RuleBasedStateMachine):
    """Each rule is something that users do to a network."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.saved: dict[str, Expected] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(family=st.sampled_from(FAMILIES))
    def begin(self, family: str) -> None:
        self.net = host(family, 0)
        self.expected = Expected(family, {})
        self.expected.take(self.net)
        self.remember()
        self.fused = False

    @property
    def compiled(self) -> set[int]:
        """The blocks whose attention is compiled by itself."""
        return {block for block in range(BLOCKS) if hasattr(self.net.blocks[block].attn, "_orig_mod")}

    def remember(self) -> None:
        """Notes the parameters that must stay the same objects."""
        self.objects = {
            name: p for name, p in self.net.named_parameters() if "attn." not in name or is_host_parameter(name)
        }

    @rule(chosen=blocks, config=configs)
    def patch(self, chosen: set[int], config: exda.ExDAConfig) -> None:
        names = [attention(block) for block in chosen]
        patched_already = {block: self.expected.configs[block] for block in chosen if block in self.expected.configs}
        # An attention that was compiled by itself cannot be patched.
        unpatchable = chosen & self.compiled - self.expected.configs.keys()
        if unpatchable or any(held != config for held in patched_already.values()):
            self.assert_refused(lambda: exda.patch(self.net, config, include=names, verify=False))
            return
        torch.manual_seed(len(self.expected.configs))
        exda.patch(self.net, config, include=names)
        self.expected.configs |= dict.fromkeys(chosen, config)
        self.expected.configs = dict(sorted(self.expected.configs.items()))
        # New parameters are random, and are taken over; all others must be as before.
        before = self.expected.weights
        self.expected.take(self.net)
        for name, tensor in before.items():
            # Not bit for bit: training in fused blocks sums in another order.
            torch.testing.assert_close(self.expected.weights[name], tensor, rtol=1e-9, atol=1e-12)

    @precondition(lambda self: self.expected.configs)
    @rule()
    def unpatch(self) -> None:
        exda.unpatch(self.net)
        self.expected.configs = {}
        self.expected.weights = {
            n: t for n, t in self.expected.weights.items() if "attn." not in n or is_host_parameter(n)
        }
        assert not exda.is_patched(self.net)

    @rule(alone=st.booleans(), seed=st.integers(0, 3))
    def train(self, alone: bool, seed: int) -> None:
        twin = self.expected.network()
        for net in (self.net, twin):
            trained = exda.new_parameters(net) if alone and self.expected.configs else list(net.parameters())
            target = torch.rand(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            gradients = torch.autograd.grad((net(image()) - target).square().mean(), trained, allow_unused=True)
            with torch.no_grad():
                for parameter, gradient in zip(trained, gradients, strict=True):
                    if gradient is not None:
                        parameter.sub_(gradient, alpha=0.1)
        self.expected.take(twin)

    @precondition(lambda self: self.expected.family != "xca" and not self.fused and not self.compiled)
    @rule()
    def fuse(self) -> None:
        try:
            exda.fuse(self.net)
        except exda.NoMatchError:
            # Not every block with a single norm and function can be fused.
            return
        self.fused = True

    @precondition(lambda self: self.fused)
    @rule()
    def unfuse(self) -> None:
        exda.unfuse(self.net)
        self.fused = False

    @precondition(lambda self: not self.fused)
    @rule(block=st.integers(0, BLOCKS - 1))
    def compile_a_part(self, block: int) -> None:
        if block not in self.compiled:
            holder = self.net.blocks[block]
            holder.attn = torch.compile(holder.attn, backend="eager")

    @precondition(lambda self: self.compiled)
    @rule()
    def remove_compilation(self) -> None:
        for block in self.compiled:
            holder = self.net.blocks[block]
            holder.attn = holder.attn._orig_mod

    @precondition(lambda self: self.expected.configs and not self.compiled)
    @rule(whole=st.booleans())
    def save(self, whole: bool) -> None:
        name = "whole" if whole else "new"
        exda.save(self.net, self.path(name), whole=whole)
        self.saved[name] = copy.deepcopy(self.expected)

    @rule()
    def save_as_trainers_do(self) -> None:
        state = {bare(name): tensor.clone() for name, tensor in self.net.state_dict().items()}
        torch.save({"params": state}, self.path("trainer"))
        self.saved["trainer"] = copy.deepcopy(self.expected)

    @precondition(lambda self: self.saved and not self.compiled)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.saved)))
        held = self.saved[name]
        ours = {n: t for n, t in held.weights.items() if "attn." in n and not is_host_parameter(n)}
        hosts = {n: t for n, t in held.weights.items() if n not in ours}
        mine, theirs = self.expected.configs, held.configs
        fits = all(mine[block].computes_as(theirs[block]) for block in mine.keys() & theirs.keys())
        if name != "trainer":
            fits = fits and mine.keys() <= theirs.keys()
        if name == "new":
            fits = fits and all(torch.equal(self.expected.weights[n], tensor) for n, tensor in hosts.items())
        if not fits:
            self.assert_refused(lambda: self.read(name))
            return
        self.read(name)
        self.expected.configs = dict(sorted((theirs | mine).items()))
        self.expected.weights |= held.weights

    def read(self, name: str) -> None:
        if name == "trainer":
            exda.load_checkpoint(self.path(name), into=self.net)
        else:
            exda.load(self.net, self.path(name))

    @precondition(lambda self: "trainer" in self.saved)
    @rule()
    def load_strictly_as_trainers_do(self) -> None:
        held = self.saved["trainer"]
        state = torch.load(self.path("trainer"), weights_only=True)["params"]
        own = {bare(name): name for name in self.net.state_dict()}
        state = {own.get(name, name): tensor for name, tensor in state.items()}
        mine, theirs = self.expected.configs, held.configs
        if theirs.keys() <= mine.keys() and all(mine[b].computes_as(theirs[b]) for b in theirs):
            self.net.load_state_dict(state, strict=True)
            self.expected.weights |= held.weights

    @precondition(lambda self: not self.compiled)
    @rule(how=st.sampled_from(["deepcopy", "pickle", "average", "torch.save"]))
    def continue_with_a_copy(self, how: str) -> None:
        if how == "deepcopy":
            self.net = copy.deepcopy(self.net)
        elif how == "pickle":
            self.net = pickle.loads(pickle.dumps(self.net))
        elif how == "average":
            average = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
            average.update_parameters(self.net)
            average.update_parameters(self.net)
            self.net = average.module
        else:
            torch.save(self.net, self.path("module"))
            self.net = torch.load(self.path("module"), weights_only=False)
        self.remember()

    @rule(dtype=st.sampled_from([torch.float32, torch.float64]))
    def call_through_data_parallel(self, dtype: torch.dtype) -> None:
        with torch.no_grad():
            out = nn.DataParallel(self.net)(image())
        assert torch.equal(out, restored(self.net))

    def assert_refused(self, call: Any) -> None:
        before = restored(self.net)
        keys = list(self.net.state_dict())
        try:
            call()
        except exda.ExDAError:
            assert torch.equal(restored(self.net), before)
            assert list(self.net.state_dict()) == keys
        else:
            raise AssertionError("expected an ExDAError, but the call succeeded")

    def path(self, name: str) -> Path:
        return Path(self.folder.name) / (name if name in ("trainer", "module") else f"{name}.safetensors")

    @invariant()
    def network_is_as_expected(self) -> None:
        if not hasattr(self, "net"):
            return
        own = {bare(name): p for name, p in self.net.named_parameters()}
        assert own.keys() == self.expected.weights.keys()
        assert all(torch.allclose(own[n], t, rtol=1e-9, atol=1e-12) for n, t in self.expected.weights.items())
        for name, parameter in self.objects.items():
            assert own[bare(name)] is parameter
        assert exda.is_patched(self.net) == bool(self.expected.configs)
        found = {
            int(bare(name).split(".")[1]): module.config
            for name, module in self.net.named_modules()
            if isinstance(module, exda.ExDAModule)
        }
        assert found.keys() == self.expected.configs.keys()
        assert all(found[block].computes_as(config) for block, config in self.expected.configs.items())
        torch.testing.assert_close(restored(self.net), restored(self.expected.network()), rtol=1e-8, atol=1e-10)


def is_host_parameter(name: str) -> bool:
    """Whether a parameter of an attention is the host's own."""
    inner = bare(name).split("attn.", 1)[1].split(".")[0]
    return inner not in ("value", "token", "alpha", "token_gate")
