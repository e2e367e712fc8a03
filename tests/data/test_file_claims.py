"""What a file claims is checked before it is unpacked: shapes of all arrays against each other, and their size."""

import os

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image
from toy import save_npz, toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.data.__main__ import main as data_main
from mrl_jax.data.emoji.features import picture_array
from mrl_jax.data.formats import hdf5, header_of, matlab, open_arrays
from mrl_jax.search.picture_grid import open_picture

BIG = np.zeros((25_000, 1000), np.float32)  # 100 MB, which take .1 MB in a file


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, arrays, do_compression=True)
    else:
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file.create_dataset(key, data=value, compression="gzip", chunks=True)
    return path


@pytest.fixture(scope="module", params=[".npz", ".mat", ".h5"])
def bombs(request, tmp_path_factory):
    """A small file with one array that is far larger than the others."""
    folder = tmp_path_factory.mktemp("bombs")
    return write(folder / f"bomb{request.param}", {**toy_arrays(), "train_touch": BIG})


@pytest.fixture
def unread(monkeypatch):
    """Gives the bytes of the largest array that was unpacked."""
    sizes = []

    def spy(module, name):
        read = getattr(module, name)

        def counted(*args, **kwargs):
            array = read(*args, **kwargs)
            sizes.append(getattr(array, "nbytes", 0))
            return array

        monkeypatch.setattr(module, name, counted)

    spy(np.lib.format, "read_array")
    spy(hdf5, "_as_float32")
    spy(hdf5, "_stored")
    spy(matlab, "_numbers")
    return lambda: max(sizes, default=0)


def test_shapes_that_do_not_fit_are_refused_before_anything_large_is_unpacked(bombs, unread):
    assert bombs.stat().st_size < 1_000_000
    with pytest.raises(InputError, match=r"train_touch is float32 \[25000, 1000\]"):
        load_dataset(bombs)
    assert unread() < 10_000


def test_an_array_beyond_the_limit_is_refused_and_the_limit_can_be_raised(bombs, unread, monkeypatch):
    monkeypatch.setenv("MRL_JAX_MAX_ARRAY_GB", "0.05")
    with open_arrays(bombs) as arrays:
        assert header_of(arrays, "train_touch") == (BIG.shape, BIG.dtype)
        with pytest.raises(InputError, match=r"would take 100000000 bytes, more than the limit of 50000000; .* to 1$"):
            arrays["train_touch"]
        assert unread() == 0
        monkeypatch.setenv("MRL_JAX_MAX_ARRAY_GB", "1")
        assert arrays["train_touch"].shape == BIG.shape


def test_the_limit_is_by_default_the_memory_of_the_machine(bombs, unread, monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10_000}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    with open_arrays(bombs) as arrays, pytest.raises(InputError, match="more than the limit of 40960000"):
        arrays["train_touch"]
    assert unread() == 0


def test_a_flag_of_commands_sets_the_limit(bombs, monkeypatch, capsys):
    monkeypatch.setenv("MRL_JAX_MAX_ARRAY_GB", "5")
    describe = ["info", "custom", "--data-path", str(bombs), "--modalities", "sound", "touch", "--max-array-gb"]
    arrays = {**toy_arrays(), "train_sound": BIG, "train_touch": BIG, "train_labels": np.arange(len(BIG)) % 3}
    write(
        bombs.with_stem("wide"), arrays | {f"{s}_{m}": BIG[:3] for s in ("valid", "test") for m in ("sound", "touch")}
    )
    describe[3] = str(bombs.with_stem("wide"))
    assert data_main([*describe, "0.05"]) == 2
    assert (
        "more than the limit of 50000000; store fewer rows or columns, or --max-array-gb 1" in capsys.readouterr().err
    )
    assert os.environ["MRL_JAX_MAX_ARRAY_GB"] == "5"
    for value in ("0", "nan", "much"):
        assert data_main([*describe, value]) == 2
        assert f"--max-array-gb {value}: give a number" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(value, tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_MAX_ARRAY_GB", value)
    with pytest.raises(InputError, match=f"MRL_JAX_MAX_ARRAY_GB='{value}'"):
        load_dataset(save_npz(tmp_path / "toy.npz"))


def test_arrays_that_are_not_used_are_not_unpacked(tmp_path, unread, monkeypatch):
    path = write(tmp_path / "more.npz", {**toy_arrays(), "statistics": BIG})
    monkeypatch.setattr("mrl_jax.data.formats.open._SMALL", 10_000_000)  # of the file, and of what it claims
    assert load_dataset(path).modalities == ("sound", "touch")
    assert unread() < 10_000


@pytest.mark.parametrize("read", [open_picture, picture_array])
def test_pictures_in_formats_that_start_programs_or_are_not_named_are_refused(read, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.eps")
    for name, content in (("picture.eps", None), ("x.xbm", b"#define a_width 8\n#define a_height 1\n{0x01}")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read \(it is not a picture\)"):
            read(str(tmp_path / name))
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    assert np.asarray(read(str(tmp_path / "picture.png"))).shape[2] == 4


@pytest.mark.parametrize("read", [open_picture, picture_array])
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(read, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for side in (40, 400):  # Pillow warns of the first, and refuses the second
        Image.new("L", (side, side)).save(tmp_path / "big.png")
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        with pytest.raises(InputError, match=r"picture .*big.* cannot be read"):
            read(str(tmp_path / "big.png"))
        monkeypatch.undo()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
