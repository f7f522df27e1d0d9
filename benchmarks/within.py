"""What a search within a radius costs, beside a search for k neighbours: one thread, medians of 5.

python benchmarks/within.py
"""

import time

import numpy as np

import annvq


def microseconds(what, queries):
    """Median time of ``what`` a query."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        what()
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times)) / len(queries)


def main() -> None:
    annvq.set_num_threads(1)
    rng = np.random.default_rng(0)
    centres = (2 * rng.normal(size=(1000, 64))).astype(np.float32)
    base, queries = (
        (centres[rng.integers(1000, size=n)] + rng.normal(size=(n, 64))).astype(np.float32) for n in (100_000, 200)
    )
    quantizer = annvq.ProductVQ(64, 8).fit(base[:20_000])
    flat = annvq.FlatIndex(quantizer).add(base)
    lists = annvq.IVFIndex(quantizer, nlist=1024).fit(base[:20_000]).add(base)
    vectors = annvq.RerankIndex(annvq.FlatIndex(quantizer), "float16").add(base)
    for k in (10, 64, 1000):
        print(f"flat, search for {k}: {microseconds(lambda k=k: flat.search(queries, k), queries):,.0f} µs")
    sorted_ = flat.search(queries[:20], len(base))[0]
    for rank in (10, 100, 1000, 10_000):
        radius = float(sorted_[:, rank].mean())
        for name, index, settings in (
            ("flat", flat, {}),
            ("all of 1,024 lists", lists, {}),
            ("16 lists", lists, {"nprobe": 16}),
            ("re-ranked, all", vectors, {}),
            ("re-ranked, shortlist 1,000", vectors, {"shortlist": 1000}),
        ):
            some = queries[:20] if name == "re-ranked, all" else queries
            found = len(index.search_within(some, radius, **settings).ids) / len(some)
            spent = microseconds(lambda i=index, q=some, r=radius, s=settings: i.search_within(q, r, **s), some)
            print(f"radius {radius:.1f}, {name}: {found:,.0f} found a query, {spent:,.0f} µs")


if __name__ == "__main__":
    main()
