"""A table, pictures and small models for tests of `featurize`, and a check of its error messages."""

import contextlib
import csv
import functools
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mrl_jax import InputError
from mrl_jax.data.featurize import featurize

COLORS = ("red", "green", "blue")
SPLITS = ("train", "valid", "test")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "circle", "square", "on", *COLORS]


def draw(path, j, mode="RGB", size=(40, 30)):
    picture = Image.new("RGB", size, (20 * j % 256, 60, 90))
    ImageDraw.Draw(picture).ellipse((j % 9, 3, 20 + j % 7, 24), fill=COLORS[j % 3])
    picture.convert(mode).save(path)


def table(n=18):
    """Rows of a table: ids p0, p1, …, three labels, all three splits."""
    return [
        {
            "id": f"p{j}",
            "text": " ".join(["a", COLORS[j % 3], "circle"] + ["on the square"] * (j % 4)),
            "label": COLORS[j % 3],
            "split": SPLITS[0 if j < n - 6 else 1 if j < n - 3 else 2],
        }
        for j in range(n)
    ]


def write_csv(path, rows, encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


class Job:
    """A folder with pictures and a table, and a call of `featurize` on them."""

    def __init__(self, root, image_model, text_model):
        self.root, self.images, self.texts, self.output = root, root / "images", root / "texts.csv", root / "out.npz"
        self.options = {"image_model": image_model, "text_model": text_model, "batch_size": 5, "device": "cpu"}
        self.images.mkdir()
        self.rows = table()
        for j in range(len(self.rows)):
            draw(self.images / f"p{j}.png", j)
        self.write()

    def write(self):
        write_csv(self.texts, self.rows)

    def __call__(self, output=None, **options):
        return featurize(self.images, self.texts, output or self.output, **{**self.options, **options})

    def work(self):
        return self.root / "out.npz.partial"


def job_without_models(root):
    """A job whose models have no weights, for refusals before a model is loaded."""
    shell = root / "shell"
    shell.mkdir()
    (shell / "config.json").write_text("{}")
    return Job(root, shell, shell)


def read(path):
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def refused(call, *parts):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def cuda_is_there():
    import torch

    return torch.cuda.is_available()


class Models:
    """Small random models of each kind, saved to folders as real ones are."""

    def __init__(self, root):
        import torch
        import transformers as hf

        torch.manual_seed(0)
        self.root = root
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        vision = {**small, "image_size": 32, "patch_size": 8}
        text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 16, "pad_token_id": 0}
        square = {"height": 32, "width": 32}
        tokenizer = hf.BertTokenizer(vocab={word: k for k, word in enumerate(WORDS)})
        vit = hf.ViTImageProcessor(size=square)
        save = self.save
        save("vit", hf.ViTModel(hf.ViTConfig(**vision)), vit)
        save("classifier", hf.ViTForImageClassification(hf.ViTConfig(**vision)), vit)
        save("dino", hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**vision, num_register_tokens=2)), vit)
        save("mae", hf.ViTMAEModel(hf.ViTMAEConfig(**vision)), vit)
        conv = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
        shortest = hf.ConvNextImageProcessor(size={"shortest_edge": 32}, do_resize=False)
        save("resnet", hf.ResNetModel(hf.ResNetConfig(**conv)), shortest)
        bert = hf.BertConfig(**text)
        save("bert", hf.BertModel(bert), tokenizer)
        save("roberta", hf.RobertaModel(hf.RobertaConfig(**{**text, "pad_token_id": 1})), tokenizer)
        towers = {"projection_dim": 12, "vision_config": vision}
        tokens = {**text, "bos_token_id": 2, "eos_token_id": 3}
        clip = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square)
        save("clip", hf.CLIPModel(hf.CLIPConfig(**towers, text_config=tokens)), clip, tokenizer)
        siglip = hf.SiglipConfig(vision_config=vision, text_config=tokens)
        save("siglip", hf.SiglipModel(siglip), vit, tokenizer)

    def save(self, name, *parts):
        for part in parts:
            part.save_pretrained(self.root / name)

    def __getitem__(self, name):
        return self.root / name


_saved = functools.cache(Models)


@contextlib.contextmanager
def small_models(root):
    """Models in this folder, made once per process; the hub is switched off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads of small models wait for each other on a busy machine
        made = _saved(root)
    yield made
    torch.set_num_threads(threads)
