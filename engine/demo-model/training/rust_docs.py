"""The doc comments of a Rust file: which item each belongs to, and what of it is an answer."""

import re

from .markdown import sections

ITEM = re.compile(
    r"^(?:pub(?:\([^)]*\))?\s+)?(?:default\s+)?(?:const\s+)?(?:async\s+)?(?:unsafe\s+)?(?:auto\s+)?(?:extern\s+\"[^\"]*\"\s+)?"
    r"(fn|struct|enum|trait|union|type|const|static|mod|macro_rules!|macro)\s+(\w+)")
PARENT = re.compile(r"^(?:#\[.*\]\s*)?(?:pub(?:\([^)]*\))?\s+)?(?:const\s+)?(?:unsafe\s+)?(?:auto\s+)?"
                    r"(impl|trait|enum|struct|mod)\b(.*)$")


def parent_name(kind, rest):
    if kind == "impl":
        rest = re.sub(r"^\s*(<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>)?\s*(const\s+)?", "", rest)
        m = re.search(r"\bfor\s+(.*)$", rest)
        rest = m.group(1) if m else rest
        m = re.match(r"[&\s]*(?:mut\s+|dyn\s+)?(?:\w+::)*(\w+|\[T\]|\[T; N\]|\*const T|\*mut T)", rest)
        name = m.group(1) if m else None
        return {"[T]": "slice", "[T; N]": "array", "*const T": "pointer", "*mut T": "pointer"}.get(name, name)
    m = re.match(r"\s+(\w+)", rest)
    return m.group(1) if m else None


def rust_docs(path, text):
    """Yields (kind, name, markdown): the module's own page and every documented item of one file."""
    lines = text.split("\n")
    stem = path.stem if path.stem not in ("mod", "lib") else path.parent.name
    if stem == "src":
        stem = path.parent.parent.name
    top = [re.sub(r"^//! ?", "", l) for l in lines if l.startswith("//!")]
    if top:
        yield "module", stem, "\n".join(top)
    stack, i = [], 0  # (indent, name)
    macro_self = {"uint_macros": "uint", "int_macros": "int"}.get(path.stem)
    while i < len(lines):
        line = lines[i]
        s = line.strip()
        indent = len(line) - len(line.lstrip())
        if s and not s.startswith("//"):
            while stack and stack[-1][0] >= indent:
                stack.pop()
            m = PARENT.match(s)
            if m:
                stack.append((indent, parent_name(*m.groups()), m.group(1)))
        if s.startswith("///"):
            doc, keyword = [], None
            while i < len(lines):
                s = lines[i].strip()
                if s.startswith("///"):
                    doc.append(re.sub(r"^/// ?", "", s))
                elif s.startswith("#["):
                    k = re.match(r'#\[(?:doc\(keyword = |rustc_doc_primitive = )"(\w+)"', s)
                    keyword = k.group(1) if k else keyword
                    depth = s.count("[") - s.count("]")
                    while depth > 0 and i + 1 < len(lines):
                        i += 1
                        depth += lines[i].count("[") - lines[i].count("]")
                elif s.startswith("//") or not s:
                    pass
                else:
                    break
                i += 1
            if i >= len(lines):
                break
            s = lines[i].strip()
            indent = len(lines[i]) - len(lines[i].lstrip())
            while stack and stack[-1][0] >= indent:
                stack.pop()
            m, up = ITEM.match(s), (stack[-1] if stack else None)
            if keyword:
                yield "keyword", keyword, "\n".join(doc)
            elif m and not (s.startswith("pub ") or m.group(1).startswith("macro") or (up and up[2] == "trait")):
                pass  # private
            elif m:
                kind = m.group(1)
                name = m.group(2) + ("!" if kind.startswith("macro") else "")
                kind = kind.rstrip("!").replace("_rules", "")
                if kind == "fn":
                    owner = up[1] if up and up[2] != "mod" else None
                    owner = owner if owner != "SelfT" else macro_self
                    if owner is None and macro_self:
                        owner = macro_self
                    yield ("method" if owner else "fn"), (f"{owner}::{name}" if owner else f"{stem}::{name}"), "\n".join(doc)
                elif kind in ("const", "static", "type") and up and up[1] and up[2] != "mod":
                    yield kind, f"{up[1]}::{name}", "\n".join(doc)
                else:
                    yield kind, name, "\n".join(doc)
            elif up and up[2] == "enum" and re.match(r"^\w+\s*[,({=]|^\w+$", s):
                yield "variant", f"{up[1]}::{re.match(r'[A-Za-z0-9_]+', s).group(0)}", "\n".join(doc)
            continue
        i += 1


MINOR = re.compile(r"^(examples?|platform-specific behaviou?r|implementation notes?|current implementation|see also:?)$", re.I)


def doc_answer(markdown):
    """The prose of one item's doc comment as a list of text blocks."""
    out = []
    for _, head, texts in sections(markdown):
        texts = list(texts)
        if head and MINOR.match(head):
            texts = [t for t in texts if not re.match(r"^(Basic usage|See also)", t)]
            if not head.lower().startswith("example"):
                texts = [t for t in texts if not t.startswith("```")]
        elif head == "Safety" and texts:
            texts[0] = "Safety: " + texts[0]
        out += texts
    while out and out[-1].endswith(":"):
        out.pop()
    return out
