"""Driver of a sharded index whose actors are on a node behind a link: ``search_over_a_link.py ADDRESS LINK FOLDER``.

The link is cut for some seconds, while Ray still waits for the node. Ends with an error where anything is not as it
should be.
"""

import subprocess
import sys

import numpy as np
import ray
from small_indexes import flat, vectors

from annvq.distributed import MissingShardError, ShardedIndex

QUERIES = vectors(20, 3)


def main(address: str, link: str, folder: str) -> None:
    ray.init(address=address, log_to_driver=False, logging_level="error")
    index = flat()

    def require_same(found: tuple[np.ndarray, np.ndarray]) -> None:
        for ours, theirs in zip(found, index.search(QUERIES, 10), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    placed = {"resources": {"far": 0.01}}
    with ShardedIndex.create(folder, index, 2, timeout=60, options=placed) as sharded:
        require_same(sharded.search(QUERIES, 10))
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        try:
            sharded.search(QUERIES, 10, timeout=2)
        except MissingShardError as error:
            missing = sorted(error.shards)
        for target in (sharded, index):
            target.add(vectors(5, 9))  # is on disk here, whatever shards know
        part = sharded.search(QUERIES, 10, timeout=1, partial=True)
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
        if missing != [0, 1] or sorted(part.missing) != [0, 1] or (part.ids >= 0).any():
            raise SystemExit(f"without a link: {missing}, {part}")
        require_same(sharded.search(QUERIES, 10))
        sharded.save()
        require_same(sharded.search(QUERIES, 10))
    print("as it should be")


if __name__ == "__main__":
    main(*sys.argv[1:])
