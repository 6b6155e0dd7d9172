"""The command line, ``lamella`` or ``python -m lamella``.

Owns what can be asked, its help, and the exit status; `lamella.demo` does the demo. Promises
that what a user can get wrong ends in one line on standard error, not in a traceback.
Exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lamella import _core, demo, optimizers
from lamella.commands import bench, info, train
from lamella.commands.targets import check_file

__all__ = ["main"]

DESCRIPTION = (
    "Train dense neural networks on the CPU: fused Rust kernels, the same bits every time."
)

EPILOG = """\
examples:
  lamella demo                              see it work, on data that comes with it
  lamella train iris.csv --target species   learn a column of a table from the others
  lamella predict model.safetensors new.csv > answers.csv

environment:
  LAMELLA_NUM_THREADS  most threads to use (else OMP_NUM_THREADS, else the CPUs allowed)
  LAMELLA_ISA          kernels to use: amx, avx512, avx2, portable or scalar (same bits, other
                       speed; amx differs from avx512 in bfloat16 alone)
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


INFO = """\
Show the version, the CPU's features, the kernels chosen and the threads; or, given a model
file, what is in it."""

TRAIN = """\
Learn one column of a table from the others. Columns of numbers are standardised, columns of
texts become a column of zeros and ones for each of their words, and whether the target is a
class or a number is found out. A fifth of the rows is held out for the report; of the rest a
part decides when to stop. The model file keeps the preprocessing too, for `lamella predict`."""

TRAIN_EPILOG = """\
tables:
  .csv (separated by comma, semicolon, tab or bar), .parquet: needs narwhals and polars or pandas
  .npz: vectors are columns; those of a matrix X are X0, X1, ...

examples:
  lamella train iris.csv --target species
  lamella train houses.parquet -t price --ignore id,street --hidden 256,256
  lamella train digits.npz -t y --task classification --epochs 50 --learning-rate 3e-4
  lamella train wine.csv -t quality --task regression    (whole numbers, but not classes)

The same table, settings and seed give the same model file, byte by byte, on every machine."""

PREDICT = """\
Answer for each row of a table, as CSV on standard output, by a model of `lamella train`. Columns
are found by their names; others are ignored. Texts that training never saw are no category."""

PREDICT_EPILOG = """\
examples:
  lamella predict model.safetensors new.csv
  lamella predict model.safetensors new.parquet --proba --output answers.csv"""

