"""The text of a PDF by typst, from its bytes: what is drawn, by each font's own table of letters."""

import re
import zlib

ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
OBJECT = re.compile(rb"^(\d+) 0 obj\n(.*?)\nendobj", re.DOTALL | re.MULTILINE)
STRING = rb"(?:\\.|[^\\()])*"
for _ in range(4):  # brackets in brackets need no escape where they are in pairs
    STRING = rb"(?:\\.|[^\\()]|\(" + STRING + rb"\))*"
DRAWN = re.compile(rb"/(\w+) [\d.]+ Tf|\((" + STRING + rb")\)|<([0-9A-Fa-f]+)>|(BT)", re.DOTALL)


def pages(pdf: bytes) -> list[str]:
    """Of each page, the letters in the order they are drawn, without spaces: at ends of lines a page has none."""
    objects = {int(number): body for number, body in OBJECT.findall(pdf)}
    found = []
    for body in objects.values():
        if re.search(rb"/Type */Page\b", body):
            fonts = {
                name: _letters(objects, int(number))
                for resources in (re.search(rb"/Resources (\d+) 0 R", body),)
                for name, number in re.findall(rb"/(f\d+) (\d+) 0 R", objects[int(resources[1])] if resources else body)
            }
            contents = re.search(rb"/Contents (\d+) 0 R", body)
            found.append(spaceless(_drawn(_stream(objects[int(contents[1])]), fonts)))
    return found


def spaceless(text: str) -> str:
    """As the text of a page is given."""
    return re.sub(r"[\s\u200b]+", "", text)


def _drawn(stream: bytes, fonts: dict[bytes, dict[int, str]]) -> str:
    text, letters = [], {}
    for font, plain, coded, begins in DRAWN.findall(
        re.sub(rb"/ActualText<[0-9A-F]*>", b"", stream)
    ):  # said beside what is drawn
        if begins:
            text.append(" ")
        elif font:
            letters = fonts[font]
        else:
            codes = bytes.fromhex(coded.decode()) if coded else _unescaped(plain)
            text += [letters.get(int.from_bytes(codes[i : i + 2]), "") for i in range(0, len(codes), 2)]
    return "".join(text)


def _unescaped(text: bytes) -> bytes:
    def meant(found: re.Match[bytes]) -> bytes:
        return bytes([int(found[1], 8)]) if found[1] else ESCAPES.get(found[2], found[2])

    return re.sub(rb"\\(?:([0-7]{1,3})|(.))", meant, text, flags=re.DOTALL)


def _letters(objects: dict[int, bytes], font: int) -> dict[int, str]:
    table = _stream(objects[int(re.search(rb"/ToUnicode (\d+) 0 R", objects[font])[1])]).decode("latin-1")
    blocks = re.findall(r"beginbfchar(.*?)endbfchar", table, re.DOTALL)
    pairs = (pair for block in blocks for pair in re.findall(r"<(\w+)> <(\w+)>", block))
    return {int(code, 16): bytes.fromhex(letters).decode("utf-16-be") for code, letters in pairs}


def _stream(body: bytes) -> bytes:
    head, _, rest = body.partition(b"stream\n")
    content = rest[: int(re.search(rb"/Length (\d+)", head)[1])]
    return zlib.decompress(content) if b"FlateDecode" in head else content
