"""Markdown to plain text: paragraphs, headings, lists and short examples, without what only a browser shows."""

import re

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
