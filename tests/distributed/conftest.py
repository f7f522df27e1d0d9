"""One small Ray for all tests of sharded indexes."""

import os

import pytest


@pytest.fixture(scope="package")
def small_ray():
    ray = pytest.importorskip("ray", reason="ray is not installed")
    # Ray gives its workers little of a busy machine (nice 15) unless it is started so.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray spells it so)
    # Ray's own threads and sockets outlive its shutdown for a moment.
    ray.init(
        num_cpus=2,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}},
    )
    yield ray
    ray.shutdown()
