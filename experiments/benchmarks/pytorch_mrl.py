"""MRL in PyTorch, written from the equations and the protocol, for comparison with mrl_jax.

- `Reference` trains in the style of the official implementation: a DataLoader of shuffled batches, a Python loop over
  them, plain Adam; losses are read at every step; mAP from SciPy's distances by a Python loop over the ranks of each
  query.
- `Best` is the fastest form that we know: resident tensors, one gather per batch, fused Adam, no synchronisation; mAP
  of all queries at once.
- `Compiled` is `Best` with encoders and losses compiled by `torch.compile`.
- `Graphed` is `Best` with a step as one CUDA graph.

As in the official implementation: no similarity of a sample with itself, centres scaled to unit length before a step,
Adam's betas, the last batch. Left out: its defects, and evaluation of the training split. From the parameters and
batches of mrl_jax they give the losses of mrl_jax (tests/experiments/test_pytorch_mrl.py).
"""

import copy
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

if __name__ == "__main__":  # before PyTorch, which may be missing
    print("error: these programs are run by python -m experiments.benchmarks.benchmark_pytorch", file=sys.stderr)
    sys.exit(2)

import torch
from scipy.spatial.distance import cdist
from torch.nn import functional

__all__ = ["Best", "Compiled", "Graphed", "Model", "Reference", "mean_ap", "mean_ap_in_loops", "mrl_loss"]


