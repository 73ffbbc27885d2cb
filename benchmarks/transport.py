"""Time of the alignment loss (eq. 3), forward and backward, beside its rivals and its floor.

    python benchmarks/transport.py [--device cpu] [--threads 1] [--rounds 5] [--json PATH]

Every solver gets the same float32 pairs of LayerNormed tokens, permuted and with noise (easy) or
smooth in time and warped (hard), and as many iterations as bring its *gradient* within `--accuracy`
of the float64 optimum; one that does not get there is listed with the accuracy it reached. Random
tokens would be of no use: they converge at once.

The floor is what no solver can leave out: three batched products, one cost and two gradients.
Solvers take turns within a round, and the median over rounds is printed, so that whatever else the
machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from meters import machine
from torch import Tensor

from slam_potsa.objective.transport import transport, transport_loss

PAIRS, TOKENS, WIDTH = 16, 80, 768
SWEEP_COUNTS = (10, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500)

Loss = Callable[[Tensor, Tensor, float, int], Tensor]  # x, y, ε over the mean cost, iterations


def noisy_permutations(noise: float, device: str) -> tuple[Tensor, Tensor]:
    """Tokens of one meaning in two orders, [B, N, D] each: what a trained Q-Former would leave."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PAIRS, TOKENS, WIDTH, generator=generator)
    orders = [torch.randperm(TOKENS, generator=generator) for _ in range(PAIRS)]
    y = torch.stack([row[order] for row, order in zip(x, orders, strict=True)])
    y = y + noise * torch.randn(y.shape, generator=generator)
    return _normalised(x).to(device), _normalised(y).to(device)


def time_warped(noise: float, device: str) -> tuple[Tensor, Tensor]:
    """One smooth path of a few dimensions, read at two speeds: neighbours are much alike."""
    generator = torch.Generator().manual_seed(0)
    path = torch.randn(PAIRS, 200, 8, generator=generator).cumsum(1)
    path = path / path.std() @ torch.randn(8, WIDTH, generator=generator) / math.sqrt(8)
    sides = []
    for speed in (1.0, 1.5):
        times = torch.rand(PAIRS, TOKENS, generator=generator) ** speed * 200
        times = times.sort(1).values.long()[:, :, None].expand(-1, -1, WIDTH)
        tokens = path.gather(1, times)
        tokens = tokens + noise * torch.randn(tokens.shape, generator=generator)
        sides.append(_normalised(tokens).to(device))
    return sides[0], sides[1]


