# Makes the small model and golden.json beside this file with the reference
# implementation of the tokenizer: pip install tokenizers numpy
import json, os, struct
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

here = os.path.dirname(os.path.abspath(__file__))
words = """the bridge lost its port disk is full error memory out of failed password for root kernel oom ##er ##s ##ing ##ed ##d ##y ##0 ##1 ##2 ##net
ovs ##br un ##plug ##able cafe uber ##ung login 1 2 10 . , : ; ! ? ( ) [ ] - _ / ' " < > = + $ % 日 本 語 a b c ##a ##b ##c e ##e eth v ##net ##if""".split()
vocab = {"[PAD]": 0, "[UNK]": 1}
for w in words:
    vocab.setdefault(w, len(vocab))
t = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=20))
t.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
t.save(os.path.join(here, "tokenizer.json"), pretty=False)

dim = 8
vectors = np.random.default_rng(1).standard_normal((len(vocab), dim)).astype(np.float16)
header = json.dumps({"embeddings": {"dtype": "F16", "shape": [len(vocab), dim], "data_offsets": [0, vectors.nbytes]}}).encode()
with open(os.path.join(here, "model.safetensors"), "wb") as f:
    f.write(struct.pack("<Q", len(header)) + header + vectors.tobytes())

golden = []
for text in ["The bridge lost its port.", "Out of memory: failed kernels", "unplugged ovsbr0 ovsbr1", "CAFÉ Über übung", "日本語 bridge", "nothing here xyz", "", "   \t\n ",
             "error[10]: (disk_full) 'root'=\"2\" <a>", "a" * 30 + " abc", "oom\u200der\x07 eth0 vnet2 vifa", "e\u0301 bridge\u00a0port", "$10% + 2 - 1/2 ; a,b;c!", "un\ufffdplugable disk\u2028full—error"]:
    ids = [i for i in t.encode(text, add_special_tokens=False).ids if i != vocab["[UNK]"]]
    v = []
    if ids:
        m = vectors[ids].astype(np.float64).mean(axis=0)
        v = [float(x) for x in m / np.linalg.norm(m)]
    golden.append({"text": text, "ids": ids, "vector": v})
with open(os.path.join(here, "golden.json"), "w") as f:
    json.dump(golden, f, ensure_ascii=True, indent=1)
    f.write("\n")
