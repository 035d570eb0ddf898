"""What fuse changes in a model and what it keeps, and that unfuse undoes all of it."""

import copy
import io
import json
import pickle

import pytest
import torch
import torch.distributed as dist
from tests.patching.test_wrappers import WRAPPERS
from tests.patching.unchanged import unchanged
from torch import nn
from torch.utils.checkpoint import checkpoint

import exda_primitives as exda
from exda_primitives.fusion.block import FusedBlock

from .blocks import FUSED, Block, Dropout, Idle, InTheBlock, Lists, Net, image, patch_randomly, two_blocks

BOTH_STEPS = ["attention_step", "gated_step"]


def in_training(model):
    """Output and all gradients in training mode; seeded, so that every call drops the same."""
    torch.manual_seed(1)
    model.train()
    out = model(image())
    return [out, *torch.autograd.grad(out.square().sum(), [*model.parameters()])]


class TestOutputs:
    """Modules of a fused block compute the same bits as before; formulas read off a block compute what it does."""

    @pytest.mark.parametrize("name", FUSED)
    def test_modules_compute_the_same_bits(self, name):
        model = Net(FUSED[name][0]()).requires_grad_()
        x = image()
        with exda.backend("torch"):
            expected = [model.eval()(x), *in_training(model)]
            exda.fuse(model)
            found = [model.eval()(x), *in_training(model)]
        assert all(map(torch.equal, found, expected))

    @pytest.mark.parametrize("backend", ["reference", "torch"])
    def test_patched_model_computes_the_same_bits(self, backend):
        model = patch_randomly(two_blocks())
        with exda.backend(backend):
            expected = in_training(model)
            exda.fuse(model)
            found = in_training(model)
        assert all(map(torch.equal, found, expected))

    @pytest.mark.parametrize("name", FUSED)
    @torch.no_grad()
    def test_recognised_formulas_compute_what_the_block_does(self, name, ran_as_formulas):
        # In eval mode and in training mode.
        model = Net(FUSED[name][0]()).double()
        x = image(dtype=torch.float64)
        kinds = {"attention": "attention_step", "gated feed-forward": "gated_step", "any function": "normalise"}
        for training in (False, True):
            torch.manual_seed(1)
            expected = model.train(training)(x)
            (block,) = exda.fuse(model).blocks
            torch.manual_seed(1)
            # A norm computed in float32 is exact to 1e-7 only.
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-6 if "float32" in name else 1e-12)
            # Other convolutions than 3x3 without dilation and reflection are left to modules.
            if "5x5" not in name and "dilated" not in name and "reflecting" not in name:
                assert ran_as_formulas == [kinds[step.kind] for step in block.steps]
            ran_as_formulas.clear()
            exda.unfuse(model)


class TestParameters:
    def test_parameters_keep_objects_names_and_order(self):
        model = two_blocks()
        parameters, state = dict(model.named_parameters()), model.state_dict(keep_vars=True)
        exda.fuse(model)
        assert list(dict(model.named_parameters()).items()) == list(parameters.items())
        after = model.state_dict(keep_vars=True)
        assert list(after) == list(state)
        assert all(after[key] is state[key] for key in state)

    @pytest.mark.parametrize("training", [True, False])
    def test_mode_and_requires_grad_are_kept(self, training):
        model = two_blocks().train(training)
        model.blocks[0].norm1.train(not training)
        model.blocks[0].ffn.requires_grad_(False)
        modes = {name: module.training for name, module in model.named_modules()}
        wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        exda.fuse(model)
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
        model.train(not training)
        assert model.blocks[0].ffn.dwconv.training is not training
        exda.unfuse(model)
        assert all(module.training is not training for module in model.modules())

    def test_attributes_of_the_block_can_be_read(self):
        model = two_blocks()
        model.blocks[0].drop_rate = 0.1
        exda.fuse(model)
        assert model.blocks[0].drop_rate == 0.1
        assert model.blocks[0].attn.num_heads == 2

    @torch.no_grad()
    @pytest.mark.usefixtures("ran_as_formulas")
    def test_kernels_read_the_current_parameters(self):
        model = two_blocks().double()
        exda.fuse(model)
        for parameter in model.parameters():
            parameter.mul_(1.1)
        scaled = {key: 1.1 * value for key, value in model.named_parameters()}
        model.load_state_dict(model.state_dict() | scaled, assign=True)
        x = image(dtype=torch.float64)
        found = model(x)
        with exda.backend("torch"):
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-12)


