"""The guide's examples run as they stand, where the library that each is about is installed."""

import re
import warnings
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"\n## ([^\n]*)\n(?:(?!\n## ).)*?```python\n(.*?)```", GUIDE, re.S))
HOSTS = {"LangChain": "langchain", "LlamaIndex": "llama_index", "Haystack": "haystack", "txtai": "txtai"}


def test_there_is_an_example_of_each():
    assert EXAMPLES.keys() == {*HOSTS, "A store of your own"}


@pytest.mark.parametrize("title", EXAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_examples(title):
    if title in HOSTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(f"annvq.adapters.{HOSTS[title]}", exc_type=ImportError)
    names = {}
    exec(EXAMPLES[title], names)
    if title == "A store of your own":
        assert sorted(key for key, _, _ in names["animals"].search([1.0] * 64, 3)) == ["bird", "cat", "dog"]
    elif title == "Haystack":
        assert names["again"].run({"retriever": {"query_embedding": [0.2, 0.8]}})["retriever"]["documents"]
    elif title == "txtai":
        assert names["ann"].search(names["vectors"][:1], 3)[0][0][0] == 0
    else:
        kept = names["store"].collection if title == "LangChain" else names["store"].client
        assert len(kept) == len(kept.vectors) == (2 if title == "LangChain" else 1)
