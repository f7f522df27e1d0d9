"""What pictures of codes show."""

from annvq.benchmarks.kinds.codes import reporting


def row(method, bits, recall10, ten=0.5):
    return {"method": method, "bits": bits, "dataset": "x", "error": None, "recall@10": recall10, "10-recall@10": ten}


def test_methods_that_differ_in_bits_a_dimension_are_one_line():
    rows = [
        row("A, 1 bit", 100, 0.5),
        row("A, 2 bits", 200, 0.6),
        row("A, 4 bits", 400, 0.7),
        row("B, 4 bits", 64, 0.1),
    ]
    lines = reporting._lines([*rows, row("C", 64, 0.2), row("C", 128, 0.3)])
    assert {name: [r["bits"] for r in held] for name, held in lines.items()} == {
        "A": [100, 200, 400],
        "B, 4 bits": [64],  # nothing else to tell it from
        "C": [64, 128],
    }


def test_recall_that_nearly_all_reach_is_not_what_is_drawn():
    low, high = [row("A", 64, 0.5), row("A", 128, 0.98)], [row("A", 256, 1.0)]
    assert reporting._drawn_recall(low) == "recall@10"
    assert reporting._drawn_recall(low + high) == "10-recall@10"
    assert reporting._drawn_recall([{**r, "10-recall@10": None} for r in low + high]) == "recall@10"
    assert reporting._drawn_recall([]) == "recall@10"
