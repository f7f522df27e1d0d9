"""An index in shards, each in a process of its own, which survives the death of any of them.

pip install 'annvq[ray]'
python examples/sharded_search.py
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import ray

import annvq
from annvq.distributed import ShardedIndex, build


def main() -> dict[str, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--shards", type=int, default=2)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(options.vectors, 32)).astype(np.float32)
    queries = rng.normal(size=(100, 32)).astype(np.float32)
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "sharded"
        # Trained once, here; encoded in tasks, anywhere; each shard is a file.
        build(folder, annvq.FlatIndex(annvq.ProductVQ(32, M=8)), vectors, shards=options.shards)
        one = annvq.load_index(next(folder.glob("trained-*"))).add(vectors)  # the same in one process

        with ShardedIndex.open(folder, timeout=60) as index:
            ids = index.search(queries, 10)[1]
            same = np.array_equal(ids, one.search(queries, 10)[1])
            print(f"{len(index)} vectors in {index.shards} shards; results as of one process: {same}")

            index.upsert(queries[:5], ids=[1, 2, 3, 4, 5])  # on disk when this returns
            index.remove([7])
        with ShardedIndex.open(folder, timeout=60) as index:  # another start, after a crash say
            kept = len(index) == len(vectors) - 1 and set(index.search(queries[:5], 1)[1][:, 0]) <= {1, 2, 3, 4, 5}
            print(f"opened anew: {len(index)} vectors; what was written is there: {kept}")
            index.save()  # the log goes into the shards' files
            answer = index.search(queries, 10, partial=True)  # would go on without shards that stay away, and say so
            print(f"shards that did not answer: {answer.missing or 'none'}")
    return {"same": same, "kept": kept, "whole": not answer.missing}


if __name__ == "__main__":
    main()
