"""What was chosen as a recipe: the file that ``annvq build`` takes."""

import json
from typing import Any

from annvq.choosing.choice import Choice
from annvq.choosing.grid import Candidate


def recipe_text(choice: Choice, command: str = "annvq choose") -> str:
    """The recipe of the recommended code as TOML, with the reason and the ``command`` that chose it as comments."""
    c = choice.recommended
    comments = [f"Chosen by: {command}", choice.reason, choice.next_better]
    lines = [f"# {text}" for text in comments if text]
    lines += [f"title = {_toml(f'{c.label}: {choice.bits} bits a vector')}", f"metric = {_toml(c.metric)}"]
    refine = {"refine": {"vectors": "decoded"}} if c.decoded else {}
    for table, keys in ({"index": _index(c), "quantizer": _quantizer(c)} | refine).items():
        lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def _index(c: Candidate) -> dict[str, Any]:
    return {"kind": "flat", **({"norm": c.norm} if c.norm else {})}


def _quantizer(c: Candidate) -> dict[str, Any]:
    nbits = c.nbits[0] if len(set(c.nbits)) == 1 else list(c.nbits)
    return {"kind": c.kind, "M": len(c.nbits), "nbits": nbits, **({"norm_free": True} if c.norm_free else {})}


def _toml(value: Any) -> str:
    """A value in TOML: words, whole numbers, lists and truth values are written as in JSON."""
    return json.dumps(value, ensure_ascii=False)
