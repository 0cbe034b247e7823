#!/usr/bin/env python3
"""Train TokenFlow's demo model: a small Qwen3 that has read Rust's own documentation.

Usage (needs torch, transformers, tokenizers, safetensors):

    apt-get install rust-web-src                     # the text: MIT OR Apache-2.0
    python train.py all --work target/demo-model     # every step below, one after another

or one step at a time:

    python train.py collect    --work DIR [--source /usr/src/rustc-1.96.0]
    python train.py tokenizer  --work DIR
    python train.py train      --work DIR [--minutes 50] [--threads 2] [--resume]
    python train.py export     --work DIR [--out engine/demo-model]
    python train.py evaluate   --work DIR [--out engine/demo-model]

collect    reads doc comments and books under --source, cleans them to plain text and writes
           corpus.json: documents (whole pages) and question/answer seeds, each marked
           "held" (never trained on; chosen by a hash of the source file's name) or not.
tokenizer  trains a byte-level BPE (Qwen2's pre-tokenizer) on the trained part of the corpus.
train      packs a freshly phrased epoch of chats and pages at a time and trains until --minutes
           of wall time have passed (time spent stopped is not counted); the learning rate follows
           the share of time used, so the run ends decayed on any machine. Writes checkpoint.pt
           every two minutes.
export     writes config.json, generation_config.json, model.safetensors (bfloat16), the tokenizer
           files and reference.json to --out; each file appears atomically. --ema takes the running
           average of the weights, for a usable model from a run that is still in progress.
evaluate   measures train and held-out loss of the exported files with transformers and prints
           sample outputs (evaluation.json in --work).

Seeds are fixed; the number of steps depends on the machine, because the schedule follows time.
"""

import argparse
import glob
import hashlib
import json
import math
import os
import random
import re
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 1317

# Model shape. 3,939,072 parameters: 7.88 MB in bfloat16.
VOCAB = 3840
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, MLP = 256, 5, 4, 2, 64, 512
THETA, EPS, MAX_POS = 10000.0, 1e-6, 2048
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # the last three ids

# ------------------------------------------------------------------------------------- collect

# Folders of the Rust source tree that are read; all MIT OR Apache-2.0 (README.md has the details).
# The Embedded Rust Book is left out: its prose is CC-BY-SA.
BOOKS = {
    "src/doc/book/src": "book",
    "src/doc/rust-by-example/src": "rust-by-example",
    "src/doc/nomicon/src": "nomicon",
    "src/doc/reference/src": "reference",
    "src/doc/edition-guide/src": "edition-guide",
    "src/tools/cargo/src/doc/src": "cargo",
    "compiler/rustc_error_codes/src/error_codes": "error-codes",
}
CRATES = ["library/core/src", "library/alloc/src", "library/std/src", "library/proc_macro/src"]
SKIP = re.compile(
    r"SUMMARY\.md|CHANGELOG\.md|/tests?/|/tests\.rs|unicode_data\.rs|fuchsia|/core_arch/|/core_simd/"
    r"|cargo/src/doc/src/commands/|/benches/|/title-page\.md|grammar|/zh/|/ja/|/es/|/ko/"
    r"|library/std/src/sys/|library/core/src/intrinsics/simd|f16\.rs|f128\.rs|library/core/src/macros/mod"
)
TYPOGRAPHY = str.maketrans({
    "\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - ",
    "\u00a0": " ", "\u2026": "...", "\u2212": "-", "\u200b": "", "\t": "    ",
})


