"""Mammoth (tag neurips2020) on class-incremental split MNIST, as its own training loop runs it.
usage: mammoth.py METHOD(er|derpp) BATCH SEED   (MAMMOTH: a checkout; MNIST_ROOT: as for torchvision)
Its evaluations are not counted as training. Prints one JSON line."""
import time; T0 = time.perf_counter()
import json, os, resource, sys, tempfile
method, batch, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
home = os.path.abspath(os.environ["MAMMOTH"])
mnist = os.path.join(os.path.abspath(os.environ["MNIST_ROOT"]), "MNIST")
sys.path[:0] = [home]
work = tempfile.mkdtemp()
os.chdir(work)
# It lists its own folders from where it stands, and writes below it.
for name in ("models", "datasets", "backbone", "utils"):
    os.symlink(os.path.join(home, name), name)
# It looks for the dataset in ./data/MNIST/<name of its class>/raw.
os.makedirs("data/MNIST")
for name in ("MyMNIST", "MNIST"):
    os.symlink(mnist, os.path.join("data/MNIST", name))
# It imports every model, GEM among them, which is not run here and alone needs this.
sys.modules.setdefault("quadprog", type(sys)("quadprog"))
import torch; torch.set_num_threads(int(os.environ.get("THREADS", "2")))
import utils.training as training
from datasets import get_dataset
from importlib import import_module
from models import get_model
from utils.conf import set_random_seed
steps = {"er": ["--lr", "0.1"], "derpp": ["--lr", "0.1", "--alpha", "1.0", "--beta", "0.5"]}[method]
parser = import_module("models." + method).get_parser()
args = parser.parse_args(["--model", method, "--dataset", "seq-mnist", "--buffer_size", "200", "--batch_size", str(batch),
                          "--minibatch_size", str(batch), "--n_epochs", "1", "--seed", str(seed)] + steps)
set_random_seed(seed)
dataset = get_dataset(args)
model = get_model(args, dataset.get_backbone(), dataset.get_loss(), dataset.get_transform())
evaluating, accuracies, count = 0.0, [], 0
evaluate, observe = training.evaluate, model.observe
def timed_evaluate(*a, **k):
    global evaluating, accuracies
    t = time.perf_counter()
    result = evaluate(*a, **k)
    evaluating += time.perf_counter() - t
    accuracies = result[0]
    return result
def counted_observe(*a, **k):
    global count
    count += 1
    return observe(*a, **k)
training.evaluate, model.observe = timed_evaluate, counted_observe
t = time.perf_counter()
silent, sys.stdout = sys.stdout, open(os.devnull, "w")
training.train(model, dataset, args)
sys.stdout = silent
train = time.perf_counter() - t - evaluating
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps(dict(sys="mammoth", method=method, batch=batch, seed=seed, iters=count, train_s=round(train, 3),
    it_s=round(count / train, 1), e2e_s=round(time.perf_counter() - T0, 3),
    avg_acc=round(sum(accuracies) / len(accuracies), 2), rss_mb=round(usage.ru_maxrss / 1024))))
