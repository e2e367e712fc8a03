"""Hugging Face models as encoders: pictures or texts of rows to features [B, D]. All of torch and transformers is here.

Both are imported when a model is needed, so that mistakes in the table are told at once and without them.

Shape letters: B pictures or texts of a batch, D features.
"""

import contextlib
import hashlib
import importlib.metadata
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.featurize.raw_table import Row, first_line, read_rgb
from mrl_jax.errors import InputError

__all__ = ["Encode", "check_model", "load_encoder", "model_key", "package_versions", "torch_device"]

_PACKAGES = ("torch", "transformers", "pillow", "torchvision")

Encode = Callable[[Sequence[Row]], tuple[np.ndarray, str]]
"""Rows to features, float32 [B, D], and how they were pooled."""


def check_model(modality: str, name: str) -> None:
    """Check that a model named as a folder is one.

    Raises:
        InputError: there is no such folder, or no model in it.
    """
    if _is_local(name) and not (Path(name).expanduser() / "config.json").is_file():
        found = "has no config.json" if Path(name).expanduser().is_dir() else "does not exist"
        raise InputError(
            f"{modality} model {name}: the folder {found}; give a folder written by save_pretrained, "
            "or the name of a model on the Hugging Face hub"
        )


def _is_local(name: str) -> bool:
    """Tell a folder from a name on the hub (NAME or OWNER/NAME); a folder that exists is meant."""
    return Path(name).expanduser().is_dir() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)


@contextlib.contextmanager
def torch_device(device: str) -> Iterator[str]:
    """Import the optional packages, keep them quiet, and yield "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises:
        InputError: a package or the device is not there.
    """
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        try:
            import torch
            import transformers
            from huggingface_hub.utils import logging as hub
        except ImportError as error:
            raise InputError(
                f"featurize needs torch and transformers ({first_line(error)}); run: pip install 'mrl_jax[featurize]'"
            ) from error
        found = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and found == "cpu":
            raise InputError(
                "device cuda: torch finds no CUDA device here; choose cpu or auto, or install torch for CUDA"
            )
        library = transformers.logging
        stack.callback(library.set_verbosity, library.get_verbosity())
        stack.callback(hub.set_verbosity, hub.get_verbosity())
        if library.is_progress_bar_enabled():
            stack.callback(library.enable_progress_bar)
        library.set_verbosity_error()
        hub.set_verbosity_error()
        library.disable_progress_bar()
        yield found if device == "auto" else device


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that features depend on."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def model_key(name: str) -> dict[str, str]:
    """What stands for a model's weights: the SHA-256 of a folder's files, or the commit on the hub.

    Raises:
        InputError: the hub has no such model, or cannot be reached.
    """
    if _is_local(name):
        total = hashlib.sha256()
        for path in sorted(Path(name).expanduser().iterdir()):
            if path.is_file() and not path.name.startswith("."):
                with path.open("rb") as file:
                    total.update(f"{path.name}/{hashlib.file_digest(file, 'sha256').hexdigest()}/".encode())
        return {"sha256": total.hexdigest()}
    from transformers.utils import cached_file

    with _model_told(name):  # the cache keeps files under snapshots/COMMIT
        commit = Path(str(cached_file(name, "config.json"))).parent.name
    return {"name": name, "revision": commit if re.fullmatch("[0-9a-f]{40}", commit) else "main"}


@contextlib.contextmanager
def _model_told(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers raises many kinds
        raise InputError(
            f"model {name} cannot be loaded ({first_line(error)}); give a folder written by save_pretrained, or a "
            "name on the Hugging Face hub while online"
        ) from error


def load_encoder(modality: str, name: str, key: Mapping[str, str], device: str) -> Encode:
    """Load a model with its preparation of "image" or "text"; every call of the encoder gives the same bits.

    Raises:
        InputError: it cannot be loaded or lacks weights; in a call, it gives no features of that kind or infinite ones,
            a picture is damaged, or memory is short.
    """
    import torch
    import transformers

    auto = transformers.AutoImageProcessor if modality == "image" else transformers.AutoTokenizer
    options: dict[str, Any] = {"trust_remote_code": False}
    if "revision" in key:
        options["revision"] = key["revision"]
    path = str(Path(name).expanduser()) if _is_local(name) else name
    with _model_told(name):
        transformers.AutoConfig.from_pretrained(path, **options)  # tells best what is no model at all
        prepare: Any = auto.from_pretrained(path, **options)
        model: Any
        model, info = transformers.AutoModel.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, **options
        )
    # transformers fills weights that the file lacks with random numbers. An untrained pooler is not used.
    lacking = sorted(info["missing_keys"])
    untrained = [weight for weight in lacking if not re.search(r"(^|\.)pooler\.", weight)]
    if untrained or (lacking and _two_towers(model)):
        raise InputError(
            f"model {name} lacks {len(lacking)} weights ({(untrained or lacking)[0]}); its features would be random: "
            "give the complete model"
        )
    if modality == "text" and getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if hasattr(model.config, "mask_ratio"):  # masked autoencoders drop patches at random
        model.config.mask_ratio = 0.0
    model = model.to(device).eval()
    if modality == "image":
        encode = _image_encoder(prepare, model, device, pooler=not lacking)
    else:
        encode = _text_encoder(prepare, model, device)
    return _told_encoder(encode, modality, name, device)


