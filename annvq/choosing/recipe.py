"""What was chosen as a recipe: the file that ``annvq build`` takes."""

import json
from typing import Any

from annvq.choosing.choice import Choice
from annvq.choosing.forms import quantizer_keys
from annvq.choosing.grid import Candidate


def recipe_text(choice: Choice, command: str = "annvq choose") -> str:
    """The recipe of the recommended code as TOML, with the reason and the ``command`` that chose it as comments."""
    c = choice.recommended
    lines = [f"# {text}" for text in (f"Chosen by: {command}", *choice.said())]
    lines += [f"title = {_toml(f'{c.label}: {choice.bits} bits a vector')}", f"metric = {_toml(c.metric)}"]
    for table, keys in tables(c).items():
        lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def tables(c: Candidate) -> dict[str, dict[str, Any]]:
    """The recipe's tables: of the index, its quantizer, and what re-ranks where something does."""
    lists = {"kind": "ivf", "residual": c.form.residual} if c.form.lists else {"kind": "flat"}
    index = lists | ({"norm": c.norm} if c.norm else {})
    quantizer = {"kind": c.kind, **quantizer_keys(c.nbits), **({"norm_free": True} if c.norm_free else {})}
    refine = {"vectors": "decoded"} if c.decoded else c.form.refine()
    return {"index": index, "quantizer": quantizer, **({"refine": refine} if refine else {})}


def _toml(value: Any) -> str:
    """A value in TOML: words, whole numbers, lists and truth values are written as in JSON."""
    return json.dumps(value, ensure_ascii=False)
