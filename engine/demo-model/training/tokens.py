"""The tokenizer, and conversations and pages as rows of its tokens."""

import json
from pathlib import Path

from .collect import load_corpus
from .questions import ABOUT_ITEM, ABOUT_TOPIC, ABOUT_TYPE, ABOUT_WORD, ASK_TOPIC
from .shape import HERE, SPECIALS, VOCAB

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


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
