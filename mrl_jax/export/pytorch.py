"""A model as a state of PyTorch with the text of its module, and as ONNX, by PyTorch's own exporter."""

import io
import json
import logging
import warnings
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from mrl_jax.errors import InputError, first_line
from mrl_jax.export.places import file_of
from mrl_jax.export.plain import PlainModel
from mrl_jax.files import atomic_path, write_atomically
from mrl_jax.packages import need

__all__ = ["module_text", "torch_module", "write_onnx", "write_torch"]


def module_text(model: PlainModel, file: str) -> str:
    """The text of a Python file that holds the module and loads its state.

    Args:
        model: the model.
        file: name of the file of the state.
    """
    facts = model.facts
    template = resources.files("mrl_jax.export").joinpath("templates/pytorch_model.txt").read_text("utf-8")
    values = {
        "VERSION": facts["mrl_jax"],
        "FILE": _inside(file),
        "FIRST": _inside(facts["modalities"][0]),
        "MODALITIES": facts["modalities"],
        "PREPROCESS": facts["preprocess"],
        "CLASSES": facts["class_names"],
        "WIDTHS": facts["widths"],
        "CLASSIFIER": facts["classifier_widths"],
        "REPRESENTATION": facts["representation"],
        "SHARPNESS": facts["sharpness"],
        "WEIGHT": facts["embedding_weight"],
    }
    return Template(template).substitute(values)


def _inside(name: str) -> str:
    """A name as it stands between double quotes in the text of a program."""
    return json.dumps(name, ensure_ascii=False)[1:-1]


def write_torch(path: Path, model: PlainModel) -> list[Path]:
    """Write the state to a file that `torch.load` takes with `weights_only=True`, and the module beside it as `.py`.

    Raises:
        InputError: PyTorch is missing, the file is named `.py`, or one cannot be written.
    """
    if path.suffix == ".py":
        raise InputError(f"{str(path)!r}: the module is written beside the state as .py; name the state {path.stem}.pt")
    torch = need(["torch"], "--format torch")
    content = io.BytesIO()
    torch.save({name: torch.tensor(x) for name, x in model.tensors.items()}, content)
    write_atomically(path, content.getvalue())
    beside = path.with_suffix(".py")
    write_atomically(beside, module_text(model, path.name))
    return [path, beside]


def torch_module(model: PlainModel) -> Any:
    """The module of the text with the parameters of a model, in evaluation mode."""
    torch = need(["torch"], "a PyTorch module")
    names: dict[str, Any] = {"__name__": "exported_model"}
    exec(compile(module_text(model, "model.pt"), "pytorch_model.txt", "exec"), names)
    module = names["Model"]()
    module.load_state_dict({name: torch.tensor(x) for name, x in model.tensors.items()})
    return module.eval()


def write_onnx(folder: Path, model: PlainModel) -> list[Path]:
    """Write `MODALITY.onnx` for every modality: input `features` [batch, D], outputs `rows` and `log_posterior`.

    Raises:
        InputError: a package is missing, a model cannot be converted, or a file cannot be written.
    """
    torch = need(["torch", "onnx", "onnxscript"], "--format onnx")
    module, paths = torch_module(model), []
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that the model does not need
    for i, m in enumerate(model.facts["modalities"]):
        has_classes = bool(model.classifier)

        class OfModality(torch.nn.Module):  # type: ignore[name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.model = module

            def forward(self, features: Any, m: str = m, has_classes: bool = has_classes) -> Any:
                rows = self.model.represent(m, features)
                return (rows, self.model.log_posterior(self.model(m, features))) if has_classes else rows

        path = folder / file_of(m, ".onnx")
        outputs = ["rows", "log_posterior"] if has_classes else ["rows"]
        with atomic_path(path) as part, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own internals
            try:
                torch.onnx.export(
                    OfModality().eval(),
                    (torch.zeros(2, model.facts["widths"][i][0]),),
                    str(part),
                    input_names=["features"],
                    output_names=outputs,
                    dynamic_shapes=({0: "batch"},),
                    external_data=False,
                    dynamo=True,
                    verbose=False,
                )
            except (RuntimeError, ValueError, TypeError) as error:
                raise InputError(f"PyTorch cannot convert the model to ONNX ({first_line(error)})") from error
        paths.append(path)
    return paths
