"""How length and learning rate are chosen."""

import json
from types import SimpleNamespace

import pytest

from exda_primitives.errors import ConfigError, DivergedError
from exda_primitives.workbench.adaptation import Asked, search
from exda_primitives.workbench.training import TrainConfig


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """Chooses with short runs that are made up: the time of a step, and each rate's loss."""

    def choose(losses, seconds=0.1, minutes=10.0, changes=(), steps=1):
        def short(adaptation, config, steps):
            loss = losses[config.recipe.learning_rate]
            if loss is None:
                raise DivergedError("the loss is not finite")
            return seconds, loss

        monkeypatch.setattr(search, "_short", short)
        asked = Asked(tmp_path, tmp_path, ("low",), minutes=minutes, changes=changes)
        config = TrainConfig.decoded(
            {
                "model": {"name": "restormer"},
                "data": {"source": "x", "degradations": ["low"]},
                "recipe": {"steps": steps, "learning_rate": 1e-2},
            }
        )
        lines = []
        adaptation = SimpleNamespace(asked=asked, plan=SimpleNamespace(config=config))
        return search.choose(adaptation, lines.append), "\n".join(lines)

    return choose


LOSSES = {3e-3: 0.3, 1e-2: 0.1, 3e-2: 0.2}


def test_the_rate_with_the_lowest_loss_and_the_steps_that_are_left(chosen):
    found, said = chosen(LOSSES)
    # 6,000 steps fit into ten minutes; three rates took 5 % each.
    assert found == {"steps": 5100, "learning_rate": 1e-2, "tried": {"0.003": 0.3, "0.01": 0.1, "0.03": 0.2}}
    assert json.loads(json.dumps(found)) == found
    assert "5,100 steps in 10 minutes" in said
    assert "little to learn from" not in said


def test_a_rate_that_diverges_is_not_taken(chosen):
    found, said = chosen(LOSSES | {1e-2: None})
    assert (found["learning_rate"], found["tried"]["0.01"]) == (3e-2, None)
    assert "0.01: diverged" in said


def test_if_all_rates_diverge_it_is_an_error(chosen):
    with pytest.raises(ConfigError, match=r"from 0.003 to 0.03 diverge"):
        chosen({3e-3: None, 1e-2: 0.1, 3e-2: None} | dict.fromkeys(LOSSES), steps=400, changes=("recipe.steps=400",))


def test_too_little_time_is_said_before_the_work_and_no_rate_is_tried(chosen):
    found, said = chosen(LOSSES, seconds=2.0, minutes=5.0)
    assert found == {"steps": 150, "learning_rate": 1e-2, "tried": {}}
    assert "150 steps in 5 minutes. That is little to learn from: 500 steps would take 17 minutes" in said


def test_what_the_user_sets_is_not_chosen(chosen):
    found, _ = chosen(LOSSES, steps=400, changes=("recipe.steps=400",))
    assert (found["steps"], len(found["tried"])) == (400, 3)
    found, _ = chosen(LOSSES, changes=("recipe.learning_rate=0.01",))
    assert found == {"steps": 6000, "learning_rate": 1e-2, "tried": {}}
