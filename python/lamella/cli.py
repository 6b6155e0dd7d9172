"""The command line, ``lamella`` or ``python -m lamella``.

Owns what can be asked, its help, and the exit status; `lamella.demo` does the demo. Promises
that what a user can get wrong ends in one line on standard error, not in a traceback.
Exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lamella import _core, demo

__all__ = ["main"]

DESCRIPTION = (
    "Train dense neural networks on the CPU: fused Rust kernels, the same bits every time."
)

EPILOG = """\
environment:
  LAMELLA_NUM_THREADS  most threads to use (else OMP_NUM_THREADS, else the CPUs allowed)
  LAMELLA_ISA          kernels to use: avx512, avx2, portable or scalar (same bits, other speed)
"""

DEMO = """\
Train a network on the UCI handwritten digits (1,797 images of 8 x 8 pixels, shipped with
the package), test it on a fifth held out, then train the same network from the same start
by the NumPy reference and compare: the largest difference of any parameter, and the speed.
Where matplotlib is installed, the learning curve and some test images are drawn."""

DEMO_EPILOG = """\
examples:
  lamella demo                              train, compare, draw lamella-demo.png
  lamella demo --hidden 256,128,64          a deeper network
  lamella demo --dtype float32 --threads 1  single precision, one thread
"""


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="lamella",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"lamella {_core.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "info",
        help="show version, CPU features, chosen kernels and threads",
        description="Show the version, the CPU's features, the kernels chosen and the threads.",
    ).set_defaults(run=show_info)
    add_demo(
        commands.add_parser(
            "demo",
            help="train on handwritten digits and compare with plain NumPy",
            description=DEMO,
            epilog=DEMO_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return top


def add_demo(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lamella demo``."""
    default = demo.Settings()
    command.add_argument(
        "--epochs",
        type=positive,
        default=default.epochs,
        metavar="N",
        help=f"passes over the training images (default {default.epochs})",
    )
    command.add_argument(
        "--batch-size",
        type=positive,
        default=default.batch_size,
        metavar="N",
        help=f"images of a step (default {default.batch_size})",
    )
    command.add_argument(
        "--hidden",
        type=widths,
        default=default.hidden,
        metavar="N,N...",
        help=f"units of the hidden layers (default {','.join(map(str, default.hidden))})",
    )
    command.add_argument(
        "--dtype",
        choices=("float64", "float32"),
        default=default.dtype,
        help=f"precision of both trainings (default {default.dtype})",
    )
    command.add_argument(
        "--seed",
        type=natural,
        default=default.seed,
        metavar="N",
        help=f"seed of the start and of the shuffle (default {default.seed})",
    )
    command.add_argument(
        "--threads", type=positive, default=None, metavar="N", help="default: as many as help"
    )
    command.add_argument(
        "--plot",
        type=Path,
        default=Path("lamella-demo.png"),
        metavar="FILE",
        help="where to draw the learning curve (default lamella-demo.png)",
    )
    command.add_argument("--no-plot", action="store_true", help="draw nothing")
    command.add_argument("--no-reference", action="store_true", help="skip the comparison")
    command.set_defaults(run=run_demo)


def positive(text: str) -> int:
    """Read an integer of at least 1."""
    number = natural(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def natural(text: str) -> int:
    """Read an integer of at least 0."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, got {number}")
    return number


def widths(text: str) -> tuple[int, ...]:
    """Read widths of layers, such as ``256,128``."""
    return tuple(positive(part) for part in text.split(","))


def run_demo(options: argparse.Namespace) -> None:
    """Carry out ``lamella demo``."""
    demo.run(
        demo.Settings(
            hidden=options.hidden,
            epochs=options.epochs,
            batch_size=options.batch_size,
            dtype=options.dtype,
            seed=options.seed,
            threads=options.threads,
            reference=not options.no_reference,
            plot=None if options.no_plot else options.plot,
        )
    )


def show_info(options: argparse.Namespace) -> None:
    """Carry out ``lamella info``."""
    info = _core.info()
    rows = {
        "lamella": _core.__version__,
        "processor": info["arch"],
        "features": " ".join(info["features"]) or "none that matter here",
        "kernels": f"{info['isa']} (this CPU can run {', '.join(info['available'])})",
        "threads": f"at most {info['threads']}",
    }
    for name, value in rows.items():
        print(f"{name:<10} {value}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of those that the process was started with.

    Returns
    -------
    int
        The exit status: 0, 1 for an error that was told on standard error, 130 for Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2 for wrong arguments, with 0 after ``--help`` and ``--version``.
    """
    options = parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = None  # nothing left to flush at exit
        return 1
    except (ArithmeticError, MemoryError, OSError, ValueError) as error:
        print(f"lamella: error: {error}", file=sys.stderr)
        return 1
    return 0