def _normalised(tokens: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(tokens, (WIDTH,))


# data, its noise, ε over the mean cost
CASES = (
    (noisy_permutations, 0.5, 0.05),
    (noisy_permutations, 2.0, 0.05),
    (noisy_permutations, 2.0, 0.01),
    (time_warped, 0.3, 0.05),
    (time_warped, 0.3, 0.01),
)


# ---------------------------------------------------------------- the rivals


def ours(x: Tensor, y: Tensor, epsilon: float, iterations: int) -> Tensor:
    return transport_loss(x, y, epsilon=epsilon, max_iterations=iterations, tolerance=1e-12)


def ours_by_default(x: Tensor, y: Tensor, epsilon: float, _: int) -> Tensor:
    return transport_loss(x, y, epsilon=epsilon)


def fused(x: Tensor, y: Tensor, epsilon: float, iterations: int) -> Tensor:
    """One launch for all sweeps of a pair, and each pair stops by itself."""
    limits = {"max_iterations": iterations, "tolerance": 1e-12}
    return transport_loss(x, y, epsilon=epsilon, solver="triton", **limits)


def fused_by_default(x: Tensor, y: Tensor, epsilon: float, _: int) -> Tensor:
    return transport_loss(x, y, epsilon=epsilon, solver="triton")


def naive(x: Tensor, y: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The usual few lines: log-sum-exp updates that autograd records and walks back through."""
    cost = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist").square() / WIDTH
    scale = epsilon * cost.detach().mean((1, 2), keepdim=True)
    scaled, log_weight = cost / scale, -math.log(TOKENS)
    g = torch.zeros_like(scaled[:, :1])
    for _ in range(iterations):
        f = log_weight - torch.logsumexp(g - scaled, 2, keepdim=True)
        g = log_weight - torch.logsumexp(f - scaled, 1, keepdim=True)
    log_plan = f + g - scaled
    plan = log_plan.exp()
    return (plan * cost).sum((1, 2)) + scale.view(-1) * (plan * (log_plan - 1)).sum((1, 2))


def pot(method: str) -> Loss:
    """POT's batched solver with its envelope gradient, one ε for the batch: it takes no vector."""

    def loss(x: Tensor, y: Tensor, epsilon: float, iterations: int) -> Tensor:
        from ot.batch import dist_batch, solve_batch

        cost = dist_batch(x, y, metric="sqeuclidean") / WIDTH
        scale = epsilon * cost.detach().mean((1, 2), keepdim=True)
        with x.device:  # POT makes its first scalings on the default device
            solved = solve_batch(
                cost / scale,
                reg=1.0,
                method=method,
                reg_type="entropy",
                max_iter=iterations,
                tol=0.0,
                grad="envelope",
            )
        return solved.value * scale.view(-1)

    return loss


def floor(x: Tensor, y: Tensor, plan: Tensor) -> None:
    torch.bmm(x, y.mT), torch.bmm(plan, y), torch.bmm(plan.mT, x)


# ---------------------------------------------------------------- measuring


def gradients(loss: Loss, x: Tensor, y: Tensor, epsilon: float, iterations: int) -> list[Tensor]:
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
    loss(x, y, epsilon, iterations).sum().backward()
    return [x.grad, y.grad]


def gradient_error(found: list[Tensor], exact: list[Tensor]) -> float:
    """Relative to the exact gradient, both sides together."""
    differing = sum((f.double() - e).square().sum() for f, e in zip(found, exact, strict=True))
    return (differing / sum(e.square().sum() for e in exact)).sqrt().item()


def fewest_iterations(
    loss: Loss, x: Tensor, y: Tensor, epsilon: float, exact: list[Tensor], args
) -> tuple[int, float]:
    """The first of SWEEP_COUNTS that is accurate enough, else the best, and its gradient error."""
    tried = []
    for iterations in SWEEP_COUNTS:
        error = gradient_error(gradients(loss, x, y, epsilon, iterations), exact)
        tried.append((error if math.isfinite(error) else math.inf, iterations))
        if error <= args.accuracy or not math.isfinite(error):
            break
    error, iterations = tried[-1] if tried[-1][0] <= args.accuracy else min(tried)
    return iterations, error


def graphed(function: Callable[[], object]) -> Callable[[], None]:
    """The same work as one CUDA graph: its time without the host's launches."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(data: Callable, noise: float, epsilon: float, args) -> list[dict]:
    """One table: a row a solver."""
    x, y = data(noise, args.device)
    exact = gradients(
        lambda x, y, epsilon, _: transport_loss(
            x, y, epsilon=epsilon, max_iterations=3000, tolerance=1e-9
        ),
        x.double(),
        y.double(),
        epsilon,
        0,
    )
    rivals = {"ours": ours, "ours, defaults": ours_by_default, "naive, autograd": naive}
    if args.device == "cuda":
        rivals |= {"ours, triton": fused, "ours, triton, defaults": fused_by_default}
    try:
        import ot.batch  # noqa: F401

        rivals |= {"POT batched, exp": pot("sinkhorn"), "POT batched, log": pot("log_sinkhorn")}
    except ImportError:
        print("POT is not installed: its rows are left out")

    rows, timed = [], {"floor": partial(floor, x, y, transport(x, y).plan)}
    for name, loss in rivals.items():
        iterations, error = fewest_iterations(loss, x, y, epsilon, exact, args)
        if loss in (ours_by_default, fused_by_default):
            iterations = transport(x, y, epsilon=epsilon).iterations
        timed[name] = partial(gradients, loss, x, y, epsilon, iterations)
        rows.append({"solver": name, "iterations": iterations, "gradient_error": error})
        if args.device == "cuda" and name.startswith("ours"):
            timed[f"{name}, graph"] = graphed(timed[name])
            rows.append({**rows[-1], "solver": f"{name}, graph"})
    spent: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(args.rounds + 1):
        for name, function in timed.items():
            elapsed = seconds(function, args.device)
            if turn:  # the first round warms up
                spent[name].append(elapsed)
    median = {name: statistics.median(times) for name, times in spent.items()}
    rows.insert(0, {"solver": "floor", "iterations": 0, "gradient_error": None})
    for row in rows:
        row |= {
            "data": data.__name__,
            "noise": noise,
            "epsilon": epsilon,
            "milliseconds": 1e3 * median[row["solver"]],
        }
        row["ratio_to_floor"] = median[row["solver"]] / median["floor"]
        row["ratio_to_ours"] = median[row["solver"]] / median["ours"]
        turns = zip(spent[row["solver"]], spent["ours"], strict=True)
        of_rounds = [a / b for a, b in turns]
        row["ratio_quartiles"] = statistics.quantiles(of_rounds, n=4, method="inclusive")
    return rows


def show(rows: list[dict], accuracy: float) -> None:
    case = rows[0]
    print(f"\n{case['data']}, noise {case['noise']}, ε = {case['epsilon']} of the mean cost")
    print(f"{'solver':<30}{'sweeps':>8}{'gradient':>12}{'ms':>9}{'÷ floor':>9}{'÷ ours':>9}")
    for row in rows:
        error = row["gradient_error"]
        reached = "" if error is None else f"{error:.0e}{' !' if error > accuracy else '  '}"
        print(
            f"{row['solver']:<30}{row['iterations'] or '':>8}{reached:>12}"
            f"{row['milliseconds']:>9.1f}{row['ratio_to_floor']:>9.1f}{row['ratio_to_ours']:>9.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accuracy", type=float, default=1e-3, help="of the gradient, relative")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    on = machine(args.device)
    print(f"{on}, {args.device}, {args.threads} threads; B={PAIRS} N={TOKENS} D={WIDTH} fp32")
    rows = []
    for data, noise, epsilon in CASES:
        table = measure(data, noise, epsilon, args)
        show(table, args.accuracy)
        rows += table
    print("\n! = does not reach the accuracy asked for (inf: overflow)")
    if args.json:
        args.json.write_text(
            json.dumps({"machine": on, "accuracy": args.accuracy, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
