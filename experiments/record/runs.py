"""The question that each file of rows answers, and the commands that made it."""

_LATENCY = (
    "python -m experiments compare_latency WORK --manifests MANIFEST --repeats 3 --steps 12 --seconds 14 "
    "--batch-seconds 30 2 5 --starts 2 --contenders"
)
LATENCY = (
    f"{_LATENCY} 'nemojax float32' 'nemojax int8' 'transformers float32' 'transformers bfloat16' "
    "'onnxruntime int8' 'OpenVINO bfloat16' 'sherpa-onnx int8'"
)
MORE_LATENCY = (
    f"{_LATENCY} 'nemojax float32' 'nemojax bfloat16' 'nemojax int8' 'NeMo float32' "
    "'onnxruntime float32' 'OpenVINO float32' 'sherpa-onnx float32'"
)
RUNS = {  # question and commands, by the name of the file of rows
    "small": (
        "What are the small model's error rates on held-out speech?",
        "python -m experiments evaluate nemojax/small MANIFEST... --stream",
    ),
    "word_times": (
        "How long after its sound does it emit a word?",
        "python -m experiments word_times nemojax/small MANIFEST...",
    ),
    "utterance_ends": (
        "How soon is the end of an utterance decided, and how often wrongly?",
        "python -m experiments utterance_ends nemojax/small SPEECH/dev/{grid,fsdd}.jsonl --limit 120 --lookaheads 13 1 "
        "--silence-ms 80 160 240 320 400 480 640 800 1040 1280",
    ),
    "confidence": (
        "How well does the confidence of a word tell whether it is right?",
        "python -m experiments confidence nemojax/small SPEECH/dev/{grid,fsdd,ljspeech}.jsonl --limit 40",
    ),
    "conditions": (
        "What do pauses, noise, levels and telephone lines cost it?",
        "experiments/recipes/conditions.sh SPEECH OUT MODEL...",
    ),
    "search_accuracy": (
        "What do a beam, a language model and a list of key words change?",
        "experiments/recipes/search.sh SPEECH OUT",
    ),
    "compare_references": (
        "Do NeMo and transformers give the same labels with its weights?",
        "python -m experiments compare_references nemojax/small MANIFEST...",
    ),
    "ablations": ("On what does its accuracy depend?", "experiments/recipes/ablations.sh SPEECH OUT"),
    "caches": (
        "What do bfloat16 and caches of int8 cost it?",
        "python -m experiments compare_accuracy nemojax/small SPEECH/dev/{grid,fsdd,librispeech_clean}.jsonl --limit "
        "120 --conditions lookahead=13 lookahead=13,dtype=bfloat16 lookahead=13,cache=int8 "
        "lookahead=13,dtype=bfloat16,cache=int8, and the same at lookahead=0",
    ),
    "fine_tune": ("What does fine-tuning on a new speaker gain?", "experiments/recipes/fine_tune.sh SPEECH OUT"),
    "compare_latency": ("How long does a step take, here and in the peers?", LATENCY),
    "compare_latency_more": ("How long in NeMo, in bfloat16, and in float32 graphs?", MORE_LATENCY),
    "compare_latency_amx": ("How long does a step take on a processor with AMX?", LATENCY),
    "compare_latency_amx_more": ("How long there in NeMo, in bfloat16, and in float32 graphs?", MORE_LATENCY),
    "cost_growth": (
        "How does a step's cost grow?",
        "python -m experiments cost_growth --dtype int8 --repeats 2",
    ),
    "benchmark_streams": (
        "How many live streams do two cores serve?",
        "python -m experiments benchmark_streams nemojax/small MANIFEST --lookaheads 6 0 --dtype float32 --seconds 10",
        "python -m experiments benchmark_streams WORK/int8 MANIFEST --lookaheads 13 6 1 --dtype int8 --first 2 "
        "--most 64 --voices 4 --seconds 10",
    ),
    "engine_overhead": (
        "How many chunks a second does the engine's own work allow?",
        "python -m experiments engine_overhead",
    ),
    "search_cost": (
        "What does a beam search cost, beside greedy search?",
        "python -m experiments search_cost --widths 1 4 8 --lookaheads 13 --repeats 9",
        "python -m experiments search_cost WORK/int8 --dtype int8 --widths 4 8 --streams 1 --lookaheads 13 --repeats 5",
    ),
    "fusion_cost": (
        "What do a language model and phrases cost in greedy search?",
        "python -m experiments fusion_cost --repeats 9",
        "python -m experiments fusion_cost WORK/int8 --dtype int8 --streams 1 --phrases 1000 --repeats 7",
    ),
    "compare_versions": (
        "How long does a step of many streams take, before the caches were rings and after?",
        "python -m experiments compare_versions before=WORKTREE after=. --repeats 3 --steps 3",
    ),
    "capacity": ("How many live streams does a card hold?", "python -m experiments capacity"),
    "roofline": ("How long must a step take at least on a GPU?", "python -m experiments roofline"),
    "gpu": ("How long does a step take on a GPU?", "python -m experiments gpu"),
    "benchmark_loss": (
        "What does the loss cost, against other ways to compute it?",
        "python -m experiments benchmark_loss --sizes medium",
    ),
    "benchmark_data": (
        "Does the data pipeline keep up with training?",
        "python -m experiments benchmark_data MANIFEST...",
    ),
}