def _told_encoder(encode: Encode, modality: str, name: str, device: str) -> Encode:
    def told(rows: Sequence[Row]) -> tuple[np.ndarray, str]:
        import torch

        try:
            with _deterministic(device):
                features, pooling = encode(rows)
        except torch.OutOfMemoryError as error:
            raise InputError(f"{modality} model {name}: no memory left; choose a smaller batch size") from error
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"model {name} gives no {modality} features ({type(error).__name__}: {first_line(error)}); choose "
                f"{'a vision' if modality == 'image' else 'a text'} or two-tower model"
            ) from error
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise InputError(
                f"model {name}: the {modality} features of id {rows[bad[0]].id!r} are not finite; check that input, "
                "or choose another model"
            )
        return features, pooling

    return told


def _two_towers(model: Any) -> bool:
    return hasattr(model, "get_image_features") and hasattr(model, "get_text_features")


def _matrix(features: Any) -> np.ndarray:
    """Float32 [B, D] of a tensor [B, D] or, from convolutional models, [B, D, 1, 1]."""
    if features.ndim == 4 and tuple(features.shape[2:]) == (1, 1):
        features = features.flatten(1)
    if features.ndim != 2:
        raise ValueError(f"its pooled output has the shape {list(features.shape)}")
    return features.float().cpu().numpy()


def _image_encoder(prepare: Any, model: Any, device: str, pooler: bool) -> Encode:
    def pooled(inputs: dict[str, Any]) -> tuple[Any, str]:
        if _two_towers(model):
            found = model.get_image_features(**inputs)  # transformers 4: a tensor
            return getattr(found, "pooler_output", found), "get_image_features"
        found = model(**inputs)
        if pooler and getattr(found, "pooler_output", None) is not None:
            return found.pooler_output, "pooler_output"
        last = found.last_hidden_state
        if last.ndim == 4:
            return last.mean((2, 3)), "mean of last_hidden_state over positions"
        skipped = _prefix(model.config, last.shape[1], inputs["pixel_values"].shape)
        return last[:, skipped:].mean(1), "mean of last_hidden_state over patches"

    def encode(rows: Sequence[Row]) -> tuple[np.ndarray, str]:
        # One by one: some processors pad to the largest of a batch, or leave sizes as they are. Equal shapes go
        # through the model together.
        groups: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
        for j, row in enumerate(rows):
            assert row.picture is not None
            one = dict(prepare(images=[read_rgb(row.picture)], return_tensors="pt"))
            groups.setdefault(tuple((k, v.shape) for k, v in one.items()), []).append((j, one))
        return _joined(groups.values(), len(rows), pooled, device)

    return encode


def _joined(groups: Any, count: int, pooled: Callable[..., tuple[Any, str]], device: str) -> tuple[np.ndarray, str]:
    """Run the model on each group of equal shapes and put the features back in the order of the rows."""
    import torch

    parts: list[Any] = [None] * count
    pooling = ""
    for group in groups:
        inputs = {k: torch.cat([one[k] for _, one in group]).to(device) for k in group[0][1]}
        tensor, pooling = pooled(inputs)
        for (j, _), values in zip(group, _matrix(tensor), strict=True):
            parts[j] = values
    return np.stack(parts), pooling


def _prefix(config: Any, tokens: int, shape: Sequence[int]) -> int:
    """Number of class and register tokens before the patches of a vision transformer."""
    size = getattr(config, "patch_size", None)
    if size is None:
        return 0
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    extra = tokens - (shape[-2] // height) * (shape[-1] // width)
    return extra if 0 <= extra < tokens else 0


def _text_encoder(prepare: Any, model: Any, device: str) -> Encode:
    towers = _two_towers(model)
    limit = _max_tokens(prepare, model)
    prepare.padding_side = "right"  # left, positions would depend on the longest text of the batch
    if prepare.pad_token is None:
        prepare.pad_token = prepare.eos_token
    # SigLIP was trained on, and models without a mask see, the padding: it must not depend on the batch.
    fixed = "attention_mask" not in prepare.model_input_names or (towers and limit <= 128)

    def encode(rows: Sequence[Row]) -> tuple[np.ndarray, str]:
        padding = "max_length" if fixed else "longest"
        words = prepare(
            [row.text for row in rows], padding=padding, truncation=True, max_length=limit, return_tensors="pt"
        )
        inputs = {name: tensor.to(device) for name, tensor in words.items()}
        if towers:
            found = model.get_text_features(**inputs)
            return _matrix(getattr(found, "pooler_output", found)), f"get_text_features, {limit} tokens"
        last = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"] if "attention_mask" in inputs else last.new_ones(last.shape[:2])
        weights = mask.to(last.dtype)[:, :, None]
        mean = (last * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return _matrix(mean), f"mean of last_hidden_state over at most {limit} tokens"

    return encode


def _max_tokens(tokenizer: Any, model: Any) -> int:
    config = getattr(model.config, "text_config", model.config)
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        positions -= 0 if padding is None else padding + 1  # RoBERTa's family counts from there on
    else:
        positions = None
    known = int(tokenizer.model_max_length)  # 10^30: unknown
    if known > 10**6:
        return positions or 512
    return min(known, positions) if positions else known


@contextlib.contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Full float32 precision and the same bits at every call; what a model draws, it draws from one seed."""
    import torch

    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.inference_mode(), flags, torch.random.fork_rng(devices):
        torch.manual_seed(0)
        yield