class TestUnfuse:
    def test_unfuse_restores_the_model(self):
        model = Net(Block(), Lists(), Idle())
        with unchanged(model):
            assert len(exda.fuse(model).blocks) == 3
            assert exda.unfuse(model) == ("blocks.0", "blocks.1", "blocks.2")

    def test_unfusing_twice_is_an_error(self):
        model = two_blocks()
        exda.fuse(model)
        exda.unfuse(model)
        with unchanged(model), pytest.raises(exda.NotFusedError, match=r"Net holds no block that exda\.fuse put there"):
            exda.unfuse(model)

    def test_unfuse_keeps_later_changes_of_parts_and_weights(self):
        model = two_blocks()
        block = model.blocks[0]
        exda.fuse(model)
        layer = model.blocks[0].ffn = Dropout()
        model.double()
        exda.unfuse(model)
        assert model.blocks[0] is block
        assert block.ffn is layer
        assert all(parameter.dtype is torch.float64 for parameter in model.parameters())

    def test_fused_block_itself_is_refused_and_can_be_released(self):
        model = two_blocks()
        exda.fuse(model)
        block = model.blocks[0]
        with unchanged(block), pytest.raises(exda.RootModuleError, match=r"release\(\)"):
            exda.unfuse(block)
        assert isinstance(block.release(), Block)

    def test_unfuse_part_of_a_model(self):
        model = Net(nn.Sequential(Block()), nn.Sequential(Block()))
        exda.fuse(model)
        assert exda.unfuse(model.blocks[0]) == ("0",)
        assert [isinstance(stage[0], FusedBlock) for stage in model.blocks] == [False, True]


class TestAgain:
    def test_fusing_twice_changes_nothing(self):
        model = two_blocks()
        exda.fuse(model)
        with unchanged(model):
            report = exda.fuse(model)
        assert report.blocks == ()
        assert report.already_fused == ("blocks.0", "blocks.1")
        assert "already fused: 2" in str(report)

    def test_only_new_blocks_are_fused(self):
        model = two_blocks()
        exda.fuse(model)
        model.blocks.append(Block())
        report = exda.fuse(model)
        assert [block.name for block in report.blocks] == ["blocks.2"]
        assert len(exda.unfuse(model)) == 3

    def test_fusing_a_fused_block_changes_nothing(self):
        model = two_blocks()
        exda.fuse(model)
        assert exda.fuse(model.blocks[0]).already_fused == ("",)


