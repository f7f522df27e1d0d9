"""SIMD levels: which one a library runs at in this process, and which it could, as it says itself."""

import importlib
import importlib.util
import os
import sys
from typing import Any

_FAISS_BUILDS = ("AVX2", "AVX512", "AVX512_SPR", "SVE")  # FAISS before 1.14 has a module of its own for each


def levels(engine: str) -> tuple[str, list[str]]:
    """The level in use, and those that the library was built for and this processor has.

    Levels that the environment keeps a library from are not among them. Of a library that does not say, the level is
    "its own".
    """
    known = {"annvq": _annvq, "faiss": _faiss}
    return known[engine]() if engine in known else ("its own", ["its own"])


def _annvq() -> tuple[str, list[str]]:
    from annvq import kernels

    return kernels.simd_level(), kernels.available_levels()


def _faiss() -> tuple[str, list[str]]:
    import faiss

    if not hasattr(faiss, "SIMDConfig"):
        return _faiss_builds()
    numbers = {name.removeprefix("SIMDLevel_"): getattr(faiss, name) for name in dir(faiss) if "SIMDLevel_" in name}
    none = ("NONE", "COUNT")
    found = [n for n, at in numbers.items() if n not in none and faiss.SIMDConfig.is_simd_level_available(at)]
    return str(faiss.SIMDConfig.get_level_name()), found or ["NONE"]


def _faiss_builds() -> tuple[str, list[str]]:
    loader: Any = importlib.import_module("faiss.loader")

    modules = {name: f"faiss.swigfaiss_{name.lower()}" for name in _FAISS_BUILDS}
    loaded = [name for name, module in modules.items() if module in sys.modules]
    level = loaded[-1] if loaded else "generic"
    if "FAISS_OPT_LEVEL" in os.environ:
        return level, [level]
    features = loader.supported_instruction_sets()
    found = [
        name
        for name, module in modules.items()
        if any(feature.startswith(name) for feature in features) and importlib.util.find_spec(module)
    ]
    return level, found or ["generic"]
