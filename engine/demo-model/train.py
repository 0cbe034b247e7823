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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits leaves its core to others
HERE = Path(__file__).resolve().parent
SEED = 1317

# Model shape. 3,935,616 parameters: 7.88 MB in bfloat16.
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
    r"|library/std/src/sys/|library/core/src/intrinsics/|f16\.rs|f128\.rs|library/core/src/macros/mod"
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
    code = r"(?:`[^`]*`|[^\[\]`])"                                           # possessive: no backtracking
    text = re.sub(r"\[(" + code + r"*+(?:\[" + code + r"*+\]" + code + r"*+)*+)\]\((?:[^()\s]|\([^()]*\))*+(?:\s+\"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"\[(" + code + r"++)\] ?\[[^\[\]]*+\]", r"\1", text)      # [text][ref]
    text = re.sub(r"\[(`[^`]*`[^\[\]`]*+)\]", r"\1", text)                 # [`ref`]
    text = re.sub(r"(?<![\w`#!\])&])\[([A-Za-z_][^\[\]`]*+)\](?![\w(\[])", r"\1", text)  # [ref]
    text = re.sub(r"``+ ?(.*?) ?``+", r"`\1`", text)
    text = re.sub(r"<(https?://[^>]*)>", r"\1", text)
    pieces = re.split(r"(`[^`]*`)", text)                                  # emphasis, outside code only
    for i in range(0, len(pieces), 2):
        p = re.sub(r"\*\*([^*]+)\*\*", r"\1", pieces[i])
        p = re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"\1", p)
        p = re.sub(r"(?<![\w_])_([^_\s](?:[^\n]*?[^_\s])??)_(?![\w_])", r"\1", p)
        pieces[i] = p.replace("**", "")
    text = "".join(pieces)
    text = re.sub(r"(\w-)\n *(?=\w)", r"\1", text.translate(TYPOGRAPHY))  # a word cut at its hyphen
    return re.sub(r"\s+", " ", text).strip()


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
        out = inline("\n".join(para)) if para else ""
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
            if len(text) > 15 and not text.endswith("|") and not text.startswith(("Filename:", "[dependencies]")):
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


# --------------------------------------------------------------------------------------- chats

