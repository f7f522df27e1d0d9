"""A save killed at any moment (SIGKILL) leaves the old file or the new one, whole.

python tests/kill_saves.py --kills 300
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SAVER = """
import sys
import numpy as np
from annvq import storage
rng = np.random.default_rng(0)
a, b = (rng.integers(0, 256, size, dtype=np.uint8) for size in (3_000_000, 5_000_000))
storage.write(sys.argv[1], "thing", 1, {"which": 0}, {"codes": a})
print("ready", flush=True)
while True:
    storage.write(sys.argv[1], "thing", 1, {"which": 1}, {"codes": b})
    storage.write(sys.argv[1], "thing", 1, {"which": 0}, {"codes": a})
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from annvq import storage

    rng = np.random.default_rng(arguments.seed)
    found, midway = [0, 0], 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        for _ in range(arguments.kills):
            process = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.random() * 0.05)
            process.kill()
            process.wait()
            process.stdout.close()
            stored = storage.read(path, "thing", (1,))  # raises unless the file is whole
            which = stored.config["which"]
            assert len(stored.tensors["codes"]) == (3_000_000, 5_000_000)[which]
            found[which] += 1
            # Killed before the rename, a save leaves its temporary file behind, never in the other's place.
            left = [p for p in Path(folder).iterdir() if p != path]
            midway += len(left)
            for p in left:
                p.unlink()
    print(f"{arguments.kills} kills, {midway} of them while a file was being written: the old file {found[0]} times,")
    print(f"the new one {found[1]} times, whole every time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
