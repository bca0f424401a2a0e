"""Servers that tests share."""

import pytest

from scripts import RULES
from server import Server


@pytest.fixture(scope="module")
def server():
    with Server(RULES) as server:
        yield server
