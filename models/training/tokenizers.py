"""The small model's own tokenizers, in the standard file forms: T5's Unigram and CLIP's byte-level BPE.

Both are rebuilt from the captions' words, so that training and the written files cannot differ.
"""
import json
import re
from collections import Counter

from captions import all_words, passed_over_words

T5_LENGTH = 24
CLIP_LENGTH = 77
MARK = "▁"
PAD, EOS, UNKNOWN = 0, 1, 2


class T5Tokenizer:
    """Whole words, and single characters for the rest; the most probable split (arXiv:1804.10959)."""

    def __init__(self):
        words = all_words()
        pieces = [MARK + word for word in words] + [MARK + word.capitalize() for word in words]
        pieces = list(dict.fromkeys(pieces))
        characters = [MARK] + [chr(c) for c in range(33, 127)]
        self.vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        self.vocabulary += [(p, -5.0 - 0.001 * i) for i, p in enumerate(pieces)]
        self.vocabulary += [(c, -10.0 - 0.001 * i) for i, c in enumerate(characters)]
        more = [MARK + word for word in passed_over_words()] + [MARK + word.upper() for word in words if len(word) > 1]
        self.vocabulary += [(p, -7.0 - 0.001 * i) for i, p in enumerate(more) if p not in dict(self.vocabulary)]
        self.ids = {piece: i for i, (piece, _) in enumerate(self.vocabulary) if i > UNKNOWN}
        self.scores = dict(self.vocabulary[3:])
        self.known = {}

    def word(self, word):
        """Ids of one word that begins with the mark, by Viterbi."""
        if word not in self.known:
            best = [(0.0, [])] + [None] * len(word)
            for end in range(1, len(word) + 1):
                for start in range(end):
                    piece = word[start:end]
                    if piece in self.ids:
                        score, ids = best[start][0] + self.scores[piece], best[start][1] + [self.ids[piece]]
                    elif end - start == 1:
                        score, ids = best[start][0] - 30.0, best[start][1] + [UNKNOWN]
                    else:
                        continue
                    if best[end] is None or score > best[end][0]:
                        best[end] = (score, ids)
            self.known[word] = [i for k, i in enumerate(best[-1][1])
                                if i != UNKNOWN or k == 0 or best[-1][1][k - 1] != UNKNOWN]
        return self.known[word]

    def encode(self, text):
        """-> (ids with </s>, for each word the index of the first of its tokens)"""
        ids, starts = [], []
        for word in text.split():
            starts.append(len(ids))
            ids += self.word(MARK + word)
        return ids + [EOS], starts

    def padded(self, text):
        """T5_LENGTH ids; a longer prompt loses its end, not </s>."""
        ids = self.encode(text)[0][:-1][:T5_LENGTH - 1] + [EOS]
        return ids + [PAD] * (T5_LENGTH - len(ids))

    def json(self):
        added = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                  "special": True} for i, c in enumerate(("<pad>", "</s>", "<unk>"))]
        metaspace = {"type": "Metaspace", "replacement": MARK, "add_prefix_space": True, "prepend_scheme": "always"}
        eos = {"SpecialToken": {"id": "</s>", "type_id": 0}}
        a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
                "post_processor": {"type": "TemplateProcessing", "single": [a, eos], "pair": [a, eos, b, eos],
                                   "special_tokens": {"</s>": {"id": "</s>", "ids": [EOS], "tokens": ["</s>"]}}},
                "decoder": metaspace,
                "model": {"type": "Unigram", "unk_id": UNKNOWN, "vocab": [list(v) for v in self.vocabulary],
                          "byte_fallback": False}}


def byte_characters():
    """Bytes that print stand for themselves, the others for the code points from 256 on; printable ones first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


CLIP_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)
CLIP_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Lower case, byte-level BPE with </w> at word ends; merges are learnt until every caption word is one token."""

    def __init__(self):
        self.bytes = byte_characters()
        self.merges = self.learn(self.learn([], all_words()), passed_over_words())
        pieces = list(self.bytes.values())
        pieces += [p + "</w>" for p in pieces] + ["".join(m) for m in self.merges]
        self.vocabulary = {p: i for i, p in enumerate(pieces + ["<|startoftext|>", "<|endoftext|>"])}
        self.ranks = {m: i for i, m in enumerate(self.merges)}
        self.bos, self.eos = len(self.vocabulary) - 2, len(self.vocabulary) - 1
        self.known = {}

    def symbols(self, word):
        characters = [self.bytes[b] for b in word.encode()]
        return (*characters[:-1], characters[-1] + "</w>")

    def learn(self, merges, words):
        """More merges on top of those that there are, so that each of the words becomes one token."""
        table, merges = {self.symbols(w): len(words) - i for i, w in enumerate(dict.fromkeys(words))}, list(merges)
        for pair in merges:
            table = {merged(symbols, pair): count for symbols, count in table.items()}
        while True:
            pairs = Counter()
            for symbols, count in table.items():
                for pair in zip(symbols, symbols[1:]):
                    pairs[pair] += count
            if not pairs:
                return merges
            merges.append(max(pairs, key=lambda p: (pairs[p], p)))
            table = {merged(symbols, merges[-1]): count for symbols, count in table.items()}

    def word(self, word):
        if word not in self.known:
            symbols = self.symbols(word)
            while len(symbols) > 1:
                pair = min(zip(symbols, symbols[1:]), key=lambda p: self.ranks.get(p, 1 << 30))
                if pair not in self.ranks:
                    break
                symbols = merged(symbols, pair)
            self.known[word] = [self.vocabulary[s] for s in symbols]
        return self.known[word]

    def encode(self, text):
        """Cut and padded with <|endoftext|> to 77."""
        ids = [i for word in CLIP_WORD.findall(text.lower()) for i in self.word(word)][:CLIP_LENGTH - 2]
        return [self.bos, *ids] + [self.eos] * (CLIP_LENGTH - 1 - len(ids))

    def json(self):
        def special(i, content):
            return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                    "normalized": content == "<|startoftext|>", "special": True}
        bos, eos = ["<|startoftext|>", self.bos], ["<|endoftext|>", self.eos]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        split = {"type": "Split", "pattern": {"Regex": CLIP_SPLIT}, "behavior": "Removed", "invert": True}
        space = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
        return {"version": "1.0", "truncation": None, "padding": None,
                "added_tokens": [special(self.bos, bos[0]), special(self.eos, eos[0])],
                "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, space, {"type": "Lowercase"}]},
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
                "post_processor": {"type": "RobertaProcessing", "sep": eos, "cls": bos, "trim_offsets": False,
                                   "add_prefix_space": False},
                "decoder": byte_level,
                "model": {"type": "BPE", "dropout": None, "unk_token": "<|endoftext|>",
                          "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": False,
                          "vocab": self.vocabulary, "merges": [" ".join(m) for m in self.merges]}}


def merged(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if symbols[i:i + 2] == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, indent=1)
