"""Edges and clients for the suites.

`edge` is shared by the tests that only ask; `own_edge` is a fresh one for each test that breaks providers, because what
an edge learns from failures (open breakers, blocked credentials) must not reach the next test.
"""

import os
from collections.abc import Iterator

import openai
import pytest
from openrouter import OpenRouter

import edge as harness

# Trusting the development CA the way a user would: one variable, no code.
os.environ["SSL_CERT_FILE"] = str(harness.prepare())


@pytest.fixture(scope="session")
def edge() -> Iterator[harness.Edge]:
    with harness.Running() as running:
        yield running


@pytest.fixture
def own_edge() -> Iterator[harness.Edge]:
    with harness.Running() as running:
        yield running


@pytest.fixture
def client(edge: harness.Edge) -> Iterator[openai.OpenAI]:
    with openai_client(edge) as client:
        yield client


@pytest.fixture
def openrouter(edge: harness.Edge) -> Iterator[OpenRouter]:
    with openrouter_client(edge) as client:
        yield client


@pytest.fixture
def model(edge: harness.Edge) -> str:
    return edge.models[0]


@pytest.fixture
def hosts(edge: harness.Edge) -> list[str]:
    return edge.hosts


def openai_client(edge: harness.Edge, **options) -> openai.OpenAI:
    return openai.OpenAI(base_url=edge.v1, api_key=edge.key, **options)


def openrouter_client(edge: harness.Edge) -> OpenRouter:
    return OpenRouter(server_url=edge.api_v1, api_key=edge.key)