ABOUT_ITEM = [
    "What does `{n}` do?", "What does {n} do?", "Explain `{n}`.", "Tell me about `{n}`.", "How does `{n}` work?",
    "How do I use `{n}`?", "When should I use `{n}`?", "What is `{n}`?", "what is {n}", "{n}", "explain {n}",
    "What can I do with `{n}`?", "Can you explain {n}?", "Describe `{n}` in Rust.", "What is {n} for?",
]
ABOUT_TYPE = [
    "What is `{n}`?", "What is {n}?", "Tell me about {n}", "Tell me about `{n}`.", "Explain {n}.", "Explain `{n}` in Rust.",
    "What is {n} in Rust?", "what is a {n}", "Describe {n}.", "When should I use {n}?", "How does {n} work?", "{n}",
    "How do I use {n}?", "Write about {n}.", "Can you explain `{n}`?", "What is a `{n}` good for?",
]
ABOUT_MODULE = [
    "What is the `{n}` module for?", "Tell me about the {n} module.", "Explain the `{n}` module.", "What is in `std::{n}`?",
    "What is {n}?", "Tell me about {n}", "How do I use {n} in Rust?", "Write about {n}.", "Explain {n}.",
]
ABOUT_TOPIC = [
    "Tell me about {n}.", "Tell me about {n}", "Explain {n}.", "Explain {n}", "Can you explain {n}?", "What should I know about {n}?",
    "Write about {n}.", "Write a short text about {n}.", "{n}", "Describe {n}.", "Give me an introduction to {n}.", "Teach me about {n}.",
    "What can you tell me about {n}?", "I want to learn about {n}.", "What is {n}?", "How does {n} work in Rust?",
]
ABOUT_ERROR = [
    "What does error {n} mean?", "What is {n}?", "Explain error {n}.", "How do I fix {n}?", "Why do I get error {n}?",
    "rustc --explain {n}", "I get error[{n}]. What should I do?",
]
ABOUT_WORD = [
    "Tell me about {n}.", "What about {n}?", "Write something about {n}.", "What do you know about {n}?", "Explain {n}.",
    "How do I use {n}?", "I have a question about {n}.", "Tell me more about {n}.", "How does {n} work?",
]
TOPICS = {  # what people ask about -> headings of the books that answer it
    "ownership": ["What Is Ownership?", "Ownership Rules", "Ownership and Functions", "Memory and Allocation"],
    "borrowing": ["References and Borrowing", "Mutable References", "Borrowing"],
    "references": ["References and Borrowing", "Mutable References"],
    "the borrow checker": ["The Borrow Checker", "References and Borrowing"],
    "lifetimes": ["Validating References with Lifetimes", "Lifetime Annotation Syntax", "Lifetime Elision", "Lifetimes"],
    "the stack and the heap": ["The Stack and the Heap"], "memory": ["Memory and Allocation", "The Stack and the Heap"],
    "memory management": ["What Is Ownership?", "Memory and Allocation"], "memory safety": ["What Is Ownership?"],
    "variables": ["Variables and Mutability", "Storing Values with Variables"], "mutability": ["Variables and Mutability"],
    "constants": ["Declaring Constants"], "shadowing": ["Shadowing"], "functions": ["Functions", "Parameters"],
    "integers": ["Integer Types"], "integer overflow": ["Integer Overflow"], "tuples": ["The Tuple Type"], "arrays": ["The Array Type"],
    "structs": ["Defining and Instantiating Structs"], "enums": ["Defining an Enum", "Enum Values"], "methods": ["Method Syntax"],
    "slices": ["The Slice Type", "String Slices"], "strings": ["The `String` Type", "Strings", "Creating a New String"],
    "pattern matching": ["The `match` Control Flow Construct", "Patterns and Matching"], "match": ["The `match` Control Flow Construct"],
    "modules": ["Grouping Related Code in Modules", "Packages, Crates, and Modules"], "crates": ["Packages and Crates", "Crates"],
    "vectors": ["Reading Elements of Vectors", "Vectors"], "collections": ["Common Collections"],
    "hash maps": ["Storing Keys with Associated Values in Hash Maps"], "error handling": ["Error Handling", "Guidelines for Error Handling"],
    "errors": ["Recoverable Errors with `Result`", "Propagating Errors"], "panics": ["To `panic!` or Not to `panic!`"],
    "the question mark operator": ["The `?` Operator Shortcut", "Where to Use the `?` Operator"], "Result": ["Recoverable Errors with `Result`"],
    "Option": ["The `Option` Enum"], "generics": ["Generic Types, Traits, and Lifetimes", "Performance of Code Using Generics", "Generics"],
    "traits": ["Defining a Trait", "Implementing a Trait on a Type", "Traits"], "tests": ["Writing Automated Tests", "Testing"],
    "closures": ["Capturing the Environment", "Closures", "Capturing References or Moving Ownership"],
    "iterators": ["Processing a Series of Items with Iterators", "The `Iterator` Trait and the `next` Method", "Iterators"],
    "smart pointers": ["Smart Pointers"], "Box": ["Using `Box<T>` to Point to Data on the Heap"],
    "reference counting": ["`Rc<T>`, the Reference-Counted Smart Pointer"], "Rc": ["`Rc<T>`, the Reference-Counted Smart Pointer"],
    "Arc": ["Atomic Reference Counting with `Arc<T>`", "Arc"], "Mutex": ["Controlling Access with Mutexes", "The API of `Mutex<T>`"],
    "concurrency": ["Fearless Concurrency", "Parallelism and Concurrency"], "threads": ["Using Threads to Run Code Simultaneously", "Threads"],
    "channels": ["Transfer Data Between Threads with Message Passing"], "parallelism": ["Parallelism and Concurrency"],
    "async": ["Fundamentals of Asynchronous Programming: Async, Await, Futures, and Streams", "Futures and the Async Syntax"],
    "async and await": ["Futures and the Async Syntax"], "futures": ["The `Future` Trait", "Futures and the Async Syntax"],
    "streams": ["Streams: Futures in Sequence", "The `Stream` Trait"], "Pin": ["The `Pin` Type and the `Unpin` Trait"],
    "object-oriented programming": ["Implementing an Object-Oriented Design Pattern", "Encapsulation That Hides Implementation Details"],
    "polymorphism": ["Polymorphism"], "inheritance": ["Inheritance as a Type System and as Code Sharing"],
    "trait objects": ["Using Trait Objects to Abstract over Shared Behavior", "Performing Dynamic Dispatch"],
    "macros": ["Macros", "The Difference Between Macros and Functions"], "unsafe Rust": ["Unsafe Rust", "Unsafe Superpowers", "Performing Unsafe Superpowers"],
    "Cargo": ["Hello, Cargo!", "Creating a Project with Cargo", "Building and Running a Cargo Project"], "crates.io": ["Publishing a Crate to Crates.io"],
    "editions": ["Appendix E: Editions"], "keywords": ["Keywords Currently in Use"], "comments": ["Comments"],
    "loops": ["Repeating Code with `loop`", "Looping Through a Collection with `for`"], "if expressions": ["`if` Expressions"],
    "Drop": ["Running Code on Cleanup with the `Drop` Trait"], "Deref": ["Implementing the `Deref` Trait"],
    "the Rust compiler": ["Compilation and Execution"], "a Rust program": ["The Anatomy of a Rust Program"],
    "Rust's release process": ["Choo, Choo! Release Channels and Riding the Trains"], "dangling references": ["Dangling References"],
    "data types": ["Data Types"], "Clone and Copy": ["`Clone` and `Copy` for Duplicating Values"], "moves": ["Variables and Data Interacting with Move"],
    "RAII": ["RAII"], "workspaces": ["Creating a Workspace"], "dependencies": ["Dependencies"], "a guessing game": ["Processing a Guess"],
}
ASK_TOPIC = [
    "What is {n}?", "What are {n}?", "Tell me about {n}.", "Tell me about {n}", "Explain {n}.", "Explain {n} in Rust", "How does {n} work?",
    "How do {n} work?", "What is {n} in Rust?", "what are {n} in rust", "Write a few paragraphs about {n}.", "Write about {n}",
    "Can you explain {n} to me?", "How do I use {n}?", "Teach me {n}.", "Why does Rust have {n}?", "{n}", "Give me a long explanation of {n}.",
    "explain {n} like I am a beginner", "I don't understand {n}.", "Write an essay about {n}.",
]
SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant that knows Rust.", "Answer the user's questions about Rust.",
          "You are a concise assistant.", "You are TokenFlow's demo model."]
