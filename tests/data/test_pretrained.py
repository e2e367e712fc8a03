"""Hugging Face models as encoders: features equal those of a direct call, and unsuitable models are refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_files import SPLITS, Job, cuda_is_there, draw, read, refused, small_models

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with small_models(tmp_path_factory.getbasetemp() / "models") as made:
        yield made


@pytest.fixture
def real(tmp_path, models):
    return Job(tmp_path, models["vit"], models["bert"])


def direct(models, job, image, text):
    """Features of one picture and one text at a time, by direct calls of the model."""
    import torch
    import transformers as hf

    def vision(path):
        picture = Image.open(path).convert("RGB")
        pixels = hf.AutoImageProcessor.from_pretrained(models[image])(picture, return_tensors="pt")["pixel_values"]
        model = hf.AutoModel.from_pretrained(models[image]).eval()
        if image in ("clip", "siglip"):
            return model.get_image_features(pixel_values=pixels).pooler_output[0]
        if image == "mae":
            model.config.mask_ratio = 0.0
        found = model(pixel_values=pixels)
        if image in ("mae", "classifier"):
            return found.last_hidden_state[0, 1:].mean(0)
        return found.pooler_output[0].flatten()

    def words(string):
        tokenizer = hf.AutoTokenizer.from_pretrained(models[text])
        model = hf.AutoModel.from_pretrained(models[text]).eval()
        pad = {"padding": "max_length"} if text == "siglip" else {}
        limit = 14 if text == "roberta" else 16
        tokens = tokenizer(string, truncation=True, max_length=limit, return_tensors="pt", **pad)
        if text in ("clip", "siglip"):
            return model.get_text_features(**tokens).pooler_output[0]
        return model(**tokens).last_hidden_state[0].mean(0)

    with torch.no_grad():
        return {
            row["id"]: (vision(job.images / f"{row['id']}.png").numpy(), words(row["text"]).numpy()) for row in job.rows
        }


@pytest.mark.parametrize(
    ("image", "text", "pooling"),
    [
        ("vit", "bert", ("pooler_output", "mean of last_hidden_state over at most 16 tokens")),
        ("resnet", "roberta", ("pooler_output", "mean of last_hidden_state over at most 14 tokens")),
        ("clip", "clip", ("get_image_features", "get_text_features, 16 tokens")),
        ("siglip", "siglip", ("get_image_features", "get_text_features, 16 tokens")),
        ("classifier", "bert", ("mean of last_hidden_state over patches", None)),
        ("mae", "bert", ("mean of last_hidden_state over patches", None)),
        ("dino", "bert", ("pooler_output", None)),
    ],
)
def test_features_equal_a_direct_call_of_the_model(models, tmp_path, image, text, pooling):
    job = Job(tmp_path, models[image], models[text])
    job.rows = job.rows[:9] + job.rows[12:14] + job.rows[15:17]
    job.rows[1]["text"] += " on the red square" * 6  # longer than the positions of the model
    job.write()
    draw(job.images / "p3.png", 3, size=(64, 50))  # ResNet does not resize pictures
    found, expected = read(job()), direct(models, job, image, text)
    for split in SPLITS:
        rows = [row for row in job.rows if row["split"] == split]
        assert found[f"{split}_ids"].tolist() == [row["id"] for row in rows]
        for j, modality in enumerate(("image", "text")):
            x = found[f"{split}_{modality}"]
            assert x.dtype == np.float32
            np.testing.assert_allclose(x, [expected[row["id"]][j] for row in rows], rtol=0, atol=1e-5)
            assert np.ptp(x, axis=0).max() > 1e-4
    source = json.loads(str(found["source"]))
    assert source["image"]["pooling"] == pooling[0]
    assert source["text"]["pooling"] == pooling[1] or pooling[1] is None


def test_a_model_of_the_hub_is_known_by_its_commit(real, models, request):
    cache = Path(os.environ["HF_HUB_CACHE"])  # tests have one of their own
    folder, commit = cache / "models--owner--tiny", "0123456789" * 4
    request.addfinalizer(lambda: shutil.rmtree(cache))
    shutil.copytree(models["clip"], folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    found = read(real(image_model="owner/tiny", text_model="owner/tiny"))
    source = json.loads(str(found["source"]))
    assert source["image"]["model"] == source["text"]["model"] == "owner/tiny"
    assert source["image"]["revision"] == commit
    local = read(real(real.root / "local.npz", image_model=models["clip"], text_model=models["clip"]))
    np.testing.assert_array_equal(found["train_image"], local["train_image"])
    np.testing.assert_array_equal(found["train_text"], local["train_text"])


def test_models_that_do_not_fit_are_refused_in_one_line(real, models):
    unknown = refused(lambda: real(image_model="no-such-owner/no-such-model"), "no-such-owner/no-such-model")
    assert "cannot be loaded" in unknown
    empty = real.root / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    refused(lambda: real(image_model=empty), "empty cannot be loaded", "Unrecognized model")
    refused(lambda: real(image_model=models["bert"]), "bert cannot be loaded")
    refused(lambda: real(text_model=models["vit"]), "vit cannot be loaded")
    assert not real.work().exists()  # no picture was encoded before the refusal
    if not cuda_is_there():
        refused(lambda: real(device="cuda"), "device cuda", "choose cpu")


def test_models_with_missing_weights_or_without_finite_features_are_refused(real, models):
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(models["bert"], real.root / "broken"))
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if "embeddings.word_embeddings" in key)
    save_file({**weights, name: weights[name] * np.nan}, folder / "model.safetensors", {"format": "pt"})
    refused(lambda: real(text_model=folder), "text features of id 'p0' are not finite")
    save_file({k: x for k, x in weights.items() if k != name}, folder / "model.safetensors", {"format": "pt"})
    refused(lambda: real(text_model=folder), "lacks 1 weights", "would be random")
    shutil.copy(models["vit"] / "preprocessor_config.json", models["bert"] / "preprocessor_config.json")
    try:
        refused(lambda: real(image_model=models["bert"]), "gives no image features", "a vision or two-tower model")
    finally:
        (models["bert"] / "preprocessor_config.json").unlink()
    assert not real.work().exists()
