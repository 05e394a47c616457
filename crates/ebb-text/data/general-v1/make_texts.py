"""Writes texts.jsonl of the general ability set, version 1.

    apt-get download r-cran-janeaustenr && dpkg -x r-cran-janeaustenr_*.deb x
    python make_texts.py x/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb

The texts are those of `written.md`, and two passages of each of six novels of Jane Austen from the
R package janeaustenr 1.0.0. A passage is a paragraph of 110 to 170 words without dialogue, chosen
by a hash. The file that is written is the set: it is frozen by a test.
"""

import hashlib
import json
import pathlib
import sys
import zlib

HERE = pathlib.Path(__file__).parent


def novels(path):
    """The lines of each novel: strings of serialised R character vectors."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        stream = zlib.decompressobj()
        chunk = stream.decompress(data[at + 4 :])
        at = len(data) - len(stream.unused_data)
        lines, i = [], chunk.index(b"\x00\x04\x00\x09")
        while i + 8 <= len(chunk) and chunk[i] == 0 and chunk[i + 2 : i + 4] == b"\x00\x09":
            length = int.from_bytes(chunk[i + 4 : i + 8], "big")
            lines.append(chunk[i + 8 : i + 8 + length].decode())
            i += 8 + length
        yield lines


def paragraphs(lines):
    paragraph = []
    for line in lines + [""]:
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            yield " ".join(" ".join(paragraph).split())
            paragraph = []


rows = []
for part in (HERE / "written.md").read_text().split("# ")[1:]:
    name, text = part.split("\n", 1)
    rows.append({"name": name.strip(), "source": "written", "text": text.strip()})
for lines in novels(pathlib.Path(sys.argv[1])):
    title = next(line for line in lines if line.strip() and line != "UTF-8").strip().title()
    fit = [p for p in paragraphs(lines) if 110 <= len(p.split()) <= 170 and '"' not in p and "_" not in p]
    fit.sort(key=lambda p: hashlib.sha256(f"general-v1|{p}".encode()).digest())
    for i, text in enumerate(fit[:2]):
        rows.append({"name": f"{title} {i + 1}", "source": "austen", "text": text})
for row in rows:
    assert len(row["text"].split()) >= 100, row["name"]
path = HERE / "texts.jsonl"
path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
print(len(rows), sum(len(row["text"].split()) for row in rows), path.stat().st_size)
