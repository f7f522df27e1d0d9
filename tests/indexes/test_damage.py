"""Short forms of two long tests: mutated files, and saves that are killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command", [["indexes/fuzz_files.py", "--count", "400"], ["kill_saves.py", "--kills", "4"]], ids=["fuzz", "kill"]
)
def test_in_a_process_of_its_own(command, tmp_path):
    script, *arguments = command
    done = subprocess.run(
        [sys.executable, str(TESTS / script), *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert arguments[-1] in done.stdout
