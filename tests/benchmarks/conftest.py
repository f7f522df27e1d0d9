"""Vectors that the suites of scans and of indexes measure, and processes that are killed."""

import os
import signal
import time

import numpy as np
import pytest

from annvq.benchmarks import processes
from annvq.benchmarks.run import Observer


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1200, 16)).astype(np.float32))
    return str(path)


class Killer(Observer):
    """Kills every process once a row has been measured."""

    def __init__(self):
        self.workers = []

    def finished(self, point, row, *, measured):
        for worker in self.workers:
            if worker.ended is None:
                os.kill(worker.pid, signal.SIGKILL)
                while worker.ended is None:
                    time.sleep(0.01)


@pytest.fixture
def killer(monkeypatch):
    """An observer that does; it has them as ``workers``."""
    observer, begin = Killer(), processes.Worker.__init__

    def recorded(self, *arguments, **command):
        begin(self, *arguments, **command)
        observer.workers.append(self)

    monkeypatch.setattr(processes.Worker, "__init__", recorded)
    return observer