MORE = ["Tell me more.", "tell me more", "Go on.", "Continue.", "What else?", "And then?", "More, please.", "Can you say more about that?"]
GENERIC = re.compile(r"^(see also:?|activit(y|ies)|summary|examples?|basic usage|options|details|notes?|overview|description|see also|"
                     r"introduction|syntax|motivation|recap.*|errors?|panics|safety|relationships|in .* definitions)$", re.I)
STOP = set("this that with from have will been when what which their there then than these those they into only also more some such each "
           "other used uses using does must should would could because following example type types value values function method trait "
           "returns return called call code rust same first second however since while where after before about between being very "
           "make makes made can't don't isn't like just even without within both either another different itself".split())


def clip(texts, limit):
    """Whole blocks of an answer, up to about limit characters."""
    out, used = [], 0
    for t in texts:
        if out and used + len(t) > limit:
            break
        if len(t) > limit + 600:
            t = " ".join(SENTENCE.split(t)[:8])
        out.append(t)
        used += len(t)
    while len(out) > 1 and out[-1].endswith(":"):
        out.pop()
    return "\n\n".join(out)


def lower_first(heading):
    words = heading.rstrip("?.!").split(" ")
    return " ".join(w.lower() if re.match(r"^[A-Z][a-z]+$", w) and w not in ("Rust", "Cargo", "I", "Unix", "Windows", "Linux", "Git") else w
                    for w in words)


