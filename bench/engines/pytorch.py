"""PyTorch: modules with the fused Adam, eager and compiled.

The variant `compiled` puts the network and its loss through `torch.compile`; the optimizer is one
fused kernel in both. `autocast` is mixed precision, eager: under `torch.autocast` the products take
bfloat16, while parameters and the optimizer stay float32. Only tried where torch is installed.
"""

from itertools import pairwise

import torch
from torch import nn

from cases import LEARNING_RATE, Problem

CRITERIA = {
    "binary_cross_entropy": nn.BCEWithLogitsLoss,
    "cross_entropy": nn.CrossEntropyLoss,
    "squared_error": nn.MSELoss,
}


class Engine:
    """One `nn.Sequential`, its loss and its optimizer."""

    def __init__(self, problem: Problem, variant: str, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.problem, case = problem, problem.case
        parts: list[nn.Module] = []
        for n_in, n_out in pairwise(case.layers):
            parts += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.network = nn.Sequential(*parts[:-1]).to(getattr(torch, case.dtype))
        self.mixed = variant == "autocast"
        binary = case.loss == "binary_cross_entropy"
        self.criterion = CRITERIA[case.loss]()
        self.X = torch.from_numpy(problem.X)
        self.y = torch.from_numpy(problem.y[:, None].astype(case.dtype) if binary else problem.y)
        # Each case is compiled for its own shapes: the compiler would else make one program for all
        # of them, and after some give up.
        torch.compiler.reset()
        self.objective = torch.compile(self.forward) if variant == "compiled" else self.forward
        self.restart()

    def restart(self) -> None:
        linear = [part for part in self.network if isinstance(part, nn.Linear)]
        with torch.no_grad():
            for part, W, b in zip(linear, self.problem.weights, self.problem.biases, strict=True):
                part.weight.copy_(torch.from_numpy(W))
                part.bias.copy_(torch.from_numpy(b))
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE, fused=True)

    def forward(self, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not self.mixed:
            return self.criterion(self.network(X), y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.criterion(self.network(X), y)

    def train(self, batches: int, epochs: int) -> None:
        size = self.problem.case.batch
        X, y = self.X.split(size)[:batches], self.y.split(size)[:batches]
        for _ in range(epochs):
            for X_batch, y_batch in zip(X, y, strict=True):
                self.optimizer.zero_grad()
                self.objective(X_batch, y_batch).backward()
                self.optimizer.step()

    def loss(self) -> float:
        with torch.no_grad():
            return float(self.forward(self.X, self.y))
