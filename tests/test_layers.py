"""The import graph of the package: no circle among files, and what each layer may import."""

import ast
from pathlib import Path

import pytest

import annvq

PACKAGE = Path(annvq.__file__).parent
# Each layer imports from those before it. (Lists of files and folders of the package; what is in none is above all.)
LAYERS = [
    [
        "_version",
        "types",
        "errors",
        "paths",
        "replacing",
        "forks",
        "threads",
        "resources",
        "bits",
        "packing",
        "optional",
        "pages",
        "complexity",
    ],
    ["kernels"],
    ["facts", "rows", "columns", "arrays", "storage", "codebooks", "norms"],
    ["training"],
    ["quantizers"],
    ["datasets"],
    ["indexes"],
    ["distributed"],
    ["interop", "sklearn", "adapters"],
    ["benchmarks"],
    ["choosing"],
    ["cli"],
]
# What may stay within a function: libraries that are slow to load, or that may be missing.
HEAVY = {
    "torch",
    "faiss",
    "tqdm",
    "threadpoolctl",
    "matplotlib",
    "h5py",
    "sklearn",
    "hnswlib",
    "usearch",
    "scann",
    "turbovec",
    "rabitqlib",
    "scipy",
    "requests",
    "PIL",
    "pyarrow",
}


def modules():
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]):  # the compiled module by its stub
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name):
    """Modules of the package that ``name`` imports, wherever in its file, and those of them within functions; what only
    type checkers read is left out."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    hidden = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {id(inner) for node in hidden for body in node.body for inner in ast.walk(body)}
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    within = {id(inner) for function in functions for inner in ast.walk(function)}
    everywhere, inside = set(), set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        for target in _targets(node):
            everywhere.add(target)
            if id(node) in within:
                inside.add(target)
    return everywhere - {name}, inside


def _targets(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        return [w if w in MODULES else node.module for w in whole]
    return []


def graph():
    """Who imports whom, files only: that a package's ``__init__`` runs first makes no circle of its own."""
    return {name: {t for t in imports(name)[0] if t in MODULES} for name in MODULES}


def circles(edges):
    """Strongly connected groups of more than one module (Tarjan)."""
    index, low, stack, on, found = {}, {}, [], set(), []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        on.add(v)
        for w in sorted(edges[v]):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in on:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = []
            while not group or group[-1] != v:
                group.append(stack.pop())
                on.discard(group[-1])
            found.append(group)

    for v in edges:
        if v not in index:
            visit(v)
    return [group for group in found if len(group) > 1]


def layer(name):
    for number, parts in enumerate(LAYERS):
        if any(name == f"annvq.{p}" or name.startswith(f"annvq.{p}.") for p in parts):
            return number
    return len(LAYERS)


def test_no_circle_among_files():
    edges = graph()
    for name in sorted(edges):  # shown where the test fails, or with -rP
        print(f"{name}: {', '.join(sorted(edges[name])) or '–'}")
    assert circles(edges) == []


def test_a_circle_would_be_found():
    edges = graph()
    edges["annvq.types"] = {"annvq.indexes.flat"}
    assert any("annvq.types" in group and "annvq.arrays" in group for group in circles(edges))


def test_imports_go_downward():
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in targets
        if layer(target) > layer(name) and target != "annvq"
    ]
    assert wrong == []


# ``import annvq.datasets`` and help of the command line load next to nothing: what a download or a command needs is
# loaded when it runs.
LIGHT = ("annvq.cli", "annvq.datasets")


@pytest.mark.parametrize("name", sorted(name for name in MODULES if not name.startswith(LIGHT)))
def test_imports_within_functions_are_of_heavy_libraries(name):
    assert {target for target in imports(name)[1] if target.partition(".")[0] not in HEAVY} == set()
