"""Manifests and tar files that tests write."""

import io
import json
import tarfile


def write(path, *entries):
    """Writes a manifest of dicts, and of lines as they are; returns its path."""
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tarred(path, files: dict[str, bytes], **options):
    """Writes a tar file of these members."""
    with tarfile.open(path, "w", **options) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
