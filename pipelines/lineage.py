"""Every tag, metric, parameter and artifact name that we write, in one place."""

# run tags
KIND = "compression.kind"  # parent | baseline | candidate
SOURCE = "compression.source"
SOURCE_MODEL_ID = "compression.source_model_id"
DATASET_DIGEST = "compression.dataset_digest"
WORK_KEY = "compression.key"
FLOW_RUN_ID = "prefect.flow_run_id"
FAILURE = "compression.failure"
GATE = "compression.gate"  # why a candidate did not pass

# version tags: five, and short, because the versions table of the MLflow UI cuts long ones
TAG_SOURCE = "source"
TAG_METHOD = "method"
TAG_RATIO = "ratio"
TAG_ACCURACY = "accuracy"
TAG_SPEEDUP = "speedup"
TAG_REJECTED = "rejected"  # only where a recipe registers what failed the gate: why it failed

# promotions: on versions, and on the runs that hold the ledger
TAG_PROMOTION = "promotion"  # short: what was decided last, and when
TAG_DECISIONS = "promotion.decisions"  # all decisions about this version, JSON
TAG_COPIED_FROM = "copied_from"  # a version that came from another registry: that registry and the version there
LEDGER_OF = "promotion.ledger_of"
LEDGER_INDEX = "promotion.index"

# metrics: the baseline and every candidate use the same names, so that MLflow can compare them
ACCURACY = "accuracy"  # test split, after fine-tuning
ACCURACY_DROP = "accuracy_drop"
ACCURACY_CUT = "accuracy_after_cut"  # test split, nothing mended yet
ACCURACY_PRUNED = "accuracy_after_pruning"  # test split, compensated, before fine-tuning
VAL_ACCURACY = "val_accuracy"  # what the gate looks at
VAL_ACCURACY_PRUNED = "val_accuracy_after_pruning"
LATENCY_P50 = "latency_p50_ms"
LATENCY_P95 = "latency_p95_ms"
LATENCY_PREDICTED = "latency_predicted_ms"  # by the table, of those that were given a latency to meet
SPEEDUP_PREDICTED = "speedup_predicted"
PARAMS = "params"
MACS = "macs"
SIZE = "size_bytes"
PARAMS_FACTOR = "params_factor"
MACS_FACTOR = "macs_factor"
SIZE_FACTOR = "size_factor"
SPEEDUP = "speedup"
TRAIN_LOSS = "train_loss"  # per epoch
EPOCH_VAL_ACCURACY = "epoch_val_accuracy"  # per epoch

# artifacts
PLAN_FILE = "plan.json"
REPAIRS_FILE = "compensation.json"  # layer by layer: rows, ridge, error of the answers before and after
CONFIG_FILE = "config.yaml"
COMPARISON_CSV = "comparison.csv"
COMPARISON_TABLE = "comparison_table.json"
COMPARISON_JSON = "comparison.json"
PLOT_FILE = "accuracy_latency.png"
LATENCY_SAMPLES = "latency_samples_ms.json"

# what is stored with a model, beside MLflow's own files
WEIGHTS_FILE = "weights.safetensors"
ARCHITECTURE_KEY = "architecture"  # in the model's metadata: factory, kwargs, plans