class Chats:
    """Phrases the corpus as conversations; every epoch asks differently."""

    def __init__(self, corpus, held):
        self.seeds = [s for s in corpus["seeds"] if s["held"] == held]
        self.docs = [d for d in corpus["docs"] if d["held"] == held]
        self.held = held
        self.hand = [] if held else json.loads((HERE / "hand_written.json").read_text())
        self.by_file, self.by_name = {}, {}
        for s in self.seeds:
            self.by_file.setdefault(s["file"], []).append(s)
            if s["book"] != "std":
                self.by_name.setdefault(s["name"], []).append(s)
        df = {}
        for s in self.seeds:
            s["words"] = set(re.findall(r"[a-z][a-z\-]{3,}", " ".join(s["texts"])[:800].lower())) - STOP
            for w in s["words"]:
                df[w] = df.get(w, 0) + 1
        self.df = df

    def question(self, s, rng):
        kind, name = s["kind"], s["name"]
        if rng.random() < 0.15 and kind in ("section", "module", "struct", "trait", "enum"):
            text = " ".join(s["texts"])[:800].lower()
            words = sorted(s["words"], key=lambda w: -(text.count(w) + 1) / math.log(3 + self.df[w]))[:4]
            if words:
                return rng.choice(ABOUT_WORD).format(n=rng.choice(words))
        if kind == "error":
            return rng.choice(ABOUT_ERROR).format(n=name)
        if kind == "section":
            if GENERIC.match(name) and s["page"]:
                name = s["page"]
            elif s["page"] and s["page"] != name and len(name.split()) < 3 and rng.random() < 0.5:
                name = f"{name} ({lower_first(s['page'])})"
            if re.match(r"^(what|how|why|when|where|is|are|can|do|does)\b", name, re.I) and rng.random() < 0.7:
                return name if rng.random() < 0.7 else lower_first(name)
            return rng.choice(ABOUT_TOPIC).format(n=name if rng.random() < 0.3 else lower_first(name))
        short = name.split("::")[-1] if rng.random() < 0.2 else name
        if kind in ("module", "mod"):
            return rng.choice(ABOUT_MODULE).format(n=name)
        if kind in ("struct", "trait", "enum", "type", "keyword", "union"):
            return rng.choice(ABOUT_TYPE).format(n=name)
        return rng.choice(ABOUT_ITEM).format(n=short)

    def answer(self, s, rng):
        text = clip(s["texts"], rng.choice([900, 1500, 2200, 2800]))
        if len(text) < 260 and s["kind"] in ("method", "fn", "const", "variant", "type"):
            near = [o for o in self.by_file[s["file"]] if o is not s and o["kind"] == s["kind"] and len(o["texts"][0]) < 240
                    and o["name"].split("::")[0] == s["name"].split("::")[0] and not o["texts"][0].endswith(":")]
            if len(near) >= 2:
                near = rng.sample(near, min(len(near), rng.randint(2, 4)))
                text += rng.choice(["\n\nSee also:\n\n", "\n\nRelated items:\n\n", "\n\nNearby in the documentation:\n\n"])
                text += "\n".join(f"- `{o['name']}`: {o['texts'][0]}" for o in near)
        return text

    def turn(self, s, rng):
        return self.question(s, rng), self.answer(s, rng)

    COMMON = re.compile(r"/(option|result|vec/mod|string|str/mod|slice/mod|map|set|rc|sync|boxed|cell|iterator|fs|thread/mod|mutex|mpsc"
                        r"|path|char/methods|borrow|clone|cmp|convert/mod|default|mem/mod|vec_deque/mod|binary_heap/mod)\.rs$")

    def weight(self, s, focus):
        """How likely an epoch is to ask about this: what people ask first is asked most, and in the
        focused epochs at the end of the run more so."""
        if s["kind"] in ("method", "fn", "const", "variant", "static", "type"):
            w = (0.4 if focus else 0.6) if self.COMMON.search(s["file"]) else (0.04 if focus else 0.15)
        else:
            w = {"book": 1.0, "rust-by-example": 0.8, "std": 0.7, "error-codes": 0.4}.get(s["book"], 0.35)
            if focus and not (s["book"] == "book" or self.COMMON.search(s["file"])):
                w *= 0.4
        return w * (0.4 if len("".join(s["texts"])) < 80 else 1.0)

    def epoch(self, rng, focus=False):
        """A list of conversations ([(question, answer), ...], system) and of pages (str), shuffled."""
        out = []
        for s in self.seeds:
            if not self.held and rng.random() > self.weight(s, focus):
                continue
            turns = [self.turn(s, rng)]
            r = rng.random()
            if r < 0.10:  # the next item of the same page
                peers = self.by_file[s["file"]]
                nxt = peers[(peers.index(s) + 1) % len(peers)]
                ask, reply = self.turn(nxt, rng)
                if nxt["kind"] == "section" and rng.random() < 0.5:
                    ask = rng.choice(MORE)
                turns.append((ask, reply))
            elif r < 0.18:
                turns.append(self.turn(rng.choice(self.seeds), rng))
            out.append((turns, rng.choice(SYSTEM) if rng.random() < 0.12 else None))
        if not self.held:
            for topic, heads in TOPICS.items():
                for _ in range(8 if focus else 4):
                    found = [s for h in heads for s in self.by_name.get(h, [])]
                    if not found:
                        continue
                    s = found[0] if rng.random() < 0.6 else rng.choice(found)
                    texts = list(s["texts"])
                    if len("".join(texts)) < 500 and s["page"]:  # a short opening goes on with the page
                        peers = self.by_file[s["file"]]
                        k = peers.index(s)
                        texts += [t for o in peers[k + 1:k + 3] for t in o["texts"]]
                    name = topic[0].upper() + topic[1:] if rng.random() < 0.1 else topic
                    turns = [(rng.choice(ASK_TOPIC).format(n=name), clip(texts, rng.choice([1500, 2200, 2800])))]
                    if rng.random() < 0.15:
                        h = rng.choice(self.hand)
                        turns.insert(rng.choice([0, 1]), (rng.choice(h["ask"]), rng.choice(h["answer"])))
                    out.append((turns, rng.choice(SYSTEM) if rng.random() < 0.12 else None))
            for h in self.hand:
                for _ in range(8):
                    turns = [(rng.choice(h["ask"]), rng.choice(h["answer"]))]
                    if rng.random() < 0.25:
                        turns.append(self.turn(rng.choice(self.seeds), rng))
                    out.append((turns, rng.choice(SYSTEM) if rng.random() < 0.12 else None))
        for d in self.docs:
            if self.held or rng.random() < {"book": 0.5, "rust-by-example": 0.5, "std": 0.12}.get(d["book"], 0.25) * (0.4 if focus else 1):
                out.append(d["text"])
        rng.shuffle(out)
        return out


# ----------------------------------------------------------------------------------- tokenizer

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def load_corpus(args):
    return json.loads((Path(args.work) / "corpus.json").read_text())


def tokenizer(args):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    corpus = load_corpus(args)
    texts = [d["text"] for d in corpus["docs"] if not d["held"]]
    texts += ["\n\n".join(s["texts"]) for s in corpus["seeds"] if not s["held"] and s["book"] != "std"]
    texts += [a for h in json.loads((HERE / "hand_written.json").read_text()) for a in h["answer"] + h["ask"]] * 4
    texts += [t.format(n="") for t in ABOUT_ITEM + ABOUT_TYPE + ABOUT_TOPIC + ASK_TOPIC + ABOUT_WORD] * 50
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB - len(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[]))
    tok.add_special_tokens(SPECIALS)
    assert tok.get_vocab_size() == VOCAB and tok.token_to_id("<|im_end|>") == VOCAB - 1
    tok.save(str(Path(args.work) / "tokenizer.json"))
    chars = sum(map(len, texts))
    print("characters per token", chars / sum(len(e.ids) for e in tok.encode_batch(texts)))


