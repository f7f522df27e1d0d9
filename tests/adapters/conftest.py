"""Asynchronous tests of other libraries' suites run whatever plugins there are; nothing is sent anywhere."""

import asyncio
import inspect
import os

import numpy as np
import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asked = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in asked}))
    return True


@pytest.fixture
def require_nearest():
    """``require_nearest(ids, similarities, cosines, learned)``: that the right documents were found, of which
    ``cosines`` (n,) are those that a query has with all; −2 for documents that are not allowed."""

    def require(ids, similarities, cosines, learned):
        best = np.argsort(-cosines)[: len(ids)]
        assert all(cosines[i] > -2 for i in ids)
        np.testing.assert_allclose(similarities, cosines[ids], atol=0.05 if learned else 1e-6)
        assert list(similarities) == sorted(similarities, reverse=True)
        if not learned:
            assert ids == best.tolist()
        assert len(set(ids) & set(best.tolist())) >= 0.6 * len(ids)  # codes are not exact

    return require
