"""LiveBytes counts the tensors of a computation while they are alive."""

import torch

from exda_primitives.workbench.shared.live_bytes import LiveBytes


def test_live_bytes_are_those_alive_at_a_time() -> None:
    with LiveBytes() as live:
        x = torch.zeros(1000)
        assert live.now == 4000
        y = x + 1
        view = y[:10].reshape(2, 5)
        assert live.now == 8000
        del x, y
        assert live.now == 4000
        del view
        assert live.now == 0
        torch.zeros(500)
    assert live.peak == 8000


def test_an_operation_in_place_allocates_nothing() -> None:
    with LiveBytes() as live:
        x = torch.zeros(1000)
        x.add_(1).mul_(2)
    assert live.peak == 4000