# --------------------------------------------------------------------------------------- train


class Encoder:
    """Conversations and pages to (token ids, loss mask); questions are read but not learned."""

    def __init__(self, path):
        from tokenizers import Tokenizer

        self.tok = Tokenizer.from_file(str(path))
        self.end, self.start, self.stop = (self.tok.token_to_id(s) for s in SPECIALS)

    def raw(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def __call__(self, item):
        if isinstance(item, str):
            ids = self.raw(item) + [self.end]
            return ids, [1] * len(ids)
        turns, system = item
        ids, mask = [], []

        def add(text, learn):
            part = self.raw(text)
            ids.extend(part)
            mask.extend([learn] * len(part))

        newline = self.raw("\n")
        for role, text, learn in ([("system", system, 0)] if system else []) + \
                [x for q, a in turns for x in (("user", q, 0), ("assistant", a, 1))]:
            ids.append(self.start)
            mask.append(0)
            add(role + "\n", 0)
            add(text, learn)
            ids += [self.stop] + newline
            mask += [learn] + [0] * len(newline)
        return ids, mask


def pack(items, encode, length):
    """Rows of length + 1 tokens. A row begins with the beginning of something; what does not fit goes
    on in the next row, so that nothing is dropped and positions beyond the first are all seen."""
    rows, masks, row, mask = [], [], [], []
    for item in items:
        ids, m = encode(item)
        while ids:
            room = length + 1 - len(row)
            # a conversation that would be cut in two near its start waits for a fresh row
            if len(ids) > room and room < 48:
                row += [encode.end] * room
                mask += [0] * room
            else:
                row += ids[:room]
                mask += m[:room]
                ids, m = ids[room:], m[room:]
            if len(row) == length + 1:
                rows.append(row)
                masks.append(mask)
                row, mask = [], []
    return rows, masks


def build_model():
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class Norm(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))

        def forward(self, x):
            y = x.float()
            y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)
            return (y * self.weight).to(x.dtype)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
            self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
            self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
            self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)
            self.q_norm, self.k_norm = Norm(HEAD_DIM), Norm(HEAD_DIM)

        def forward(self, x, cos, sin):
            b, t, _ = x.shape

            def heads(y, n, norm):
                y = y.view(b, t, n, HEAD_DIM)
                if norm is None:
                    return y.transpose(1, 2)
                y = norm(y).transpose(1, 2)
                y1, y2 = y.chunk(2, -1)
                return (y * cos + torch.cat((-y2, y1), -1) * sin).to(x.dtype)

            q = heads(self.q_proj(x), HEADS, self.q_norm)
            k = heads(self.k_proj(x), KV_HEADS, self.k_norm)
            v = heads(self.v_proj(x), KV_HEADS, None)
            k, v = (z.repeat_interleave(HEADS // KV_HEADS, 1) for z in (k, v))
            if t > 512 or not torch.is_grad_enabled():
                y = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=True)
            else:  # by hand, in strips that skip most of the masked half: a third faster here
                parts, cut = [], 128
                above = torch.full((cut, cut), -1e9).triu(1)
                for i in range(0, t, cut):
                    score = (q[:, :, i:i + cut] @ k[:, :, :i + cut].mT).float() * HEAD_DIM ** -0.5
                    score = torch.cat((score[..., :i], score[..., i:] + above[:, :score.shape[-1] - i]), -1)
                    parts.append(score.softmax(-1).to(v.dtype) @ v[:, :, :i + cut])
                y = torch.cat(parts, 2)
            return self.o_proj(y.transpose(1, 2).reshape(b, t, HEADS * HEAD_DIM))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj = nn.Linear(HIDDEN, MLP, bias=False)
            self.up_proj = nn.Linear(HIDDEN, MLP, bias=False)
            self.down_proj = nn.Linear(MLP, HIDDEN, bias=False)

        def forward(self, x):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.mlp = Attention(), Mlp()
            self.input_layernorm, self.post_attention_layernorm = Norm(HIDDEN), Norm(HIDDEN)

        def forward(self, x, cos, sin):
            x = x + self.self_attn(self.input_layernorm(x), cos, sin)
            return x + self.mlp(self.post_attention_layernorm(x))

    class Qwen3(nn.Module):
        """The same function and the same parameter names as transformers' Qwen3ForCausalLM."""

        def __init__(self):
            super().__init__()
            self.model = nn.Module()
            self.model.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
            self.model.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.model.norm = Norm(HIDDEN)
            for name, p in self.named_parameters():
                if p.dim() == 2:
                    scale = 0.02 if "embed" in name else 0.5 / math.sqrt(p.shape[1])
                    nn.init.normal_(p, std=scale)
                    if name.endswith(("o_proj.weight", "down_proj.weight")):
                        nn.init.zeros_(p)

        def forward(self, ids, targets, mask):
            t = ids.shape[1]
            inv = THETA ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
            angle = torch.outer(torch.arange(t).float(), inv)
            angle = torch.cat((angle, angle), -1)
            cos, sin = angle.cos(), angle.sin()
            x = self.model.embed_tokens(ids)
            for layer in self.model.layers:
                x = layer(x, cos, sin)
            logits = F.linear(self.model.norm(x), self.model.embed_tokens.weight)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
            mask = mask.flatten()
            return (loss * mask).sum() / mask.sum()

    return Qwen3()


def muon_step(params, state, lr, momentum=0.95, decay=0.01):
    """Muon: momentum, orthogonalised by five Newton-Schulz iterations, all matrices of a shape at once."""
    import torch

    shapes = {}
    for p in params:
        buf = state.setdefault(p, torch.zeros_like(p))
        buf.lerp_(p.grad, 1 - momentum)
        g = p.grad.lerp(buf, momentum)
        x = g.T if g.shape[0] > g.shape[1] else g
        shapes.setdefault(x.shape, []).append((p, x))
    for group in shapes.values():
        x = torch.stack([x / (x.norm() + 1e-7) for _, x in group]).bfloat16()
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315) @ x
        for (p, g), y in zip(group, x.float()):
            y = y.T if p.shape[0] > p.shape[1] else y
            p.mul_(1 - lr * decay).add_(y, alpha=-lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def train(args):
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    work = Path(args.work)
    if args.pid_file:
        Path(args.pid_file).write_text(str(os.getpid()))
    corpus, encode = load_corpus(args), Encoder(work / "tokenizer.json")
    chats, held = Chats(corpus, False), Chats(corpus, True)
    model = build_model()
    print("parameters", sum(p.numel() for p in model.parameters()))
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    adam = torch.optim.AdamW([
        dict(params=[p for p in others if p.dim() == 2], base=4e-3, weight_decay=0.0),
        dict(params=[p for p in others if p.dim() == 1], base=3e-3, weight_decay=0.0)], betas=(0.9, 0.97), eps=1e-10)
    muon_lr, muon_state = 0.02, {}
    ema = {n: p.detach().clone() for n, p in model.named_parameters()}
    run = dict(step=0, tokens=0, learned=0, seconds=0.0, epoch=0, loss=None)
    if args.resume and (work / "checkpoint.pt").exists():
        saved = torch.load(work / "checkpoint.pt")
        model.load_state_dict(saved["model"])
        ema, run = saved["ema"], saved["run"]
        if saved.get("adam"):
            adam.load_state_dict(saved["adam"])
            muon_state = dict(zip(matrices, saved["muon"]))
    forward = torch.compile(model, dynamic=False) if args.compile else model

    def batches(length, rows_per_batch):
        rng = random.Random(f"{SEED} {run['epoch']} {run['step']}")
        rows, masks = pack(chats.epoch(rng, run["seconds"] / budget > 0.6), encode, length)
        order = list(range(len(rows)))
        rng.shuffle(order)
        for k in range(0, len(order) - rows_per_batch + 1, rows_per_batch):
            pick = order[k:k + rows_per_batch]
            yield torch.tensor([rows[i] for i in pick]), torch.tensor([masks[i] for i in pick], dtype=torch.float32)

    hrows, hmasks = pack(held.epoch(random.Random(SEED)), encode, 512)
    held_batch = torch.tensor(hrows[:48]), torch.tensor(hmasks[:48], dtype=torch.float32)

    @torch.no_grad()
    def held_loss():
        live = {n: p.detach().clone() for n, p in model.named_parameters()}
        for n, p in model.named_parameters():
            p.copy_(ema[n])
        total = 0.0
        for k in range(0, 48, 16):
            r, m = held_batch[0][k:k + 16], held_batch[1][k:k + 16]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                total += model(r[:, :-1], r[:, 1:], m[:, 1:]).item() / 3
        for n, p in model.named_parameters():
            p.copy_(live[n])
        return total

    def save():
        tmp = work / "checkpoint.tmp"
        torch.save(dict(model=model.state_dict(), ema=ema, run=run, adam=adam.state_dict(),
                        muon=[muon_state.get(p) for p in matrices]), tmp)
        tmp.replace(work / "checkpoint.pt")

    # Time is counted step by step and a step counts at most fifteen seconds (a first, compiling one
    # does not count), so a run that was stopped for a while loses nothing of its schedule.
    # The last stretch reads rows of the full context, so that long conversations work.
    budget, long_share, saved_at, shown_at = args.minutes * 60, 0.93, 0.0, 0.0
    smooth, fresh = None, True
    while run["seconds"] < budget:
        long = run["seconds"] / budget >= long_share
        length, per = (MAX_POS, 2) if long else (512, 8)
        fresh = True
        for rows, mask in batches(length, per):
            share = run["seconds"] / budget
            if share >= 1 or (share >= long_share) != long:
                break
            began = time.monotonic()
            scale = min(1.0, (run["step"] + 1) / 60) * min(1.0, max(0.0, (1 - share) / 0.6))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = (model if long else forward)(rows[:, :-1], rows[:, 1:], mask[:, 1:])  # too few long steps to compile for
            loss.backward()
            with torch.no_grad():
                torch.nn.utils.clip_grad_norm_(others, 1.0)
                for group in adam.param_groups:
                    group["lr"] = group["base"] * scale
                adam.step()
                muon_step(matrices, muon_state, muon_lr * scale)
                for p in model.parameters():
                    p.grad = None
                keep = min(0.997, (run["step"] + 1) / (run["step"] + 10)) if share < 0.9 else 0.98
                for n, p in model.named_parameters():
                    ema[n].lerp_(p, 1 - keep)
            took = time.monotonic() - began
            run["seconds"] += 0 if fresh else min(took, 15.0)
            fresh = False
            run["step"] += 1
            run["tokens"] += rows.shape[0] * (rows.shape[1] - 1)
            run["learned"] += int(mask[:, 1:].sum())
            smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
            run["loss"] = smooth
            if run["seconds"] - shown_at > 20:
                shown_at = run["seconds"]
                print(f"{time.strftime('%H:%M:%S')} step {run['step']} epoch {run['epoch']} at {share:.3f} loss {smooth:.4f} "
                      f"lr {scale:.3f} {length * per / max(took, 1e-9):.0f} tok/s total {run['tokens'] / 1e6:.2f}M", flush=True)
            if run["seconds"] - saved_at > 120:
                saved_at = run["seconds"]
                save()
                print(f"   held-out loss {held_loss():.4f}", flush=True)
        else:
            run["epoch"] += 1
            print("   epoch done", run["epoch"], flush=True)
    save()
    print(f"   held-out loss {held_loss():.4f}  finished: {json.dumps(run)}", flush=True)


# -------------------------------------------------------------------------- export and evaluate

REFERENCE = ["What is ownership?", "Explain closures."]  # the prompts of reference.json


def write(path, data):
    """A reader sees the old file or the new one, never a half."""
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_bytes(data if isinstance(data, bytes) else data.encode())
    tmp.replace(path)


def pretty(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def export(args):
    import torch
    from safetensors.torch import save
    from transformers import Qwen3Config

    work, out = Path(args.work), Path(args.out)
    saved = torch.load(work / "checkpoint.pt")
    weights = saved["ema"] if args.ema else saved["model"]
    encode = Encoder(work / "tokenizer.json")
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, intermediate_size=MLP, max_position_embeddings=MAX_POS,
        rms_norm_eps=EPS, rope_parameters=dict(rope_type="default", rope_theta=THETA), tie_word_embeddings=True,
        hidden_act="silu", attention_bias=False, attention_dropout=0.0, use_sliding_window=False,
        bos_token_id=None, eos_token_id=encode.stop, pad_token_id=encode.end, dtype="bfloat16",
        architectures=["Qwen3ForCausalLM"])
    write(out / "config.json", config.to_json_string(use_diff=False))
    write(out / "generation_config.json", pretty(dict(
        do_sample=True, temperature=0.3, top_k=40, top_p=0.8,
        eos_token_id=[encode.stop, encode.end], pad_token_id=encode.end)))
    special = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
    write(out / "tokenizer_config.json", pretty(dict(
        tokenizer_class="PreTrainedTokenizerFast", model_max_length=MAX_POS, clean_up_tokenization_spaces=False,
        add_bos_token=False, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"], chat_template=TEMPLATE,
        added_tokens_decoder={str(encode.tok.token_to_id(t)): dict(content=t, **special) for t in SPECIALS})))
    write(out / "tokenizer.json", (work / "tokenizer.json").read_bytes())
    tensors = {n: p.detach().to(torch.bfloat16).contiguous() for n, p in weights.items()}
    blob = save(tensors, metadata={"format": "pt"})
    assert len(blob) <= 8_000_000, len(blob)
    write(out / "model.safetensors", blob)

    tok, model = load_exported(out)
    # the training model and transformers' must be the same function
    ours = build_model()
    ours.load_state_dict({n: t.float() for n, t in tensors.items()})
    rows, masks = pack(Chats(load_corpus(args), True).epoch(random.Random(SEED)), encode, 512)
    rows, masks = torch.tensor(rows[:4]), torch.tensor(masks[:4], dtype=torch.float32)
    with torch.no_grad():
        a = ours(rows[:, :-1], rows[:, 1:], masks[:, 1:]).item()
        b = losses(model, rows, masks)
    assert abs(a - b[0] / b[1]) < 1e-4, (a, b)

    cases = []
    for text in REFERENCE:
        ids = chat_ids(tok, text)
        prompt, output, logprobs, margin = list(ids), [], [], 1e9
        with torch.no_grad():
            while len(output) < 48 and (not output or output[-1] != encode.stop):
                lp = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
                top = lp.topk(2)
                output.append(top.indices[0].item())
                logprobs.append(round(top.values[0].item(), 6))
                margin = min(margin, (top.values[0] - top.values[1]).item())
                ids = ids + output[-1:]
        cases.append(dict(prompt=text, prompt_ids=prompt, output_ids=output, logprobs=logprobs,
                          text=tok.decode(output), smallest_margin=round(margin, 6)))
    body = ",\n".join("    " + json.dumps(c) for c in cases)
    write(out / "reference.json", '{\n  "about": "greedy continuation by transformers, float32 arithmetic on the bfloat16 weights",\n'
                                  '  "cases": [\n' + body + "\n  ]\n}\n")
    print("exported", len(blob), "bytes;", "average" if args.ema else "last", "weights of", json.dumps(saved["run"]),
          "smallest margins", [c["smallest_margin"] for c in cases])


def load_exported(out):
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    return AutoTokenizer.from_pretrained(out), Qwen3ForCausalLM.from_pretrained(out, dtype=torch.float32).eval()


def chat_ids(tok, text):
    return tok.encode(tok.apply_chat_template([dict(role="user", content=text)], add_generation_prompt=True, tokenize=False),
                      add_special_tokens=False)


def losses(model, rows, masks):
    """Summed loss in nats and number of learned tokens."""
    import torch
    import torch.nn.functional as F

    total = count = 0.0
    with torch.no_grad():
        for k in range(0, len(rows), 8):
            r, m = rows[k:k + 8], masks[k:k + 8, 1:].flatten()
            logits = model(r[:, :-1]).logits.flatten(0, 1)
            total += (F.cross_entropy(logits, r[:, 1:].flatten(), reduction="none") * m).sum().item()
            count += m.sum().item()
    return total, count


SAMPLES = ["Hello!", "What is ownership?", "Tell me about HashMap", "What does `Vec::push` do?", "Explain lifetimes.",
           "How do I handle errors in Rust?", "Write about threads.", "What is TokenFlow?", "Tell me a story.",
           "What is the capital of Italy?", "How do I sort a list?", "Why is my program slow?", "What is a trait object?",
           "What does error E0382 mean?", "Explain Option::map"]
OPENINGS = ["The Rust programming language", "Returns an iterator over", "In this chapter, we will"]


def evaluate(args):
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    work, corpus = Path(args.work), load_corpus(args)
    encode = Encoder(work / "tokenizer.json")
    tok, model = load_exported(Path(args.out))
    result = {}
    for held in (False, True):
        chats = Chats(corpus, held)
        items = chats.epoch(random.Random(SEED))
        for kind, chosen in (("pages", [i for i in items if isinstance(i, str)]),
                             ("answers", [i for i in items if not isinstance(i, str)])):
            rows, masks = pack(chosen, encode, 512)
            pick = random.Random(SEED).sample(range(len(rows)), min(len(rows), 96))
            total, count = losses(model, torch.tensor([rows[i] for i in pick]),
                                  torch.tensor([masks[i] for i in pick], dtype=torch.float32))
            text = sum(len(encode.tok.decode([t for t, m in zip(rows[i][1:], masks[i][1:]) if m]).encode()) for i in pick)
            result[f"{'held-out' if held else 'train'} {kind}"] = dict(
                loss=round(total / count, 4), perplexity=round(math.exp(total / count), 2),
                bits_per_byte=round(total / math.log(2) / text, 4), tokens=int(count))
    print(json.dumps(result, indent=1))
    samples = []
    for prompt in SAMPLES + OPENINGS:
        ids = chat_ids(tok, prompt) if prompt in SAMPLES else tok.encode(prompt, add_special_tokens=False)
        for sampled in (False, True):
            kw = dict(do_sample=True, temperature=0.3, top_k=40, top_p=0.8) if sampled else dict(do_sample=False, temperature=None, top_k=None, top_p=None)
            got = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=500, **kw)[0][len(ids):]
            samples.append(dict(prompt=prompt, sampled=sampled, tokens=len(got), text=tok.decode(got, skip_special_tokens=True)))
            print(f"=== {prompt} [{'sampled' if sampled else 'greedy'}, {len(got)} tokens]\n{samples[-1]['text']}\n")
    (work / "evaluation.json").write_text(json.dumps(dict(losses=result, samples=samples), indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["collect", "tokenizer", "train", "export", "evaluate", "all"])
    parser.add_argument("--work", default="target/demo-model", help="corpus, tokenizer and checkpoints (not shipped)")
    parser.add_argument("--source", help="a Rust source tree; default: the newest /usr/src/rustc-*")
    parser.add_argument("--out", default=str(HERE), help="where export writes the model")
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--ema", action="store_true")
    parser.add_argument("--pid-file")
    args = parser.parse_args()
    for step in ["collect", "tokenizer", "train", "export", "evaluate"] if args.step == "all" else [args.step]:
        globals()[step](args)


if __name__ == "__main__":
    main()
