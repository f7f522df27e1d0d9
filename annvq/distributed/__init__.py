"""An index over several processes or machines: shards that Ray actors hold (``pip install 'annvq[ray]'``).

``docs/scale.md`` says how it is used and what it promises.
"""

from typing import TYPE_CHECKING

from annvq.optional import on_first_use

if TYPE_CHECKING:
    from annvq.distributed.building import build
    from annvq.distributed.calls import MissingShardError
    from annvq.distributed.index import Partial, ShardedIndex
    from annvq.distributed.keyed import KeyedShardedIndex

_HOME = {
    "ShardedIndex": "index",
    "KeyedShardedIndex": "keyed",
    "Partial": "index",
    "MissingShardError": "calls",
    "build": "building",
}

__all__ = ["KeyedShardedIndex", "MissingShardError", "Partial", "ShardedIndex", "build"]

__getattr__ = on_first_use(globals(), _HOME)