BENCH = """\
Time training steps on this machine, beside the NumPy reference and, where it is installed,
scikit-learn: a look of about twenty seconds. It is checked first that the losses agree."""


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
    for name, add, short, description, epilog in (
        ("demo", add_demo, "train on handwritten digits and compare with plain NumPy", DEMO,
         DEMO_EPILOG),
        ("train", add_train, "learn a column of a table (CSV, Parquet, npz)", TRAIN, TRAIN_EPILOG),
        ("predict", add_predict, "answer for the rows of a table", PREDICT, PREDICT_EPILOG),
        ("info", add_info, "show kernels and threads, or what is in a model file", INFO, None),
        ("bench", add_bench, "time training on this machine", BENCH, None),
    ):  # fmt: skip
        add(
            commands.add_parser(
                name,
                help=short,
                description=description,
                epilog=epilog,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return top


def add_info(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lamella info``."""
    help = "a model file, of a network, an estimator or `lamella train`"
    command.add_argument("model", type=Path, nargs="?", metavar="MODEL", help=help)
    command.set_defaults(run=show_info)


def add_train(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lamella train``."""
    default = train.Settings(Path(), "")
    add = command.add_argument
    add("data", type=Path, metavar="DATA", help="the table: a .csv, .parquet or .npz file")
    add("-t", "--target", required=True, metavar="COLUMN", help="the column to learn")
    add(
        "--task",
        choices=("auto", "classification", "regression"),
        default=default.task,
        help="what the target is (default: found out; few whole numbers are classes)",
    )
    add("--ignore", type=names, default=(), metavar="COLUMN,...", help="columns to leave out")
    add(
        "--hidden",
        type=widths,
        default=default.hidden,
        metavar="N,N...",
        help=f"units of the hidden layers (default {','.join(map(str, default.hidden))})",
    )
    add(
        "--epochs",
        type=positive,
        default=default.epochs,
        metavar="N",
        help=f"passes over the rows at most (default {default.epochs})",
    )
    add(
        "--patience",
        type=positive,
        default=default.patience,
        metavar="N",
        help=f"epochs without improvement to stop after (default {default.patience})",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="rows of a step (default 32; 256 for large tables)",
    )
    add(
        "--optimizer",
        type=optimizer,
        default=default.optimizer,
        metavar="NAME",
        help=f"{', '.join(optimizers.BY_NAME)} (default {default.optimizer})",
    )
    add("--learning-rate", type=above_zero, metavar="X", help="default: the optimizer's own")
    add(
        "--l2",
        type=at_least_zero,
        default=default.l2,
        metavar="X",
        help=f"penalty on the weights' squares (default {default.l2:g})",
    )
    add(
        "--test",
        type=share,
        default=default.test,
        metavar="SHARE",
        help=f"share of the rows held out for the report (default {default.test:g})",
    )
    add(
        "--seed",
        type=natural,
        default=default.seed,
        metavar="N",
        help=f"of the split, the start and the shuffle (default {default.seed})",
    )
    add("--threads", type=positive, metavar="N", help="default: as many as help")
    add(
        "--model",
        type=Path,
        default=default.model,
        metavar="FILE",
        help=f"where to write the model (default {default.model})",
    )
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="where to draw the learning curve (default: beside the model, .png)",
    )
    add("--no-plot", action="store_true", help="draw nothing")
    command.set_defaults(run=run_train)  # fmt: skip


def add_predict(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lamella predict``."""
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="a file that `lamella train` wrote")
    add("data", type=Path, metavar="DATA", help="the table: a .csv, .parquet or .npz file")
    add("--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    add("--proba", action="store_true", help="add a column for each class's probability")
    add("--threads", type=positive, metavar="N", help="default: as many as help")
    command.set_defaults(run=run_predict)


def add_bench(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lamella bench``."""
    add = command.add_argument
    add("--seconds", type=above_zero, default=5.0, metavar="X", help="for each case (default 5)")
    add("--threads", type=positive, metavar="N", help="default: as many as help")
    command.set_defaults(run=run_bench)


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


def names(text: str) -> tuple[str, ...]:
    """Read names of columns, such as ``id,street``."""
    return tuple(part for part in text.split(",") if part)


def above_zero(text: str) -> float:
    """Read a number above 0."""
    number = at_least_zero(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def at_least_zero(text: str) -> float:
    """Read a finite number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return number


def optimizer(text: str) -> str:
    """Read an optimizer's name."""
    if text not in optimizers.BY_NAME:
        known = ", ".join(optimizers.BY_NAME)
        raise argparse.ArgumentTypeError(f"expected one of {known}, got {text!r}")
    return text


def share(text: str) -> float:
    """Read a share of the rows."""
    number = above_zero(text)
    if number > 0.9:
        raise argparse.ArgumentTypeError(f"expected at most 0.9, got {text}")
    return number


def run_train(options: argparse.Namespace) -> None:
    """Carry out ``lamella train``."""
    check_file(options.model, replaces=True)
    chosen = {field.name: getattr(options, field.name) for field in fields(train.Settings)}
    if options.no_plot:
        chosen["plot"] = None
    elif options.plot is None:
        beside = options.model.with_suffix(".png")
        chosen["plot"] = beside if beside != options.model else None
    train.train(train.Settings(**chosen))


def run_predict(options: argparse.Namespace) -> None:
    """Carry out ``lamella predict``."""
    train.predict(
        options.model,
        options.data,
        options.output,
        probabilities=options.proba,
        threads=options.threads,
    )


def run_bench(options: argparse.Namespace) -> None:
    """Carry out ``lamella bench``."""
    bench.run(options.seconds, options.threads)


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
    if options.model is not None:
        print(info.text(options.model))
        return
    found = _core.info()
    rows = {
        "lamella": _core.__version__,
        "processor": found["arch"],
        "features": " ".join(found["features"]) or "none that matter here",
        "kernels": f"{found['isa']} (this CPU can run {', '.join(found['available'])})",
        "threads": f"at most {found['threads']}",
    }
    for name, value in rows.items():
        print(f"{name:<10} {value}")


FAILURES = (ArithmeticError, ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What ends in one line: wrong data and files, missing packages, an exhausted machine."""


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
    except FAILURES as error:
        print(f"lamella: error: {error}", file=sys.stderr)
        return 1
    return 0
