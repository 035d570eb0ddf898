"""A few random life cycles of a network, see any_order; raise ``max_examples`` to run thousands by hand."""

import pytest
from hypothesis import HealthCheck, settings

from .any_order import LifeCycle

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*holds nothing of what ExDA added:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*leaked:ResourceWarning"),
]
TestAnyOrder = LifeCycle.TestCase
TestAnyOrder.settings = settings(
    max_examples=5,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
