"""What went wrong in another process of the training, told by its traceback."""

from torch.multiprocessing.spawn import ProcessException

from pipelines.errors import TrainingError
from pipelines.steps.finetune.memory import WORDS

DIVERGED = "lower finetune.learning_rate, set finetune.warmup or finetune.gradient_clip; look for bad inputs in the data"
LOOK = "look at what that process has printed, and at the other machines"


def told_by(exc: ProcessException) -> Exception:
    """Our own error again, a lack of memory as torch would say it here, or one that quotes what that process said."""
    lines = str(exc).splitlines()
    at = max((n for n, line in enumerate(lines) if line and not line[0].isspace()), default=-1)
    name, _, message = lines[at].partition(": ") if lines else ("", "", "")
    name = name.rpartition(".")[2]
    rest = [line.strip().partition(":") for line in lines[at + 1 :] if line.strip()]
    said = {key: text.strip() for key, _, text in rest}
    if name == "TrainingError":
        return TrainingError(message, said.get("where", "finetune"), said.get("fix", LOOK))
    if any(word in message.lower() for word in WORDS):
        return RuntimeError(message)
    if name == "Diverged":
        return TrainingError(f"training diverged: {message}", "finetune", DIVERGED)
    return TrainingError(f"a process of the training failed: {name}: {message}".rstrip(": "), "finetune.hardware", LOOK)
