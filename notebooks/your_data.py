# %% [markdown]
# # Your data
#
# From a table to a search: here the data are pictures of shapes and the words that people wrote about them. Some people
# typed the wrong class. Replace the first cells by your own data; the rest stays.

# %%
try:
    import pandas

    import mrl_jax
except ImportError as error:
    raise ImportError(f"{error.name} is missing; in a clone of the repository run: pip install -e . pandas") from error

# %% [markdown]
# ## Pictures and texts
#
# A folder with 400 pictures, and a text and a class for each. `class` is what people typed, `truth` is what the picture
# shows. They differ in about one of four rows.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from mrl_jax import Dataset, Index, Query, Searcher, audit, preset, train

rng = np.random.default_rng(0)
colours = {"red": "#d62728", "blue": "#1f77b4", "green": "#2ca02c", "orange": "#ff7f0e"}
corners = {"triangle": 3, "square": 4, "hexagon": 6, "circle": 60}
words = {
    "triangle": ["triangle", "shape with three corners", "wedge"],
    "square": ["square", "shape with four corners", "tile"],
    "hexagon": ["hexagon", "shape with six corners", "honeycomb cell"],
    "circle": ["circle", "round spot", "disc"],
}
folder = Path("pictures")
folder.mkdir(exist_ok=True)
rows = []
for number in range(400):
    shape, colour = rng.choice(list(corners)), rng.choice(list(colours))
    size, (x, y), turn = rng.uniform(36, 60), rng.uniform(56, 72, 2), rng.uniform(0, 360)
    picture = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(picture).regular_polygon((x, y, size), corners[shape], turn, fill=colours[colour])
    picture.resize((32, 32), Image.Resampling.LANCZOS).save(folder / f"{number}.png")
    text = f"{rng.choice(['one', 'some', 'the'])} {colour} {rng.choice(words[shape])}"
    typed = rng.choice([x for x in corners if x != shape]) if rng.random() < 0.2 else shape
    rows.append({"id": str(number), "text": text, "class": typed, "truth": shape})
table = pd.DataFrame(rows)
table.head()

# %% [markdown]
# ## Features
#
# Every modality needs numbers. For pictures these are often the outputs of a pretrained network, for texts too. Here
# plain ones are enough: how far the points of a shape are from its middle, and which words occur.

# %%
from sklearn.feature_extraction.text import CountVectorizer


def look(path):
    ink = 1 - np.asarray(Image.open(path).convert("L"), float) / 255
    y, x = np.nonzero(ink > 0.05)
    away = np.hypot(y - y.mean(), x - x.mean())
    return np.quantile(away / away.mean(), np.linspace(0, 1, 40))


counts = CountVectorizer(ngram_range=(1, 2)).fit(table["text"])
frame = table[["id", "class"]].copy()
frame["picture"] = [look(folder / f"{name}.png").tolist() for name in table["id"]]
frame["text"] = counts.transform(table["text"]).toarray().astype(float).tolist()
data = Dataset.from_frame(frame, {"picture": "picture", "text": "text"}, label="class", split="60/15/25", name="shapes")
data

# %% [markdown]
# ## Which labels are wrong?

# %%
found = audit(data)
found

# %% [markdown]
# We know the truth here, and can look: how many of the suspects are wrong indeed?

# %%
suspects = pd.DataFrame(found.suspects(40)).drop_duplicates("id").merge(table[["id", "truth"]], on="id")
print(f"{(suspects['given'] != suspects['truth']).sum()} of {len(suspects)} suspects have a wrong label")

# %% [markdown]
# ## Train
#
# `consensus` is made for such labels. The validation and the test split have wrong labels, too, so the scores are lower
# than they should be.

# %%
config = preset(
    "custom", method="consensus", hidden_dims=(64,), embed_dim=32, learning_rate=2e-3, epochs=20, batch_size=40
)
result = train(config, "runs/shapes", data=data, resume="auto")
result

# %%
result.plot()

# %% [markdown]
# ## Search
#
# Texts of the test split are queries. Each line has the picture that belongs to the text, and those that the model
# finds for it. A frame is red where the *typed* classes differ.

# %%
searcher = Searcher("runs/shapes", data=data)
searcher.show(*(Query("row", f"text:test:{i}") for i in (0, 1, 2)), top=8, pictures=folder)

# %% [markdown]
# New texts go the same way as those of the table: features, model, nearest rows.

# %%
index = Index.build("runs/shapes", modality="picture", data=data)
texts = ["one green honeycomb cell", "some orange wedge"]
z = result.run.represent({"text": counts.transform(texts).toarray().astype(float)})["text"]
for text, rows in zip(texts, index.search(z, 5).ids):
    print(text, "->", [table["truth"][int(row)] for row in rows])

# %% [markdown]
# [Your own data](../docs/your_data.md) lists all that a data set can be made of: arrays, files, data frames, tensors.