class TestWithPatch:
    """Patch and fuse in any order, undone in any order."""

    def test_patched_first_unpatched_first(self):
        model = two_blocks()
        with unchanged(model, random_numbers=False):
            exda.patch(model)
            exda.fuse(model)
            exda.unpatch(model)
            exda.unfuse(model)

    def test_fused_first_unfused_first(self):
        model = two_blocks()
        with unchanged(model, random_numbers=False):
            exda.fuse(model)
            exda.patch(model)
            exda.unfuse(model)
            assert exda.is_patched(model)
            exda.unpatch(model)

    def test_fused_blocks_change_no_names(self):
        plain, fused = two_blocks(), two_blocks()
        exda.fuse(fused)
        assert exda.plan(plain).as_dict() == exda.plan(fused).as_dict()
        for model in (plain, fused):
            exda.patch(model, include="blocks.1")
        assert list(plain.state_dict()) == list(fused.state_dict())
        assert [name for name, _ in fused.named_modules()] == [name for name, _ in plain.named_modules()]

    @torch.no_grad()
    def test_attentions_patched_after_fuse_are_computed(self, ran_as_formulas):
        model = two_blocks().double()
        x = image(dtype=torch.float64)
        exda.fuse(model)
        plain = model(x)
        patch_randomly(model)
        ran_as_formulas.clear()
        found = model(x)
        assert ran_as_formulas == 2 * BOTH_STEPS
        assert not torch.allclose(found, plain)
        with exda.backend("reference"):
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-12)
        exda.unpatch(model)
        assert torch.equal(model(x), plain)

    def test_patched_and_unpatched_blocks_are_both_fused(self):
        model = two_blocks()
        exda.patch(model, include="blocks.0")
        assert len(exda.fuse(model).blocks) == 2

    def test_patched_context_on_a_fused_model(self):
        model = two_blocks()
        exda.fuse(model)
        with unchanged(model, random_numbers=False), exda.patched(model):
            assert exda.is_patched(model)

    @torch.no_grad()
    def test_save_and_load_across_fuse(self, tmp_path):
        model = patch_randomly(two_blocks())
        exda.fuse(model)
        exda.save(model, tmp_path / "fused.safetensors", whole=True)
        other = two_blocks()
        exda.load(other, tmp_path / "fused.safetensors")
        x = image()
        with exda.backend("torch"):
            assert torch.equal(other(x), model(x))
            fused = two_blocks()
            exda.fuse(fused)
            exda.load(fused, tmp_path / "fused.safetensors")
            assert torch.equal(fused(x), model(x))


class TestCopies:
    """A copy of a fused model is fused, can be unfused, and shares nothing with the original."""

    @pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
    @torch.no_grad()
    def test_copy_is_independent_and_can_be_unfused(self, how, ran_as_formulas):
        model = patch_randomly(two_blocks())
        exda.fuse(model)
        if how == "deepcopy":
            other = copy.deepcopy(model)
        elif how == "pickle":
            other = pickle.loads(pickle.dumps(model))
        else:
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            other = torch.load(file, weights_only=False)
        x = image()
        assert torch.equal(other(x), model(x))
        assert ran_as_formulas == 4 * BOTH_STEPS
        expected = model(x)
        for parameter in other.parameters():
            parameter.add_(1)
        assert torch.equal(model(x), expected)
        changed = other(x)
        assert not torch.allclose(changed, expected)
        exda.unfuse(other)
        assert all(type(block) is Block for block in other.blocks)
        torch.testing.assert_close(other(x), changed)
        assert all(isinstance(block, FusedBlock) for block in model.blocks)

    @torch.no_grad()
    def test_state_dict_of_a_fused_model_loads_into_an_unfused_one(self):
        model, other = two_blocks(), two_blocks()
        exda.fuse(model)
        other.load_state_dict(model.state_dict())
        x = image()
        with exda.backend("torch"):
            assert torch.equal(model(x), other(x))

    @pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.bfloat16, lambda m: m.to(torch.float64)])
    @torch.no_grad()
    def test_converted_model_stays_on_kernels(self, convert, ran_as_formulas):
        model = two_blocks()
        exda.fuse(model)
        convert(model)
        x = image(dtype=next(model.parameters()).dtype)
        assert model(x).dtype is x.dtype
        assert ran_as_formulas == 2 * BOTH_STEPS

    @torch.no_grad()
    def test_channels_last_agrees(self):
        model = two_blocks()
        exda.fuse(model)
        x = image()
        with exda.backend("torch"):
            expected = model(x)
            model.to(memory_format=torch.channels_last)
            torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-5)

    def test_gradient_checkpointing_changes_no_bit(self, ran_as_formulas):
        model = two_blocks().double()
        exda.fuse(model)
        x = image(dtype=torch.float64)
        expected = torch.autograd.grad(model(x).sum(), [*model.parameters()])
        found = torch.autograd.grad(checkpoint(model, x, use_reentrant=False).sum(), [*model.parameters()])
        assert ran_as_formulas == 6 * BOTH_STEPS
        assert all(map(torch.equal, found, expected))