def inline(text):
    """One paragraph of markdown to plain text; inline code keeps its backticks."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = text.replace("<code>", "`").replace("</code>", "`")
    text = re.sub(r"</?(a|span|kbd|em|sup|sub|b|i|strong|br|p|div|figure|figcaption|img|title|details|summary"
                  r"|Listing|section|table|tr|td|th|ul|li|hr)\b[^>]*>", "", text)
    text = re.sub(r"\\([<>\[\]_*#|\\])", r"\1", text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)                       # images
    text = re.sub(r"\[\^[^\]]*\]", "", text)                               # footnote marks
    text = re.sub(r"\[((?:`[^`]*`|[^\[\]]|\[[^\[\]]*\])+)\]\([^()\s]*(?:\([^()]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"\[((?:`[^`]*`|[^\[\]`])+)\]\s?\[[^\]]*\]", r"\1", text)  # [text][ref]
    text = re.sub(r"(?<![\w`#!\])])\[((?:`[^`]+`)|(?:[A-Za-z_][^\[\]`]*[`\w)\"'.!?-]))\](?![\w`(\[])", r"\1", text)
    text = re.sub(r"\[(`[^`]+`)\]", r"\1", text)
    text = re.sub(r"``+ ?(.*?) ?``+", r"`\1`", text)
    text = re.sub(r"<(https?://[^>]*)>", r"\1", text)
    pieces = re.split(r"(`[^`]*`)", text)                                  # emphasis, outside code only
    for i in range(0, len(pieces), 2):
        p = re.sub(r"\*\*([^*]+)\*\*", r"\1", pieces[i])
        p = re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"\1", p)
        p = re.sub(r"(?<![\w_])_([^_\s][^_]*)_(?![\w_])", r"\1", p)
        pieces[i] = p.replace("**", "")
    text = "".join(pieces)
    return re.sub(r"\s+", " ", text.translate(TYPOGRAPHY)).strip()


SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"(])")


def drop_dangling(text):
    """Removes sentences that point at things the plain text does not have."""
    keep = [s for s in SENTENCE.split(text)
            if not re.search(r"\b(Listing|Figure|Table|Listings|Chapters?) [A-Z]?\d|shown here|see below|\{\{", s)]
    return " ".join(keep)


def blocks(markdown):
    """Yields ('head', level, text), ('para', text), ('item', text) and ('code', lines)."""
    markdown = re.sub(r"<!--.*?-->", "", markdown, flags=re.S)
    lines = markdown.split("\n")
    i, para = 0, []

    def flush():
        nonlocal para
        out = inline(" ".join(para)) if para else ""
        para = []
        return [("para", out)] if out else []

    while i < len(lines):
        raw = re.sub(r"^\s*(> ?)+", "", lines[i])
        line = raw.strip()
        fence = re.match(r"^(`{3,}|~{3,})(.*)$", line)
        if fence:
            yield from flush()
            code, i = [], i + 1
            while i < len(lines) and not re.sub(r"^\s*(> ?)+", "", lines[i]).strip().startswith(fence.group(1)):
                code.append(re.sub(r"^(> ?)+", "", lines[i]))
                i += 1
            yield ("code", fence.group(2), code)
        elif not line or line == ">" or re.match(r"^(-{3,}|\*{3,}|={3,})$", line):
            yield from flush()
        elif re.match(r"^#{1,6} ", line):
            yield from flush()
            level = len(line) - len(line.lstrip("#"))
            yield ("head", level, re.sub(r"\s*\{[#.].*$", "", inline(line.lstrip("#").rstrip("#"))))
        elif re.match(r"^\[[^\]]+\]:", line) or re.match(r"^r\[[\w.\-]+\]$", line) or line.startswith("|") \
                or re.match(r"^\{\{.*\}\}$", line) or re.match(r"^\[![A-Z]+\]$", line) \
                or re.match(r"^</?[A-Za-z][^>]*>$", line) or re.match(r"^:?-+:? *\|", line):
            yield from flush()
            if re.match(r"^\[\^?[^\]]+\]:", line):  # a definition may run over several lines
                while i + 1 < len(lines) and re.match(r"^\s{2,}\S", lines[i + 1]):
                    i += 1
        elif re.match(r"^([*+-]|\d+[.)]) +", line):
            yield from flush()
            item = [re.sub(r"^([*+-]|\d+[.)]) +", "", line)]
            while i + 1 < len(lines):
                nxt = re.sub(r"^\s*(> ?)+", "", lines[i + 1])
                if not nxt.strip() or re.match(r"^\s*([*+-]|\d+[.)]) +|^#|^\s*```|^\[[^\]]+\]:", nxt):
                    break
                item.append(nxt.strip())
                i += 1
            out = inline(" ".join(item))
            if out:
                yield ("item", out)
        else:
            para.append(line)
        i += 1
    yield from flush()


def short_code(info, code):
    """A code example worth keeping in an answer, or None."""
    if re.search(r"grammar|console|text|toml|compile_fail|should_panic|bash|sh\b|ebnf|asm|mermaid|ignore", info):
        return None
    code = [c for c in code if not re.match(r"^\s*# |^\s*#$|^\s*#!\[", c)]
    code = [c.rstrip().translate(TYPOGRAPHY) for c in code]
    while code and not code[0]:
        code.pop(0)
    while code and not code[-1]:
        code.pop()
    if not 1 <= len(code) <= 7 or max(map(len, code)) > 88 or any("{{" in c for c in code):
        return None
    indent = min((len(c) - len(c.lstrip()) for c in code if c), default=0)
    return "```rust\n" + "\n".join(c[indent:] for c in code) + "\n```"


def sections(markdown, code_budget=1):
    """Splits a page at its headings: [(level, heading or None, [text blocks])]."""
    out, cur, used = [], (0, None, []), 0

    def loose_end(texts):  # "For example:" with the example gone
        if texts and texts[-1].endswith(":"):
            cut = SENTENCE.split(texts[-1])[:-1]
            texts[-1:] = [" ".join(cut)] if cut else []

    for b in blocks(markdown):
        if b[0] == "head":
            loose_end(cur[2])
            out.append(cur)
            cur, used = (b[1], b[2], []), 0
        elif b[0] == "code":
            kept = short_code(b[1], b[2]) if used < code_budget else None
            if kept:
                cur[2].append(kept)
                used += 1
            else:
                loose_end(cur[2])
        elif b[0] == "item":
            text = drop_dangling(b[1])
            if text:
                if cur[2] and cur[2][-1].startswith("- "):
                    cur[2][-1] += "\n- " + text
                else:
                    cur[2].append("- " + text)
        else:
            text = drop_dangling(b[1])
            if len(text) > 15 and not text.endswith("|"):
                cur[2].append(text)
    loose_end(cur[2])
    out.append(cur)
    return [s for s in out if s[1] or s[2]]


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


def held_out(relative):
    return int(hashlib.sha256(relative.encode()).hexdigest(), 16) % 1000 < 25


def collect(args):
    source = Path(args.source or max(glob.glob("/usr/src/rustc-*"), default=""))
    if not (source / "library").is_dir():
        raise SystemExit("no Rust source tree: install rust-web-src or pass --source")
    docs, seeds, files = [], [], 0
    for folder, book in BOOKS.items():
        for path in sorted((source / folder).rglob("*.md")):
            rel = path.relative_to(source).as_posix()
            if SKIP.search("/" + rel):
                continue
            files += 1
            held = held_out(rel)
            secs = sections(path.read_text(encoding="utf-8"), code_budget=2)
            page = []
            title = next((h for _, h, _ in secs if h), None)
            for level, head, texts in secs:
                if head and texts:
                    page.append(("#" * max(level, 1)) + " " + head)
                page += texts
                if book == "error-codes":
                    continue
                if texts and head:
                    seeds.append(dict(kind="section", book=book, name=head, page=title, file=rel, texts=texts, held=held))
            if book == "error-codes":
                texts = [t for _, _, ts in secs for t in ts if not t.startswith("Note: this error code")]
                if texts:
                    seeds.append(dict(kind="error", book=book, name=path.stem, page=title, file=rel, texts=texts, held=held))
            if sum(map(len, page)) > 300:
                docs.append(dict(file=rel, book=book, text="\n\n".join(page), held=held))
    for folder in CRATES:
        for path in sorted((source / folder).rglob("*.rs")):
            rel = path.relative_to(source).as_posix()
            if SKIP.search("/" + rel):
                continue
            files += 1
            held = held_out(rel)
            page = []
            for kind, name, markdown in rust_docs(path, path.read_text(encoding="utf-8")):
                if kind == "module" or len(markdown) > 2500:
                    subs = [s for s in sections(markdown) if s[2]]
                    for _, head, texts in subs:
                        if head and not MINOR.match(head) and head not in ("Safety", "Panics", "Errors", "Undefined Behavior", "Aborts"):
                            seeds.append(dict(kind="section", book="std", name=f"{head}", page=name, file=rel, texts=texts, held=held))
                texts = doc_answer(markdown)
                if not texts or len(texts[0]) < 12 or texts[0].startswith(("```", "See [", "- ")):
                    continue
                seeds.append(dict(kind=kind, book="std", name=name, page=None, file=rel, texts=texts, held=held))
                page.append((f"# Module `{name}`" if kind == "module" else f"## `{name}`") + "\n\n" + "\n\n".join(texts))
            if sum(map(len, page)) > 300:
                docs.append(dict(file=rel, book="std", text="\n\n".join(page), held=held))

    # The same paragraph often documents many items: an answer is kept once per (name, text), at most
    # three times per text, and nothing that is trained on may appear in the held-out part.
    count, kept = {}, []
    for s in sorted(seeds, key=lambda s: s["held"]):
        key = " ".join(s["texts"])
        if (count.get(key, 0) >= 3) or (s["held"] and key in count) or (s["name"], key) in count:
            continue
        count[key] = count.get(key, 0) + 1
        count[(s["name"], key)] = 1
        kept.append(s)
    trained = {p for d in docs if not d["held"] for p in d["text"].split("\n\n")}
    for d in docs:
        if d["held"]:
            d["text"] = "\n\n".join(p for p in d["text"].split("\n\n") if p not in trained)
    for s in kept:
        if s["held"]:
            s["texts"] = [t for t in s["texts"] if t not in trained]
    kept = [s for s in kept if s["texts"]]
    docs = [d for d in docs if len(d["text"]) > 200]
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    (work / "corpus.json").write_text(json.dumps(dict(source=source.name, docs=docs, seeds=kept), indent=0))
    for held in (False, True):
        print("held-out" if held else "trained", "documents", sum(d["held"] == held for d in docs),
              "characters", sum(len(d["text"]) for d in docs if d["held"] == held),
              "answers", sum(s["held"] == held for s in kept),
              "characters", sum(len(t) for s in kept if s["held"] == held for t in s["texts"]))
    print("files read", files)
