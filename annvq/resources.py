"""Where the files that people read and edit are found: data-set cards, index recipes, benchmark suites.

They live in the repository's top-level folders. A wheel carries them as ``annvq/_share/…``; an editable
install reads the checkout itself, so that an edited card or recipe counts at once.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def share_dir(name: str) -> Path:
    """The folder of shared files called ``name``: ``"datasets"``, ``"indexes"`` or ``"benchmarks/suites"``.

    Raises:
        FileNotFoundError: neither the installed package nor a checkout round it holds such a folder.
    """
    tried = [_PACKAGE / "_share" / name]
    # Only a checkout has the C++ sources; in site-packages a folder "datasets" would be some other package's.
    if (_PACKAGE / "kernels" / "csrc").is_dir():
        tried.append(_PACKAGE.parent / name)
    for folder in tried:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"annvq's {name!r} files are missing (looked in {', '.join(map(str, tried))}); reinstall annvq"
    )