class TestShared:
    """A block in two places, and an attention in two blocks, stay shared."""

    def test_a_block_under_two_names(self):
        model = Net(Block())
        model.blocks.append(model.blocks[0])
        original = model.blocks[0]
        report = exda.fuse(model)
        (block,) = report.blocks
        assert (block.name, block.aliases) == ("blocks.0", ("blocks.1",))
        assert model.blocks[0] is model.blocks[1]
        assert exda.unfuse(model) == ("blocks.0", "blocks.1")
        assert model.blocks[0] is model.blocks[1] is original

    @torch.no_grad()
    def test_an_attention_in_two_blocks(self, ran_as_formulas):
        model = two_blocks()
        model.blocks[1].attn = model.blocks[0].attn
        exda.fuse(model)
        assert model.blocks[1].attn is model.blocks[0].attn
        x = image()
        found = model(x)
        assert ran_as_formulas == 2 * BOTH_STEPS
        exda.unfuse(model)
        torch.testing.assert_close(found, model(x))


class TestRefused:
    def test_block_itself_is_refused(self):
        block = Block()
        with unchanged(block), pytest.raises(exda.RootModuleError, match=r"Block is itself the block.*nn\.Sequential"):
            exda.fuse(block)
        model = nn.Sequential(block)
        assert [found.name for found in exda.fuse(model).blocks] == ["0"]

    @pytest.mark.filterwarnings("ignore:FSDP is switching:UserWarning")
    @pytest.mark.parametrize("call", [exda.fuse, exda.unfuse])
    @pytest.mark.parametrize("kind", WRAPPERS)
    def test_wrapped_models_are_refused(self, kind, call, tmp_path):
        dist.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
        try:
            wrap, line = WRAPPERS[kind]
            model = wrap(two_blocks())
            with unchanged(model), pytest.raises(exda.WrappedModelError) as caught:
                call(model)
        finally:
            dist.destroy_process_group()
        message = str(caught.value)
        assert kind in message
        assert line in message
        assert f"exda.{call.__name__}(model" in message
        assert "new parameters" not in message

    @pytest.mark.filterwarnings("ignore")
    def test_traced_model_is_refused(self):
        model = torch.jit.trace(two_blocks(), image(), check_trace=False)
        with pytest.raises(exda.WrappedModelError, match="Fuse the Python module it was made from"):
            exda.fuse(model)

    @pytest.mark.parametrize("call", [exda.fuse, exda.unfuse, exda.backend_report], ids=lambda call: call.__name__)
    def test_argument_that_is_no_module(self, call):
        with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got dict"):
            call({"weight": 1})

    def test_compiled_block_is_left_alone(self):
        model = two_blocks()
        model.blocks[0] = torch.compile(model.blocks[0])
        report = exda.fuse(model)
        assert [block.name for block in report.blocks] == ["blocks.1"]
        assert "fuse before compiling it" in str(report.left_alone[0])

    def test_error_names_what_was_not_recognised(self):
        model = Net(InTheBlock(), nn.Conv2d(8, 8, 1))
        with unchanged(model), pytest.raises(exda.NoMatchError) as caught:
            exda.fuse(model)
        message = str(caught.value)
        assert "Net: no transformer block around a known attention was recognised" in message
        assert "blocks.0 (InTheBlock)" in message

    def test_model_without_blocks_is_an_error(self):
        with pytest.raises(exda.NoMatchError):
            exda.fuse(nn.Sequential(nn.Conv2d(3, 3, 1)))


