"""The package as users get it: what is printed runs, the import is light, the wheel is small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PAGES = {
    path.name: path.read_text() for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
}

BLOCKS = [
    pytest.param(block, id=f"{name}-{n}")
    for name, page in PAGES.items()
    for n, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S))
]

EXTRAS = ("jax", "matplotlib", "narwhals", "onnx", "pandas", "polars", "pyarrow", "safetensors",
          "scipy", "sklearn", "threadpoolctl", "torch", "tqdm")  # fmt: skip

SLOWER = 1.3
"""How much longer than NumPy's the package's import may take."""

LARGEST_WHEEL = 5_000_000


def test_the_pages_have_examples() -> None:
    assert len(BLOCKS) >= 7


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_of_the_pages_run(block: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", block]
    environment = os.environ | {"MPLBACKEND": "agg"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr


def anchor(heading: str) -> str:
    """Return what GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_pages_lead_somewhere(name: str) -> None:
    at = ROOT if name == "README.md" else ROOT / "docs"
    links = re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", PAGES[name])
    assert links
    for path, fragment in links:
        assert (at / path).exists(), path
        page = PAGES[Path(path).name if path else name] if fragment else ""
        headings = [anchor(heading) for heading in re.findall(r"^#+ (.*)$", page, re.M)]
        assert not fragment or fragment in headings, f"{path}#{fragment}"


def seconds(package: str) -> float:
    """Return the processor time of importing a compiled package, without BLAS threads that wait."""
    code = f"import time; t = time.thread_time(); import {package}; print(time.thread_time() - t)"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def test_the_import_takes_little_more_than_numpys() -> None:
    seconds("lamella")  # compiles, reads from disk
    runs = [(seconds("numpy"), seconds("lamella")) for _ in range(7)]
    numpy, lamella = (min(run[n] for run in runs) for n in (0, 1))
    assert lamella < SLOWER * numpy, f"{lamella:.4f} s, numpy {numpy:.4f} s"


def test_the_import_loads_no_extra() -> None:
    code = f"import sys, lamella; print([n for n in {EXTRAS} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_wheel_is_small() -> None:
    wheels = list((ROOT / ".venv" / "wheels").glob("*.whl"))
    if not wheels:
        pytest.skip("no wheel was built here")
    assert 100_000 < max(wheel.stat().st_size for wheel in wheels) < LARGEST_WHEEL
