"""The cards that annvq ships, what a card may say, and where cards are found."""

import pytest

from annvq import resources
from annvq.datasets import cards

GOOD = {
    "urls": '["https://example.org/x.hdf5"]',
    "metric": '"l2"',
    "n": "10",
    "d": "4",
    "nq": "2",
    "licence": '"MIT"',
    "citation": '"none"',
}


def write(folder, **lines):
    path = folder / "mine.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in lines.items() if value is not None))
    return path


def test_every_shipped_card():
    shipped = cards.all_cards()
    expected = [
        "deep-image-96-angular",
        "fashion-mnist-784-euclidean",
        "gist-960-euclidean",
        *(f"glove-{d}-angular" for d in (100, 200, 25, 50)),
        "mnist-784-euclidean",
        "nytimes-256-angular",
        "sift-128-euclidean",
    ]
    assert sorted(shipped) == expected
    for name, card in shipped.items():
        assert card.urls[0] == f"https://ann-benchmarks.com/{name}.hdf5"
        assert all(url.startswith("https://") and url.endswith(f"/{name}.hdf5") for url in card.urls)
        _, d, distance = name.rsplit("-", 2)
        assert card.d == int(d)
        assert card.metric == {"euclidean": "l2", "angular": "cosine"}[distance]
        if card.bytes:
            held = 4 * (card.n + card.nq) * card.d + 8 * 100 * card.nq
            assert held < card.bytes < held + 100_000
    aliases = [alias for card in shipped.values() for alias in card.aliases]
    assert len(set(aliases) | set(shipped)) == len(aliases) + len(shipped)
    assert "sift1m" in shipped["sift-128-euclidean"].aliases


def test_a_card_of_ones_own(tmp_path):
    card = cards.read_card(write(tmp_path, **GOOD))
    assert (card.name, card.n, card.sha256, card.bytes, card.aliases) == ("mine", 10, "", 0, ())
    assert cards.read_card(write(tmp_path, **GOOD, sha256=f'"{"AB" * 32}"')).sha256 == "ab" * 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": None}, r"missing keys: \['n'\]"),
        ({"colour": '"red"'}, r"unknown keys: \['colour'\]"),
        ({"n": '"ten"'}, "n must be a int"),
        ({"n": "true"}, "n must be a int"),
        ({"urls": "[1]"}, "urls must be a list of strings"),
        ({"urls": "[]"}, "urls is empty"),
        ({"metric": '"hamming"'}, "metric must be one of l2, ip, cosine, got 'hamming'"),
        ({"sha256": '"abc"'}, "sha256 must be 64 hexadecimal digits or empty, got 'abc'"),
        ({"n": "= ="}, "not readable TOML"),
    ],
)
def test_a_wrong_card_is_named(tmp_path, change, message):
    path = write(tmp_path, **{**GOOD, **change})
    with pytest.raises(ValueError, match=message) as caught:
        cards.read_card(path)
    assert str(path) in str(caught.value)


class TestShareDir:
    def test_in_a_checkout(self):
        assert (resources.share_dir("datasets") / "sift-128-euclidean.toml").is_file()
        assert resources.share_dir("benchmarks/suites").is_dir()

    def test_installed_files_and_only_those(self, tmp_path, monkeypatch):
        """Beside an installed annvq, a folder ``datasets`` is another package."""
        package = tmp_path / "site-packages" / "annvq"
        package.mkdir(parents=True)
        (tmp_path / "site-packages" / "datasets").mkdir()
        monkeypatch.setattr(resources, "_PACKAGE", package)
        with pytest.raises(FileNotFoundError, match=r"annvq's 'datasets' files are missing .* reinstall annvq"):
            resources.share_dir("datasets")
        (package / "_share" / "datasets").mkdir(parents=True)
        assert resources.share_dir("datasets") == package / "_share" / "datasets"
