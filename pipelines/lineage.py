"""Every tag, metric, parameter and artifact name that we write, in one place."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.records import Condition

# run tags
KIND = "compression.kind"  # parent | baseline | candidate
SOURCE = "compression.source"
SOURCE_MODEL_ID = "compression.source_model_id"
DATASET_DIGEST = "compression.dataset_digest"
WORK_KEY = "compression.key"
WORK_PLACE = "compression.place"  # machine and folder: one process at a time works there
ALIVE = "compression.alive"  # seconds since 1970: the last sign of life of a parent run
FLOW_RUN_ID = "prefect.flow_run_id"
FAILURE = "compression.failure"
GATE = "compression.gate"  # passed, or why a candidate did not; `source` on the baseline
WEIGHTS_DIGEST = "compression.weights_digest"  # of the weights that were evaluated, timed and registered
PRUNING_NOTES = "compression.pruning_notes"  # what the engine did in another way than asked
EXPORT_NOTES = "compression.export_notes"  # forms that could not be made, and why

# version tags: five, and short, because the versions table of the MLflow UI cuts long ones
TAG_SOURCE = "source"
TAG_METHOD = "method"
TAG_RATIO = "ratio"
# and the primary metric, under its own name
TAG_SPEEDUP = "speedup"
TAG_REJECTED = "rejected"  # only where a recipe registers what failed the gate: why it failed

# promotions: on versions, and on the runs that hold the ledger
TAG_PROMOTION = "promotion"  # short: what was decided last, and when
TAG_DECISIONS = "promotion.decisions"  # all decisions about this version, JSON
TAG_COPIED_FROM = "copied_from"  # a version that came from another registry: that registry and the version there
LEDGER_OF = "promotion.ledger_of"
WORK_OF = "compression.work_of"  # on the run that holds who does which work on a registered model
LEDGER_INDEX = "promotion.index"

# metrics: the baseline and every candidate use the same names, so that MLflow can compare them
# the task's metrics have their own names: `accuracy` is of the test split, after fine-tuning
DROP = "{}_drop"  # against the source on the same samples, positive where worse; also _low and _high
AFTER_CUT = "{}_after_cut"  # nothing mended yet
AFTER_COMPENSATION = "{}_after_compensation"  # where BatchNorm statistics were taken anew after that
AFTER_PRUNING = "{}_after_pruning"  # mended, before fine-tuning
DROP_P_VALUE = "{}_drop_p_value"
AGREEMENT = "agreement"  # share of predictions equal to the source's
KL = "kl_from_source"
LATENCY_P50 = "latency_p50_ms"
LATENCY_P90 = "latency_p90_ms"
LATENCY_P99 = "latency_p99_ms"
THROUGHPUT = "throughput"  # samples per second
LATENCY_PREDICTED = "latency_predicted_ms"  # by the table, of those that were given a latency to meet
SPEEDUP_PREDICTED = "speedup_predicted"
PARAMS = "params"
MACS = "macs"
SIZE = "size_bytes"
PARAMS_FACTOR = "params_factor"
MACS_FACTOR = "macs_factor"
SIZE_FACTOR = "size_factor"
SPEEDUP = "speedup"
SPEEDUP_LOW = "speedup_low"  # of its confidence interval
SPEEDUP_HIGH = "speedup_high"
IS_NOISY = "latency_is_noisy"  # 1: it is open whether this model is faster than another one
ACTIVATIONS = "activation_bytes"
PEAK_MEMORY = "peak_memory_bytes"
ENERGY = "energy_mj"  # of one call
TRAIN_LOSS = "train_loss"  # per epoch
EPOCH_VAL = "epoch_val_"  # per epoch, followed by the name of the task's primary metric
LEARNING_RATE = "learning_rate"  # at the end of each epoch
EPOCH_SECONDS = "epoch_seconds"
OPTIMIZER_STEPS = "optimizer_steps"  # since the training began
FORM_SIZE = "{}_size_bytes"  # of each further form of a version: onnx, int8
FORM_ERROR = "{}_error"  # against the module, on real inputs, relative to the largest answer
FORM_METRIC = "{}_{}"  # the primary metric, test split; of forms that answer differently by design

# artifacts
PLAN_FILE = "plan.json"
REPAIRS_FILE = "compensation.json"  # layer by layer: rows, ridge, error of the answers before and after
CONFIG_FILE = "config.yaml"
COMPARISON_CSV = "comparison.csv"
COMPARISON_TABLE = "comparison_table.json"
COMPARISON_JSON = "comparison.json"
PLOT_FILE = "accuracy_latency.png"
REPORT_FILE = "report.html"  # needs no server and no network
EXPORT_FILE = "export.json"  # every form of the version: size, error, accuracy, where it is
LATENCY_SAMPLES = "latency_samples_ms.json"
LATENCY_CSV = "latency.csv"  # a line per engine, batch size and number of threads
LAYERS_CSV = "layers.csv"  # width, parameters and MACs of each layer
METRICS_JSON = "evaluation.json"  # both splits: every metric, interval and test
PER_CLASS_CSV = "per_class.csv"  # test split
CONFUSION_FILE = "confusion.png"  # test split

# what is stored with a model, beside MLflow's own files
WEIGHTS_FILE = "weights.safetensors"
ARCHITECTURE_KEY = "architecture"  # in the model's metadata: factory and kwargs, or program; plans
DIGESTS_KEY = "digests"  # in the model's metadata: SHA-256 of each file
SEAL = "secateur.seal"  # tag of the logged model: one digest of those


def of_validation(metric: str) -> str:
    """A metric's name for the validation split, which the gate looks at."""
    return f"val_{metric}"


def condition_name(condition: "Condition") -> str:
    """What stands behind the slash in `latency_p50_ms/compile-cpu-batch64-threads1`."""
    return f"{condition.engine}-{condition.device}-batch{condition.batch_size}-threads{condition.threads}"
