"""Whatever people do to a network, in whatever order, it is what a plain model says; thousands more run by hand."""

import pytest
from hypothesis import HealthCheck, settings

from .any_order import Life

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*holds nothing of what ExDA added:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*leaked:ResourceWarning"),
]
TestAnyOrder = Life.TestCase
TestAnyOrder.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
