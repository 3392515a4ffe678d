"""Text: Bibles, verse beside verse, and tokenisers that turn text into ids and back.

bible          the King James Bible and the Reina-Valera of 1909, with whole books held out
byte_values    a tokeniser without a vocabulary: one id per byte
world_english  eight books in modern English, a paraphrase verse by verse
words          words and punctuation marks, Shazeer et al. 2017
byte_pairs     byte-level byte-pair encoding, GPT-2
hugging_face   a tokenizer.json through the library `tokenizers`
tokenisers     what they have in common: by name, to and from JSON
    entrance       the checks that they share
"""
