"""Fingerprints of files and folders."""

from pathlib import Path

from exda_primitives.workbench.shared.files import fingerprint


def test_a_fingerprint_depends_on_names_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "below" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"abc")
    # SHA-256 of "abc", an example of FIPS 180-2.
    assert fingerprint(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    folder = tmp_path / "folder"
    before = fingerprint(folder)
    assert before == fingerprint(folder)
    file.write_bytes(b"abd")
    changed = fingerprint(folder)
    file.write_bytes(b"abc")
    assert fingerprint(folder) == before
    file.rename(file.with_name("other"))
    assert len({before, changed, fingerprint(folder)}) == 3