class Model(torch.nn.Module):
    """Encoders onto the unit sphere, one per modality, and class centres.

    Args:
        dims: numbers of features.
        hidden_dims: widths of the hidden layers.
        embed_dim: L.
        num_classes: K.
    """

    def __init__(self, dims: Sequence[int], hidden_dims: Sequence[int], embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.encoders = torch.nn.ModuleList()
        for d in dims:
            widths = [d, *hidden_dims, embed_dim]
            layers: list[torch.nn.Module] = []
            for a, b in pairwise(widths):
                layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
            self.encoders.append(torch.nn.Sequential(*layers[:-1]))
        self.centers = torch.nn.Parameter(torch.empty(num_classes, embed_dim))
        torch.nn.init.orthogonal_(self.centers)

    def load(self, encoders: Sequence[Any], centers: Any) -> None:
        """Copy parameters from the form of `mrl_jax.TrainState`."""
        with torch.no_grad():
            for source, target in zip(encoders, self.encoders, strict=True):
                linear = [layer for layer in target if isinstance(layer, torch.nn.Linear)]
                for i, layer in enumerate(linear):
                    params = source["params"][f"Dense_{i}"]
                    layer.weight.copy_(torch.tensor(np.array(params["kernel"])).T)
                    layer.bias.copy_(torch.tensor(np.array(params["bias"])))
            self.centers.copy_(torch.tensor(np.array(centers)))

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Unit rows [B, L] of every modality."""
        return [_unit(f(x)) for f, x in zip(self.encoders, features, strict=True)]

    def center(self) -> None:
        """Scale the centres to unit length, without gradient."""
        with torch.no_grad():
            self.centers.div_(self.centers.norm(dim=1, keepdim=True))


def mrl_loss(
    z: Sequence[torch.Tensor],
    centers: torch.Tensor,
    labels: Sequence[torch.Tensor],
    beta: float,
    tau1: float,
    tau2: float,
) -> torch.Tensor:
    """Total loss (eq. 8) with the robust clustering loss, without self-similarities.

    Args:
        z: unit rows [B, L] of every modality.
        centers: unit rows [K, L].
        labels: [B] of every modality.
        beta: weight of the clustering loss.
        tau1: temperature of the soft assignment.
        tau2: temperature of the contrastive loss.
    """
    m, n = len(z), len(z[0])
    clustering = z[0].new_zeros(())
    for x, y in zip(z, labels, strict=True):
        logits = x @ centers.T / tau1
        others = logits.scatter(1, y[:, None], -torch.inf)
        clustering = clustering + (others.logsumexp(1) - logits.logsumexp(1)).sum()  # log(1 - p), eq. 5
    rows = torch.cat(list(z))
    similar = rows @ rows.T / tau2
    similar.fill_diagonal_(-torch.inf)
    positive = similar.view(m, n, m, n).diagonal(dim1=1, dim2=3).reshape(m, m, n).logsumexp(1)
    contrastive = (similar.logsumexp(1) - positive.reshape(-1)).sum()
    return (beta * clustering + (1 - beta) * contrastive) / n


def mean_ap(
    queries: torch.Tensor, gallery: torch.Tensor, query_labels: torch.Tensor, gallery_labels: torch.Tensor
) -> float:
    """mAP over the full ranking by inner product, all queries at once.

    Args:
        queries: unit rows [Q, L].
        gallery: unit rows [G, L].
        query_labels: [Q].
        gallery_labels: [G].
    """
    order = (queries @ gallery.T).argsort(dim=1, descending=True, stable=True)
    hits = gallery_labels[order] == query_labels[:, None]
    counts = hits.cumsum(1)
    ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    precisions = torch.where(hits, counts / ranks, 0.0).sum(1)
    return float((precisions / counts[:, -1].clamp(min=1)).mean())


def mean_ap_in_loops(
    queries: np.ndarray, gallery: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray
) -> float:
    """mAP query by query and rank by rank; arguments as in `mean_ap`."""
    distances = cdist(queries, gallery, "cosine")
    total = 0.0
    for i in range(len(queries)):
        order = distances[i].argsort(kind="stable")
        hits, precisions = 0, 0.0
        for rank, item in enumerate(order):
            if gallery_labels[item] == query_labels[i]:
                hits += 1
                precisions += hits / (rank + 1)
        total += precisions / hits if hits else 0.0
    return total / len(queries)


class Program:
    """Common part of the programs.

    Args:
        model: encoders and centres.
        features: one [N, D] per modality.
        labels: [M, N].
        batch_size: B.
        learning_rate: Adam's.
        objective: beta, tau1, tau2.
        device: device of the model, and of resident data.
        bfloat16: whether the encoders compute in bfloat16.
    """

    fused, resident = False, False

    def __init__(
        self,
        model: Model,
        features: Sequence[np.ndarray],
        labels: np.ndarray,
        batch_size: int,
        learning_rate: float,
        objective: tuple[float, float, float],
        device: str = "cpu",
        bfloat16: bool = False,
    ) -> None:
        self.model, self.objective, self.batch_size = model, objective, batch_size
        self.device, self.bfloat16 = device, bfloat16
        place = device if self.resident else "cpu"
        self.features = [torch.tensor(np.array(x), device=place) for x in features]
        self.labels = torch.tensor(labels.astype(np.int64), device=place)
        capturable = self.fused and device == "cuda"
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            # A graph captures plain numbers as constants.
            lr=torch.tensor(learning_rate, device=device) if capturable else learning_rate,
            betas=(0.5, 0.999),
            fused=self.fused or None,  # None: PyTorch chooses
            capturable=capturable,
        )

    def loss(self, features: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Loss of a batch."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            z = self.model(features)
        return mrl_loss([x.float() for x in z], self.model.centers, labels, *self.objective)

    def step(self, features: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Train on a batch; returns its loss before the update."""
        self.model.center()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(features, labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def epoch(self, rows: Sequence[np.ndarray] | None = None) -> list[float]:
        """Train an epoch, on the given batches or shuffled ones; returns the losses of its steps."""
        raise NotImplementedError

    def scores(self, features: Sequence[np.ndarray], labels: np.ndarray) -> list[float]:
        """mAP of every direction: first modality to each other one, second modality to each other one, and so on.

        Args:
            features: one [N, D] per modality; for resident programs, tensors on the device are fastest.
            labels: [N].
        """
        raise NotImplementedError

    def run(
        self,
        held_out: Mapping[str, tuple[Sequence[np.ndarray], np.ndarray]],
        epochs: int,
        rate_at: Callable[[int], float],
        rows_of: Callable[[int], Sequence[np.ndarray]] | None = None,
    ) -> dict[str, Any]:
        """The whole protocol: validation after every epoch, test scores of the best epoch and the last.

        Args:
            held_out: "valid" and "test": features and labels.
            epochs: number of epochs.
            rate_at: epoch, counted from 0 -> learning rate.
            rows_of: epoch -> batches; None for shuffled ones.
        """
        valid: list[float] = []
        best: Any = None
        graphs = isinstance(self.optimizer.param_groups[0]["lr"], torch.Tensor)
        for epoch in range(epochs):
            for group in self.optimizer.param_groups:
                group["lr"] = group["lr"].fill_(rate_at(epoch)) if graphs else rate_at(epoch)
            self.epoch(None if rows_of is None else rows_of(epoch))
            valid.append(statistics.mean(self.scores(*held_out["valid"])))
            if valid.index(max(valid)) == epoch:  # the first one of a tie
                best = copy.deepcopy(self.model.state_dict())
        last = self.scores(*held_out["test"])
        self.model.load_state_dict(best)
        return {"valid": valid, "test": {"best": self.scores(*held_out["test"]), "last": last}}

    def snapshot(self) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Copies of every parameter and of its optimiser state."""
        return [
            (p.detach().clone(), {name: x.clone() for name, x in self.optimizer.state[p].items()})
            for p in self.model.parameters()
        ]

    def restore(self, before: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> None:
        """Undo the steps since `snapshot`, in place; optimiser state that it lacks is set to 0."""
        with torch.no_grad():
            for p, (values, state) in zip(self.model.parameters(), before, strict=True):
                p.copy_(values)
                for name, x in self.optimizer.state[p].items():
                    x.copy_(state[name]) if name in state else x.zero_()


class Reference(Program):
    """In the style of the official implementation."""

    def batches(self, rows: Sequence[np.ndarray] | None) -> Iterator[list[torch.Tensor]]:
        """Batches from a DataLoader, shuffled or of the given rows."""
        data = torch.utils.data.TensorDataset(*self.features, *self.labels)
        if rows is None:
            return iter(torch.utils.data.DataLoader(data, self.batch_size, shuffle=True))
        return iter(torch.utils.data.DataLoader(data, batch_sampler=[list(map(int, r)) for r in rows]))

    def epoch(self, rows: Sequence[np.ndarray] | None = None) -> list[float]:
        """Train an epoch; returns the losses of its steps."""
        losses, m = [], len(self.model.encoders)
        for columns in self.batches(rows):
            columns = [x.to(self.device) for x in columns]
            losses.append(self.step(columns[:m], columns[m:]).item())
        return losses

    def scores(self, features: Sequence[np.ndarray], labels: np.ndarray) -> list[float]:
        """mAP of every direction."""
        z: list[np.ndarray] = []
        with torch.no_grad():
            for encoder, x in zip(self.model.encoders, features, strict=True):
                parts = torch.utils.data.DataLoader(torch.tensor(x), self.batch_size)
                z.append(np.concatenate([_unit(encoder(part.to(self.device))).cpu().numpy() for part in parts]))
        return [mean_ap_in_loops(a, b, labels, labels) for a in z for b in z if a is not b]


class Best(Program):
    """Resident tensors and fused Adam."""

    fused, resident = True, True

    def epoch(self, rows: Sequence[np.ndarray] | None = None) -> list[float]:
        """Train an epoch; returns the losses of its steps."""
        batches = torch.randperm(self.labels.shape[1], device=self.device).split(self.batch_size)
        if rows is not None:
            batches = tuple(torch.tensor(np.array(r), device=self.device) for r in rows)
        return torch.stack([self.train_rows(batch) for batch in batches]).tolist()

    def scores(self, features: Sequence[np.ndarray], labels: np.ndarray) -> list[float]:
        """mAP of every direction."""
        with torch.no_grad():
            rows = [torch.as_tensor(x, device=self.device) for x in features]
            z, y = self.model(rows), torch.as_tensor(labels, device=self.device)
            return [mean_ap(a, b, y, y) for a in z for b in z if a is not b]

    def train_rows(self, batch: torch.Tensor) -> torch.Tensor:
        """Train on these rows; returns their loss before the update."""
        return self.step([x.index_select(0, batch) for x in self.features], self.labels.index_select(1, batch))  # type: ignore[arg-type]


class Compiled(Best):
    """`Best` with encoders and losses compiled, once for each batch size."""

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.loss = torch.compile(self.loss, dynamic=False)  # type: ignore[method-assign]


class Graphed(Best):
    """`Best` with a step on a full batch as one CUDA graph; the shorter last batch has no graph."""

    graph: torch.cuda.CUDAGraph | None = None

    def train_rows(self, batch: torch.Tensor) -> torch.Tensor:
        """Train on these rows; returns their loss before the update."""
        if len(batch) != self.batch_size:
            return super().train_rows(batch)
        if self.graph is None:
            self.rows, before = batch.clone(), self.snapshot()
            stream = torch.cuda.Stream()  # as PyTorch requires: warm-up steps on another stream before the capture
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    super().train_rows(self.rows)
            torch.cuda.current_stream().wait_stream(stream)
            self.restore(before)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.replayed = super().train_rows(self.rows)
            self.graph = graph
        self.rows.copy_(batch)
        self.graph.replay()
        return self.replayed.clone()


def _unit(z: torch.Tensor) -> torch.Tensor:
    return functional.normalize(z, dim=1)
