"""Hugging Face's own tokenizers library, for tests that hold this project to it. Reads and writes JSON.

    make FOLDER SIZE   from texts, trains tokenizers of every form that is read here; writes FOLDER/FORM.json
    run FILE...        from {"texts", "ids"}, what each tokenizer.json makes of them: {"ids", "texts", "decoded"} by file,
                       where "texts" is what the texts' ids decode to and "decoded" the given ids
"""

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT4_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(texts, size, pre_tokenizer, **options):
    """Vocabulary in the order of its ids, and merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(merge) for merge in model["merges"]]


def begin_with(tokenizer, token):
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, tokenizer.token_to_id(token))]
    )


def byte_level_tokenizers(texts, size):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens, merges = train(texts, size - len(special), words, initial_alphabet=alphabet)
    vocab = {token: i for i, token in enumerate(special + tokens)}

    def make(pre_tokenizer, normalizer=None, **options):
        tokenizer = Tokenizer(models.BPE(vocab, merges, **options))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(special)
        return tokenizer

    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt4 = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4_WORDS), "isolated"), bytes_only])
    numbers = pre_tokenizers.Sequence([pre_tokenizers.Digits(), bytes_only])
    kept = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4_WORDS), "removed", invert=True), bytes_only])
    yield "smollm", make(pre_tokenizers.Sequence([digits, words]))
    yield "gpt2", make(pre_tokenizers.ByteLevel(add_prefix_space=True))
    llama3 = make(gpt4, ignore_merges=True)
    llama3.post_processor = processors.Sequence([processors.ByteLevel(), begin_with(llama3, "<|im_start|>")])
    yield "llama3", llama3
    qwen2 = make(gpt4, normalizers.NFC())
    qwen2.add_tokens([AddedToken("é", normalized=True), AddedToken("FROM t", normalized=False)])
    yield "qwen2", qwen2
    yield "digits", make(numbers, normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("a", "$&")]))
    yield "kept", make(kept, normalizers.Replace(Regex(r"\s+"), " "))


def sentence_piece_tokenizers(texts, size):
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = pre_tokenizers.Metaspace()
    tokens, merges = train(texts, size - len(special) - len(bytes_), words, limit_alphabet=80)
    vocab = {token: i for i, token in enumerate(special + bytes_ + tokens)}
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]

    def make(normalizer, pre_tokenizer, decoder):
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoder
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
        tokenizer.post_processor = begin_with(tokenizer, "<s>")
        return tokenizer

    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    first = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    never = pre_tokenizers.Metaspace(prepend_scheme="never")
    yield "llama2", make(normalizers.Sequence(spaces), None, decoders.Sequence(strip))
    yield "llama2_first", make(None, first, decoders.Sequence(strip))
    yield "metaspace", make(None, words, decoders.Metaspace())
    yield "metaspace_never", make(None, never, decoders.Metaspace(prepend_scheme="never"))
    yield "gemma", make(normalizers.Replace(" ", "▁"), None, decoders.Sequence(strip[:3]))


def make(folder, size, texts):
    for family in (byte_level_tokenizers, sentence_piece_tokenizers):
        for name, tokenizer in family(texts, size):
            tokenizer.save(str(Path(folder) / f"{name}.json"), pretty=False)


def run(path, given):
    tokenizer = Tokenizer.from_file(path)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(given["texts"])]
    return {"ids": ids, "texts": tokenizer.decode_batch(ids), "decoded": tokenizer.decode_batch(given["ids"])}


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    given = json.load(sys.stdin)
    if command == "make":
        make(arguments[0], int(arguments[1]), given)
    else:
        json.dump({path: run(path, given) for path in arguments}, sys.stdout)
