"""Hugging Face models as encoders: features [B, D] of pictures or texts. Only this file uses torch and transformers.

Both are imported when a model is needed, so that errors in the table are reported at once and without them.

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

from mrl_jax.data.featurize.raw_table import Row, read_rgb, reason_of
from mrl_jax.errors import InputError

__all__ = ["Encode", "check_model", "load_encoder", "model_key", "package_versions", "torch_device"]

_PACKAGES = ("torch", "transformers", "pillow", "torchvision")

Encode = Callable[[Sequence[Row]], tuple[np.ndarray, str]]
"""Computes features of rows, float32 [B, D]; also returns the name of the pooling."""


def check_model(modality: str, name: str) -> None:
    """Check that a model given as a folder exists.

    Args:
        modality: "image" or "text", for the message.
        name: folder or hub name.

    Raises:
        InputError: there is no such folder, or no model in it.
    """
    if _is_local(name) and not (Path(name).expanduser() / "config.json").is_file():
        problem = "has no config.json" if Path(name).expanduser().is_dir() else "does not exist"
        raise InputError(
            f"{modality} model {name}: the folder {problem}; give a folder written by save_pretrained, "
            "or the name of a model on the Hugging Face hub"
        )


def _is_local(name: str) -> bool:
    """Whether the name is a folder and not a hub name (NAME or OWNER/NAME); an existing folder takes precedence."""
    return Path(name).expanduser().is_dir() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)


@contextlib.contextmanager
def torch_device(device: str) -> Iterator[str]:
    """Import the optional packages, silence their messages, and yield the device.

    Args:
        device: "auto", "cpu" or "cuda".

    Yields:
        "cpu" or "cuda".

    Raises:
        InputError: a package or the device is missing.
    """
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        try:
            import torch
            import transformers
            from huggingface_hub.utils import logging as hub
        except ImportError as error:
            raise InputError(
                f"featurize needs torch and transformers ({reason_of(error)}); run: pip install torch 'transformers>=5'"
            ) from error
        available = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and available == "cpu":
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
        yield available if device == "auto" else device


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that features depend on."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def model_key(name: str) -> dict[str, str]:
    """Identity of the weights of a model: the SHA-256 of the files of a folder, or the commit on the hub.

    Args:
        name: folder or hub name.

    Raises:
        InputError: the hub has no such model or cannot be reached.
    """
    if _is_local(name):
        total = hashlib.sha256()
        for path in sorted(Path(name).expanduser().iterdir()):
            if path.is_file() and not path.name.startswith("."):
                with path.open("rb") as file:
                    total.update(f"{path.name}/{hashlib.file_digest(file, 'sha256').hexdigest()}/".encode())
        return {"sha256": total.hexdigest()}
    from transformers.utils import cached_file

    with _model_errors(name):  # the cache stores files in snapshots/COMMIT
        commit = Path(str(cached_file(name, "config.json"))).parent.name
    return {"name": name, "revision": commit if re.fullmatch("[0-9a-f]{40}", commit) else "main"}


@contextlib.contextmanager
def _model_errors(name: str) -> Iterator[None]:
    """Turn every error raised inside into an `InputError` that names the model."""
    try:
        yield
    except Exception as error:  # transformers raises many types
        raise InputError(
            f"model {name} cannot be loaded ({reason_of(error)}); give a folder written by save_pretrained, or a "
            "name on the Hugging Face hub while online"
        ) from error


def load_encoder(modality: str, name: str, key: Mapping[str, str], device: str) -> Encode:
    """Load a model with its image processor or tokenizer; every call of the encoder gives the same bits.

    Args:
        modality: "image" or "text".
        name: folder or hub name.
        key: the model's `model_key`.
        device: "cpu" or "cuda".

    Raises:
        InputError: the model cannot be loaded or lacks weights. In a call of the encoder: it gives no features of this
            modality or infinite ones, a picture is damaged, or memory runs out.
    """
    import torch
    import transformers

    auto = transformers.AutoImageProcessor if modality == "image" else transformers.AutoTokenizer
    options: dict[str, Any] = {"trust_remote_code": False}
    if "revision" in key:
        options["revision"] = key["revision"]
    path = str(Path(name).expanduser()) if _is_local(name) else name
    with _model_errors(name):
        transformers.AutoConfig.from_pretrained(path, **options)  # gives the clearest error if this is not a model
        prepare: Any = auto.from_pretrained(path, **options)
        model: Any
        model, info = transformers.AutoModel.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, **options
        )
    # transformers fills missing weights with random numbers. An untrained pooler is acceptable: it is not used.
    missing = sorted(info["missing_keys"])
    untrained = [weight for weight in missing if not re.search(r"(^|\.)pooler\.", weight)]
    if untrained or (missing and _two_towers(model)):
        raise InputError(
            f"model {name} lacks {len(missing)} weights ({(untrained or missing)[0]}); its features would be random: "
            "give the complete model"
        )
    if modality == "text" and getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if hasattr(model.config, "mask_ratio"):  # masked autoencoders drop patches at random
        model.config.mask_ratio = 0.0
    model = model.to(device).eval()
    if modality == "image":
        encode = _image_encoder(prepare, model, device, pooler=not missing)
    else:
        encode = _text_encoder(prepare, model, device)
    return _checked_encoder(encode, modality, name, device)


def _checked_encoder(encode: Encode, modality: str, name: str, device: str) -> Encode:
    """The encoder with deterministic results, checked features and errors that name the model."""

    def checked(rows: Sequence[Row]) -> tuple[np.ndarray, str]:
        import torch

        try:
            with _deterministic(device):
                features, pooling = encode(rows)
        except torch.OutOfMemoryError as error:
            raise InputError(f"{modality} model {name}: out of memory; choose a smaller batch size") from error
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"model {name} gives no {modality} features ({type(error).__name__}: {reason_of(error)}); choose "
                f"{'a vision' if modality == 'image' else 'a text'} or two-tower model"
            ) from error
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise InputError(
                f"model {name}: the {modality} features of id {rows[bad[0]].id!r} are not finite; check that input, "
                "or choose another model"
            )
        return features, pooling

    return checked


def _two_towers(model: Any) -> bool:
    return hasattr(model, "get_image_features") and hasattr(model, "get_text_features")


def _matrix(features: Any) -> np.ndarray:
    """float32 [B, D] from a tensor [B, D] or, of convolutional models, [B, D, 1, 1]."""
    if features.ndim == 4 and tuple(features.shape[2:]) == (1, 1):
        features = features.flatten(1)
    if features.ndim != 2:
        raise ValueError(f"its pooled output has the shape {list(features.shape)}")
    return features.float().cpu().numpy()


def _image_encoder(prepare: Any, model: Any, device: str, pooler: bool) -> Encode:
    def pooled(inputs: dict[str, Any]) -> tuple[Any, str]:
        if _two_towers(model):
            output = model.get_image_features(**inputs)  # transformers 4: a tensor
            return getattr(output, "pooler_output", output), "get_image_features"
        output = model(**inputs)
        if pooler and getattr(output, "pooler_output", None) is not None:
            return output.pooler_output, "pooler_output"
        last = output.last_hidden_state
        if last.ndim == 4:
            return last.mean((2, 3)), "mean of last_hidden_state over positions"
        skipped = _prefix(model.config, last.shape[1], inputs["pixel_values"].shape)
        return last[:, skipped:].mean(1), "mean of last_hidden_state over patches"

    def encode(rows: Sequence[Row]) -> tuple[np.ndarray, str]:
        # Pictures are processed one by one, because some processors pad to the largest of a batch or keep sizes.
        # Pictures of equal shape then go through the model together.
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
    prepare.padding_side = "right"  # with "left", positions would depend on the longest text of the batch
    if prepare.pad_token is None:
        prepare.pad_token = prepare.eos_token
    # SigLIP was trained with padding, and models without a mask see it; so its length must not depend on the batch.
    fixed = "attention_mask" not in prepare.model_input_names or (towers and limit <= 128)

    def encode(rows: Sequence[Row]) -> tuple[np.ndarray, str]:
        padding = "max_length" if fixed else "longest"
        tokens = prepare(
            [row.text for row in rows], padding=padding, truncation=True, max_length=limit, return_tensors="pt"
        )
        inputs = {name: tensor.to(device) for name, tensor in tokens.items()}
        if towers:
            output = model.get_text_features(**inputs)
            return _matrix(getattr(output, "pooler_output", output)), f"get_text_features, {limit} tokens"
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
        positions -= 0 if padding is None else padding + 1  # RoBERTa and its variants start at this position
    else:
        positions = None
    known = int(tokenizer.model_max_length)  # 10^30 where it is unknown
    if known > 10**6:
        return positions or 512
    return min(known, positions) if positions else known


@contextlib.contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Full float32 precision and the same bits in every call; random numbers of a model come from a fixed seed."""
    import torch

    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.inference_mode(), flags, torch.random.fork_rng(devices):
        torch.manual_seed(0)
        yield
