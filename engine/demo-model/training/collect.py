"""Books and doc comments of a Rust source tree to corpus.json: pages and answers, some of them held out."""

import glob
import hashlib
import json
import re
from pathlib import Path

from .markdown import sections
from .rust_docs import MINOR, doc_answer, rust_docs

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


def load_corpus(args):
    return json.loads((Path(args.work) / "corpus.json").read_text())