class TestCompiled:
    def test_compiled_model_is_fused_inside(self):
        model = two_blocks()
        compiled = torch.compile(model, backend="eager")
        report = exda.fuse(compiled)
        assert report.model == "Net"
        assert "compiled" in " ".join(report.notes)
        assert isinstance(model.blocks[0], FusedBlock)
        assert len(exda.unfuse(compiled)) == 2

    @torch.no_grad()
    def test_compiled_model_follows_fuse_and_unfuse(self):
        torch.compiler.reset()
        model = Net(Block())
        compiled, x = torch.compile(model, backend="eager", fullgraph=True), image()
        with exda.backend("torch"):
            expected = compiled(x)
            exda.fuse(compiled)
            torch.testing.assert_close(compiled(x), expected)
            exda.unfuse(compiled)
            torch.testing.assert_close(compiled(x), expected)
        torch.compiler.reset()


class InterruptedChildren(dict):
    """Children of a module; storing one of type ``kind`` raises KeyboardInterrupt."""

    kind = FusedBlock

    def __setitem__(self, key, module):
        if isinstance(module, self.kind):
            raise KeyboardInterrupt
        super().__setitem__(key, module)


class TestAtomic:
    def test_interrupted_fuse_leaves_the_model_unchanged(self):
        model = Net(nn.Sequential(Block()), nn.Sequential(Block()))
        model.blocks[1]._modules = InterruptedChildren(model.blocks[1]._modules)
        with unchanged(model), pytest.raises(KeyboardInterrupt):
            exda.fuse(model)

    def test_error_while_building_leaves_the_model_unchanged(self, monkeypatch):
        model = two_blocks()
        built = []

        def failing(self, *arguments):
            if built:
                raise MemoryError
            built.append(1)
            nn.Module.__init__(self)

        monkeypatch.setattr(FusedBlock, "__init__", failing)
        with unchanged(model), pytest.raises(MemoryError):
            exda.fuse(model)

    def test_interrupted_unfuse_leaves_the_model_fused(self):
        class InterruptedByBlocks(InterruptedChildren):
            kind = Block

        model = Net(nn.Sequential(Block()), nn.Sequential(Block()))
        exda.fuse(model)
        stage = model.blocks[1]
        stage._modules = InterruptedByBlocks(stage._modules)
        with unchanged(model), pytest.raises(KeyboardInterrupt):
            exda.unfuse(model)
        stage._modules = dict(stage._modules)
        assert len(exda.unfuse(model)) == 2


class TestReport:
    def test_report_is_plain_data(self):
        report = exda.fuse(Net(Block(), InTheBlock())).as_dict()
        assert json.loads(json.dumps(report)) == {
            "model": "Net",
            "blocks": [
                {
                    "name": "blocks.0",
                    "aliases": [],
                    "steps": [
                        {"norm": "norm1", "function": "attn", "kind": "attention"},
                        {"norm": "norm2", "function": "ffn", "kind": "gated feed-forward"},
                    ],
                }
            ],
            "left_alone": report["left_alone"] and [dict(report["left_alone"][0])],
            "already_fused": [],
            "notes": [],
        }
        assert report["left_alone"][0]["name"] == "blocks.1"

    def test_text_groups_equal_blocks(self):
        lines = str(exda.fuse(Net(Block(), Block(), Lists(), InTheBlock()))).splitlines()
        assert lines[:3] == [
            "Net: 3 blocks fused",
            "  2 x norm1, attn (attention) + norm2, ffn (gated feed-forward)",
            "  1 x norms.0, mixers.channels (attention) + norms.1, mixers.ffn (gated feed-forward)",
        ]
        assert lines[3].startswith("left alone: blocks.3 (InTheBlock): ")


def test_model_on_the_meta_device():
    with torch.device("meta"):
        model = two_blocks()
    assert len(exda.fuse(model).blocks) == 2


def test_every_block_of_histoformer_is_fused():
    model = exda.models.Histoformer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, ffn_expansion_factor=2)
    report = exda.fuse(model)
    assert len(report.blocks) == 8
    assert {step.kind for block in report.blocks for step in block.steps} == {"any function"}
