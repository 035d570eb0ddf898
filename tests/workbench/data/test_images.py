"""Clean images from folders, zips and npz files, whole and broken."""

from __future__ import annotations

import copy
import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.workbench.data.images import write_image, write_images

from exda_primitives.errors import ImageError
from exda_primitives.workbench.data import open_images, read_image


def zipped(folder: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    return file


def bytes_of_a_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def in_zip(tmp_path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return tmp_path / "some.zip"


class TestFoldersAndZips:
    def test_a_zip_holds_what_its_folder_does(self, tmp_path: Path) -> None:
        write_images(tmp_path / "some", ["b.png", "a/c.PNG", "a/10.bmp", "a/9.tif"])
        (tmp_path / "some" / "a" / "notes.txt").write_text("of no interest")
        write_image(tmp_path / "some" / "._b.png")
        folder = open_images(tmp_path / "some")
        archive = open_images(zipped(tmp_path / "some", tmp_path / "some.zip"))
        assert folder.names == archive.names == ("a/10.bmp", "a/9.tif", "a/c.PNG", "b.png")
        assert folder.left_out == archive.left_out == ("._b.png", "a/notes.txt")
        assert len(folder) == len(archive) == 4
        for one, other in zip(folder, archive, strict=True):
            assert torch.equal(one, other)
        assert "4 images, 2 other files left out" in repr(folder)

    def test_a_member_without_a_name_is_left_out(self, tmp_path: Path) -> None:
        path = in_zip(tmp_path, **{"a.png": bytes_of_a_png(), "b": b""})
        whole = bytearray(path.read_bytes())
        # Empties the name of "b": it begins 46 bytes into its central directory entry, and ends at the first zero.
        whole[whole.rindex(b"PK\x01\x02") + 46] = 0
        path.write_bytes(whole)
        images = open_images(path)
        assert (images.names, images.left_out) == (("a.png",), ("",))

    def test_links_are_followed(self, tmp_path: Path) -> None:
        write_images(tmp_path, ["elsewhere/a.png", "elsewhere/below/b.png", "some/c.png"])
        some = tmp_path / "some"
        (some / "linked").symlink_to(tmp_path / "elsewhere")
        (some / "again").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "back").symlink_to(some)
        (some / "gone.png").symlink_to(tmp_path / "nowhere.png")
        images = open_images(some)
        below = ("a.png", "below/b.png")
        linked = [f"{folder}/{name}" for folder in ("again", "linked") for name in below]
        assert images.names == (*linked[:2], "c.png", "gone.png", *linked[2:])
        with pytest.raises(ImageError, match=r"gone\.png cannot be read"):
            images[3]

    def test_a_folder_that_cannot_be_read_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_images(tmp_path, ["a.png", "locked/b.png"])
        original = Path.iterdir

        def refused(self: Path) -> object:
            # Raised here, since permissions do not stop a superuser who runs the tests.
            if self.name == "locked":
                raise PermissionError(13, "Permission denied")
            return original(self)

        monkeypatch.setattr(Path, "iterdir", refused)
        with pytest.raises(ImageError, match=r"locked cannot be looked into \(Permission denied\)"):
            open_images(tmp_path)

    def test_values_are_the_bytes_divided_by_255(self, tmp_path: Path) -> None:
        path = write_image(tmp_path / "one.png", height=3, width=7)
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        image = open_images(tmp_path)[0]
        assert image.dtype is torch.float32
        assert torch.equal(image, pixels / 255)
        assert torch.equal(open_images(tmp_path)[-1], image)
        assert len(open_images(tmp_path)[:5]) == 1

    def test_indices_end(self, tmp_path: Path) -> None:
        write_images(tmp_path, ["a.png", "b.png"])
        with pytest.raises(IndexError):
            open_images(tmp_path)[2]

    def test_images_are_opened_when_asked_for(self, tmp_path: Path) -> None:
        write_images(tmp_path, ["a.png", "c.png"])
        (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        images = open_images(tmp_path)
        assert images[0].shape == images[2].shape == (3, 6, 5)
        with pytest.raises(ImageError, match=r"b\.png is no image"):
            images[1]
        (tmp_path / "a.png").unlink()
        with pytest.raises(ImageError, match=r"a\.png cannot be read"):
            images[0]

    def test_copies_and_forks_have_handles_of_their_own(self, tmp_path: Path) -> None:
        write_images(tmp_path / "some", ["a.png", "b.png"])
        images = open_images(zipped(tmp_path / "some", tmp_path / "some.zip"))
        first = images[0]
        for other in (pickle.loads(pickle.dumps(images)), copy.deepcopy(images)):
            assert torch.equal(other[0], first)
            assert other._own_archive() is not images._own_archive()
        handle = images._own_archive()
        images._process = os.getpid() + 1
        assert images._own_archive() is not handle

    @pytest.mark.parametrize("there", [[], ["notes.txt"]])
    def test_no_image(self, tmp_path: Path, there: list[str]) -> None:
        for name in there:
            (tmp_path / name).write_text("")
        with pytest.raises(ImageError, match="no image in .*only notes" if there else "no image in .*nothing"):
            open_images(tmp_path)

    def test_no_path(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="does not exist"):
            open_images(tmp_path / "absent")
        (tmp_path / "some.tar").write_bytes(b"")
        with pytest.raises(ImageError, match=r"neither a folder nor a \.zip or \.npz"):
            open_images(tmp_path / "some.tar")


class TestBrokenZips:
    def test_not_a_zip(self, tmp_path: Path) -> None:
        (tmp_path / "some.zip").write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(ImageError, match=r"some\.zip is no zip"):
            open_images(tmp_path / "some.zip")

    def test_a_broken_member_is_named_and_the_others_are_read(self, tmp_path: Path) -> None:
        whole = bytes_of_a_png()
        path = in_zip(tmp_path, **{"a.png": whole, "b.png": whole[:40], "c.png": b"", "d.png": whole})
        images = open_images(path)
        assert images[0].shape == images[3].shape
        for index, name in ((1, "b.png"), (2, "c.png")):
            with pytest.raises(ImageError, match=rf"some\.zip:{name} is no image"):
                images[index]

    def test_a_wrong_checksum(self, tmp_path: Path) -> None:
        whole = bytes_of_a_png()
        path = in_zip(tmp_path, **{"a.png": whole})
        data = bytearray(path.read_bytes())
        at = data.index(whole) + len(whole) - 1
        data[at] ^= 255
        path.write_bytes(data)
        with pytest.raises(ImageError, match=r"some\.zip:a\.png"):
            open_images(path)[0]

    def test_an_encrypted_member(self, tmp_path: Path) -> None:
        path = in_zip(tmp_path, **{"a.png": bytes_of_a_png()})
        data = bytearray(path.read_bytes())
        # Sets the flag "encrypted" in the member's own header and in the central directory.
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(data)
        with pytest.raises(ImageError, match=r"a\.png cannot be read.*encrypted"):
            open_images(path)[0]

    def test_a_member_that_claims_to_be_huge(self, tmp_path: Path) -> None:
        path = in_zip(tmp_path, **{"a.png": bytes_of_a_png()})
        data = bytearray(path.read_bytes())
        # The unpacked size is 24 bytes into the entry of the central directory.
        size = data.index(b"PK\x01\x02") + 24
        data[size : size + 4] = struct.pack("<I", 2**31)
        path.write_bytes(data)
        with pytest.raises(ImageError, match=r"a\.png has 2147483648 bytes unpacked, at most"):
            open_images(path)[0]

    @pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/a.png", "..\\a.png", "C:\\a.png"])
    def test_names_that_lead_elsewhere_are_refused(self, tmp_path: Path, name: str) -> None:
        path = in_zip(tmp_path, **{name: bytes_of_a_png()})
        with pytest.raises(ImageError, match="names files outside of itself"):
            open_images(path)
        assert list(tmp_path.iterdir()) == [path]

    def test_two_members_of_one_name(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
            archive.writestr("a.png", bytes_of_a_png())
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("a.png", bytes_of_a_png())
        with pytest.raises(ImageError, match=r"several files under one name: a\.png"):
            open_images(tmp_path / "some.zip")


class TestArrays:
    def test_stacks_and_single_images(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        grey = generator.integers(0, 256, (11, 5, 7), dtype=np.uint8)
        colour = generator.integers(0, 256, (2, 6, 4, 3), dtype=np.uint8)
        single = generator.integers(0, 256, (8, 9, 3), dtype=np.uint8)
        np.savez(tmp_path / "a.npz", grey=grey, colour=colour, one=single, labels=np.arange(11), source=np.array("me"))
        images = open_images(tmp_path / "a.npz")
        assert images.names[:2] == ("grey/00", "grey/01")
        assert images.names[11:] == ("colour/0", "colour/1", "one")
        assert images.left_out == ("labels", "source")
        assert torch.equal(images[10], torch.from_numpy(grey[10]).expand(3, -1, -1) / 255)
        assert torch.equal(images[12], torch.from_numpy(colour[1]).permute(2, 0, 1) / 255)
        assert torch.equal(images[13], torch.from_numpy(single).permute(2, 0, 1) / 255)
        again = pickle.loads(pickle.dumps(images))
        assert again._arrays == {}
        assert torch.equal(again[12], images[12])

    def test_grey(self, tmp_path: Path) -> None:
        grey = np.arange(24, dtype=np.uint8).reshape(1, 4, 6, 1)
        np.savez_compressed(tmp_path / "a.npz", grey)
        image = open_images(tmp_path / "a.npz", channels=1)[0]
        assert torch.equal(image, torch.arange(24).reshape(1, 4, 6) / 255)

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((2, 4, 4, 3), np.float32),
            np.zeros((2, 4, 4), np.int64),
            np.zeros((4, 4), np.uint8),
            np.zeros((2, 4, 4, 2), np.uint8),
            np.zeros((2, 2, 4, 4, 3), np.uint8),
        ],
    )
    def test_what_is_no_image(self, tmp_path: Path, array: np.ndarray) -> None:
        np.savez(tmp_path / "a.npz", some=array)
        with pytest.raises(ImageError, match=r"some in .*a\.npz has shape .*expected uint8 of shape \(N, H, W\)"):
            open_images(tmp_path / "a.npz")

    def test_no_pixels(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", some=np.zeros((2, 0, 4, 3), np.uint8))
        with pytest.raises(ImageError, match="without pixels"):
            open_images(tmp_path / "a.npz")

    @pytest.mark.parametrize("shape", [(1,), (1, 4, 4)])
    def test_pickled_objects_are_not_loaded(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "exploded"),)

        objects = np.empty(shape, dtype=object)
        objects.flat[0] = Bomb()
        np.savez(tmp_path / "a.npz", some=objects, good=np.zeros((2, 4, 4), np.uint8))
        with pytest.raises(ImageError, match=r"some in .* of object"):
            open_images(tmp_path / "a.npz")
        assert not (tmp_path / "exploded").exists()

    def test_only_labels(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", labels=np.arange(3))
        with pytest.raises(ImageError, match=r"no image in .*only labels"):
            open_images(tmp_path / "a.npz")

    def test_members_that_are_no_arrays(self, tmp_path: Path) -> None:
        in_zip(tmp_path, **{"a.npy": b"nothing"}).rename(tmp_path / "a.npz")
        with pytest.raises(ImageError, match=r"a\.npy in .*a\.npz is no array"):
            open_images(tmp_path / "a.npz")

    def test_an_array_cut_short(self, tmp_path: Path) -> None:
        whole = io.BytesIO()
        np.save(whole, np.zeros((3, 4, 4), np.uint8))
        in_zip(tmp_path, **{"a.npy": whole.getvalue()[:-9]}).rename(tmp_path / "a.npz")
        with pytest.raises(ImageError, match=r"a in .*a\.npz cannot be read"):
            open_images(tmp_path / "a.npz")[0]


class TestKindsOfFiles:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_modes(self, tmp_path: Path, mode: str, channels: int) -> None:
        image = Image.open(write_image(tmp_path / "a.png", 9, 11)).convert(mode)
        image.save(tmp_path / "b.tif")
        decoded = read_image(tmp_path / "b.tif", channels)
        assert decoded.shape == (channels, 9, 11)
        expected = np.array(image.convert("RGB" if channels == 3 else "L")).reshape(9, 11, channels)
        assert torch.equal(decoded, torch.from_numpy(expected).permute(2, 0, 1) / 255)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_grey_of_16_bits(self, tmp_path: Path, suffix: str, channels: int) -> None:
        values = np.array([[0, 1, 65535], [256, 40000, 255]], np.uint16)
        Image.fromarray(values).save(tmp_path / f"a{suffix}")
        decoded = read_image(tmp_path / f"a{suffix}", channels)
        expected = torch.from_numpy(values.astype(np.float32) / 65535).expand(channels, 2, 3)
        assert torch.equal(decoded, expected)

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_numbers_without_a_range(self, tmp_path: Path, dtype: type) -> None:
        Image.fromarray(np.full((4, 4), 70000, dtype)).save(tmp_path / "a.tif")
        with pytest.raises(ImageError, match=r"a\.tif holds .* 8 or 16 bits are read"):
            read_image(tmp_path / "a.tif")

    def test_photographs_are_upright(self, tmp_path: Path) -> None:
        image = Image.open(write_image(tmp_path / "a.png", 8, 16))
        exif = Image.Exif()
        # Orientation 6: to be turned clockwise by 90 degrees.
        exif[0x0112] = 6
        image.save(tmp_path / "b.png", exif=exif)
        assert torch.equal(read_image(tmp_path / "b.png"), torch.rot90(read_image(tmp_path / "a.png"), -1, (1, 2)))

    def test_a_header_that_claims_too_much(self, tmp_path: Path) -> None:
        size = 40000
        header = b"IHDR" + struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        (tmp_path / "a.png").write_bytes(bytes_of_a_png()[:8] + chunk + bytes_of_a_png()[33:])
        with pytest.raises(ImageError, match=r"a\.png"):
            read_image(tmp_path / "a.png")

    # Pillow warns of some of the damage before it gives up.
    @pytest.mark.filterwarnings("ignore::UserWarning")
    @given(data=st.data())
    @settings(max_examples=150, deadline=None)
    def test_a_damaged_file_is_an_image_error_or_an_image(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.mktemp("damaged", numbered=True)
        suffix = data.draw(st.sampled_from([".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"]))
        path = write_image(folder / f"a{suffix}")
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            decoded = read_image(path)
        except ImageError:
            return
        assert decoded.shape[0] == 3


@pytest.mark.parametrize("name", ["a.png", "a.zip", "a.npz"])
def test_a_named_pipe_is_refused_without_waiting(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    opened = read_image if name.endswith("png") else open_images
    with pytest.raises(ImageError, match=rf"{name} is no regular file"):
        opened(tmp_path / name)


def test_hidden_folders_hold_no_images(tmp_path: Path) -> None:
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", "sub/._b.png"):
        write_image(tmp_path / name)
    images = open_images(tmp_path)
    assert images.names == ("a.png",)
    assert images.left_out == (".ipynb_checkpoints/a-checkpoint.png", "sub/._b.png")
