"""How many cases the fuzzers try."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-cases", default="120", help="cases of each fuzzer")
