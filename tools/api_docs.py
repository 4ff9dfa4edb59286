"""Write the reference of the Python API, from its docstrings.

`python tools/api_docs.py FOLDER` writes FOLDER/mobiledeploy.html. `make docs` has it in its site.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

import mobiledeploy


def main(folder: Path) -> None:
    """Every public name, and no page of its own for any room."""
    for name in mobiledeploy.__all__:
        # pdoc takes what stands in the module; else it would look for a folder of this name.
        vars(mobiledeploy)[name] = getattr(mobiledeploy, name)
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("mobiledeploy", r"!mobiledeploy\..+", output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    print(Path(sys.argv[1]) / "mobiledeploy.html")
