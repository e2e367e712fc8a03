"""One TFDS builder per feature set: it writes the prepared data as records for other programs.

Records are written with `file_format="array_record"` and read with
`tfds.builder_from_directory(folder).as_data_source(split)`; neither needs TensorFlow.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mrl_jax.data.dataset import SPLITS, Dataset
from mrl_jax.data.published.catalog import CATALOG, FeatureSet
from mrl_jax.data.published.copy_folders import VERSION as _VERSION
from mrl_jax.data.published.copy_folders import folder_of
from mrl_jax.data.tfds_writing import write_dataset

__all__ = ["BUILDERS", "PairedFeatures", "write_records"]

_SHARD_BYTES = 1 << 28


class PairedFeatures(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of one set; `BUILDERS` has a class for each.

    A record holds `id` (text), and for each modality `MODALITY` (float32 [D]), `labels/MODALITY` (int32) and
    `present/MODALITY` (false where the sample is missing and its features are zeros). If modalities differ in length,
    a split has as many records as the longest one.

    Args:
        dataset: the data to write.
        **kwargs: as for every TFDS builder, without `config`, which follows from the modalities.
    """

    VERSION = tfds.core.Version(_VERSION)
    RELEASE_NOTES: Mapping[str, str] = {_VERSION: "First release."}
    code_path = None  # else TFDS looks for checksum files here, with a package that it does not require
    facts: ClassVar[FeatureSet]

    def __init__(self, *, dataset: Dataset, **kwargs: Any) -> None:
        self._dataset = dataset
        config = tfds.core.BuilderConfig(name=config_name(dataset.modalities), version=_VERSION)
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {
            m: tfds.features.Tensor(shape=(d,), dtype=np.float32, encoding="bytes")
            for m, d in self._dataset.dims.items()
        }
        for name, kind in (("labels", np.int32), ("present", np.bool_)):
            features[name] = tfds.features.FeaturesDict(
                {m: tfds.features.Scalar(dtype=kind) for m in self._dataset.modalities}
            )
        features["id"] = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.facts.title}: {self.facts.features}. {self.facts.classes} classes.",
            features=tfds.features.FeaturesDict(features),
            homepage=self.facts.published if self.facts.published.startswith("http") else None,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(self._dataset.class_names)),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator[Any]]]]:
        del dl_manager  # nothing to download: the data are already read
        row = 4 * sum(self._dataset.dims.values())
        size = max(1, _SHARD_BYTES // row)
        return {
            s: [partial(self._examples, s, i, i + size) for i in range(0, len(self._dataset.splits[s]), size)]
            for s in SPLITS
        }

    def _examples(self, name: str, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        split, dims = self._dataset.splits[name], self._dataset.dims
        present = {m: split.present(m) for m in dims}
        for j in range(start, min(stop, len(split))):
            present_here = {m: j < len(present[m]) and bool(present[m][j]) for m in dims}
            record: dict[str, Any] = {
                m: split.features[m][j] if j < len(split.features[m]) else np.zeros(d, np.float32)
                for m, d in dims.items()
            }
            record["labels"] = {m: split.labels[m][j] if j < len(split.labels[m]) else -1 for m in dims}
            record["present"] = present_here
            record["id"] = str(j) if split.ids is None else str(split.ids[j])
            yield j, record


def config_name(modalities: Sequence[str]) -> str:
    """Name of the TFDS configuration, and so of the folder, for these modalities."""
    return folder_of(modalities)


def _builder(name: str, facts: FeatureSet) -> type[PairedFeatures]:
    # TFDS has its own data sets named "wikipedia" and so on; these are read from their folder, not by name.
    members = {"facts": facts, "name": name.replace("-", "_"), "__module__": __name__, "__doc__": facts.title}
    return type(facts.title.title().replace(" ", ""), (PairedFeatures,), members, skip_registration=True)


BUILDERS: dict[str, type[PairedFeatures]] = {name: _builder(name, facts) for name, facts in CATALOG.items()}
"""Name of a set -> its builder."""


def write_records(name: str, dataset: Dataset, root: Path) -> Path:
    """Write the records of a set.

    Args:
        name: the set, a key of `CATALOG`.
        dataset: the data to write.
        root: folder for all sets.

    Returns:
        The folder of this set, `root/SET/MODALITIES/VERSION`.

    Raises:
        OSError: the records cannot be written.
    """
    return write_dataset(lambda: BUILDERS[name](dataset=dataset, data_dir=os.fspath(root), file_format="array_record"))
