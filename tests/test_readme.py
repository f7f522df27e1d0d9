"""The README's example runs, and its comments are true."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)
    names = {}
    exec(code, names)
    assert names["distances"].shape == (10, 5)
    assert names["distances"].dtype == "float32"
    assert names["ids"].dtype == "int64"
    assert names["index"].bits_per_vector == 26
    assert (tmp_path / "base.annvq").is_file()
