"""The corpus phrased as conversations, anew in every epoch."""

import json
import math
import re

from .markdown import SENTENCE
from .questions import (ABOUT_ERROR, ABOUT_ITEM, ABOUT_MODULE, ABOUT_TOPIC, ABOUT_TYPE, ABOUT_WORD, ASK_TOPIC, MORE, SYSTEM,
                        TOPICS)
from .shape import HERE

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
