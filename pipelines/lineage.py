"""Every tag, metric, parameter and artifact name that we write, in one place."""

# run tags
KIND = "compression.kind"  # parent | baseline | candidate
SOURCE = "compression.source"
SOURCE_MODEL_ID = "compression.source_model_id"
DATASET_DIGEST = "compression.dataset_digest"
WORK_KEY = "compression.key"
FLOW_RUN_ID = "prefect.flow_run_id"
FAILURE = "compression.failure"
EXPORT_NOTES = "compression.export_notes"  # forms that could not be made, and why

# version tags: five, and short, because the versions table of the MLflow UI cuts long ones
TAG_SOURCE = "source"
TAG_METHOD = "method"
TAG_RATIO = "ratio"
TAG_ACCURACY = "accuracy"
TAG_SPEEDUP = "speedup"

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
FORM_SIZE = "{}_size_bytes"  # of each further form of a version: onnx, int8
FORM_ERROR = "{}_error"  # against the module, on real inputs, relative to the largest answer
FORM_ACCURACY = "{}_accuracy"  # test split; of forms that answer differently by design
FORM_VAL_ACCURACY = "{}_val_accuracy"

# artifacts
PLAN_FILE = "plan.json"
REPAIRS_FILE = "compensation.json"  # layer by layer: rows, ridge, error of the answers before and after
CONFIG_FILE = "config.yaml"
COMPARISON_CSV = "comparison.csv"
COMPARISON_TABLE = "comparison_table.json"
COMPARISON_JSON = "comparison.json"
PLOT_FILE = "accuracy_latency.png"
EXPORT_FILE = "export.json"  # every form of the version: size, error, accuracy, where it is
LATENCY_SAMPLES = "latency_samples_ms.json"

# what is stored with a model, beside MLflow's own files
WEIGHTS_FILE = "weights.safetensors"
ARCHITECTURE_KEY = "architecture"  # in the model's metadata: factory and kwargs, or program; plans
DIGESTS_KEY = "digests"  # in the model's metadata: SHA-256 of each file
SEAL = "secateur.seal"  # tag of the logged model: one digest of those
