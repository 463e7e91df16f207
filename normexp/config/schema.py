"""The schema of conf/: typed dataclasses, and what cannot change the result of a run.

Hydra merges the YAML files and the command line over these classes, so a misspelt key or a wrong
type is refused while composing; normexp/config/checks.py refuses what only shows then. Neither
imports torch: configuration errors answer at once.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING

from normexp.config.keys import FRACTION, SEED, key, keys, read_by


class Architecture(str, Enum):
    cnn = "cnn"
    mlp = "mlp"
    resnet18 = "resnet18"
    resnet20 = "resnet20"
    named = "named"


class Stem(str, Enum):
    cifar = "cifar"
    imagenet = "imagenet"


class Freeze(str, Enum):
    none = "none"
    backbone = "backbone"


class Head(str, Enum):
    flatten = "flatten"
    average = "average"


class Order(str, Enum):
    conv_norm_relu = "conv_norm_relu"
    conv_relu_norm = "conv_relu_norm"


class DataName(str, Enum):
    cifar10 = "cifar10"
    cifar100 = "cifar100"
    digits = "digits"
    image_folder = "image_folder"
    synthetic = "synthetic"


CIFAR = (DataName.cifar10, DataName.cifar100)


def side(name: str, image_size: int) -> int:
    """Pixels on a side of the images of a data set; those of CIFAR are what they are."""
    return 32 if name in CIFAR else image_size


class OptimizerName(str, Enum):
    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


class LrRule(str, Enum):
    none = "none"
    linear = "linear"
    sqrt = "sqrt"


class SchedulerName(str, Enum):
    constant = "constant"
    step = "step"
    cosine = "cosine"
    one_cycle = "one_cycle"


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(str, Enum):
    fp32 = "fp32"
    bf16 = "bf16"


class Checkpoint(str, Enum):
    best = "best"
    last = "last"


class OnError(str, Enum):
    go_on = "go_on"
    stop = "stop"


class Measure(str, Enum):
    test_acc = "test_acc"
    test_error = "test_error"
    val_acc = "val_acc"
    train_loss = "train_loss"


@dataclass
class ModelConfig:
    name: str = MISSING
    """What the network is called in run names and tables; model= chooses one: of conf/model,
    `torchvision:NAME`, `timm:NAME`, or `module:function` for one of your own."""
    architecture: Architecture = MISSING
    """`cnn`: 3x3 convolutions, each with norm and ReLU, then linear layers without norms;
    `mlp`: linear layers, each with norm and ReLU, then a linear classifier;
    `resnet18`: torchvision's; `resnet20`: the CIFAR ResNet of He et al. 2015; `named`: what the
    name says."""
    args: Any = key(None, was=None, read_by=("architecture", "named"))
    """What else the network takes, such as {image_size: 32, patch_size: 4} (named)."""
    weights: Optional[str] = key(None, identity=False, read_by=("architecture", "named"))
    """A file of weights to begin with, safetensors or a state dict: what fits is kept (named)."""
    channels: list[int] = key(list, above=0, most=2**20, read_by=("architecture", "cnn"))
    """Output channels of each 3x3 convolution (cnn)."""
    pool_after: list[int] = key(list, read_by=("architecture", "cnn"))
    """After which convolutions, counted from 1, a 2x2 max pool stands (cnn)."""
    norm_from: int = key(1, was=1, above=0, read_by=("architecture", "cnn"))
    """The first convolution, counted from 1, that has a norm; those before have none (cnn)."""
    order: Order = key(Order.conv_norm_relu, was="conv_norm_relu", read_by=("architecture", "cnn"))
    """Whether a norm stands before or after the ReLU (cnn)."""
    head: Head = key(Head.flatten, was="flatten", read_by=("architecture", "cnn"))
    """`flatten`: what follows sees every position; `average`: the mean over them (cnn)."""
    hidden: list[int] = key(list, above=0, most=2**20, read_by=("architecture", "cnn", "mlp"))
    """Widths of the hidden linear layers (cnn, mlp)."""
    bias: bool = key(True, read_by=("architecture", "cnn", "mlp"))
    """Whether layers before a norm have a bias; the same for every norm (cnn, mlp)."""
    stem: Stem = key(Stem.cifar, was="cifar", read_by=("architecture", "resnet18"))
    """`cifar`: a 3x3 convolution of stride 1; `imagenet`: 7x7 of stride 2 and a pool (resnet18)."""
    pretrained: bool = key(False, was=False, read_by=("architecture", "resnet18", "named"))
    """Begin with torchvision's or timm's own weights: what fits is kept, not the classifier
    (resnet18 with bn; named)."""
    freeze: Freeze = key(Freeze.none, was="none")
    """`backbone`: train nothing but the layers that take their size from the number of classes;
    statistics of norms go on all the same."""


@dataclass
class NormConfig:
    # Which norms read a key is written with the facts of each norm, in normexp/norms.
    name: str = MISSING
    """Of the catalogue, or `module:function` for one of your own; norm= chooses it."""
    num_groups: Any = None
    """Groups of channels that share statistics, or `auto`: the largest number up to 32 that divides
    a layer's channels, or a list with one for each norm of the network, such as [4,8]; or give
    channels_per_group."""
    channels_per_group: Optional[int] = key(None, above=0)
    """Channels in one group; or give num_groups."""
    eps: float = key(1e-5, above=0)
    """Added to the variance; one value for all norms unless asked."""
    affine: bool = True
    """One scale and one shift a channel, learned."""
    momentum: float = key(0.1, above=0, most=1)
    """Weight of the new batch in running averages (torch's convention)."""
    weight_standardization: bool = False
    """Standardize the weights of convolutions (cnn, with any norm but none)."""
    ghost_batch_size: int = key(32, above=0)
    """Images that share statistics within a batch."""
    rmax: float = key(3.0, least=1)
    """How far the scale may be corrected, from 1/rmax to rmax times."""
    dmax: float = key(5.0, least=0)
    """How far the mean may be corrected, in standard deviations."""
    renorm_from: float = key(0.04, least=0, most=1)
    """Fraction of training until which nothing is corrected."""
    rmax_at: float = 0.3
    """Fraction of training at which rmax is reached."""
    dmax_at: float = 0.2
    """Fraction of training at which dmax is reached."""
    alpha_init: float = key(0.5, above=0)
    """What the learned factor before tanh or erf begins with."""
    freeze_at: Optional[float] = key(None, was=None, above=0, below=1)
    """Fraction of training from which running averages stand still and are used in training too;
    without it they are those of pretrained weights from the beginning."""


@dataclass
class DataConfig:
    name: DataName = MISSING
    """Where the images come from; data= chooses it."""
    root: str = key("data", identity=False)
    """Where the images lie (cifar10, cifar100, image_folder)."""
    url: Optional[str] = key(None, identity=False, read_by=("name", "cifar10", "cifar100"))
    """Another address for cifar-10-python.tar.gz or cifar-100-python.tar.gz (cifar10,
    cifar100)."""
    download: bool = key(True, identity=False)
    """Fetch what is missing (cifar10, cifar100)."""
    verify: bool = key(True, identity=False)
    """Demand the official checksums; false accepts a re-encoded copy (cifar10, cifar100)."""
    cache: Optional[str] = key(None, identity=False, read_by=("name", "image_folder"))
    """Where packed images are kept (image_folder); by default a folder of the user's cache."""
    train_folder: str = key("train", read_by=("name", "image_folder"))
    """The folder of training images below root (image_folder)."""
    test_folder: str = key("test", read_by=("name", "image_folder"))
    """The folder of test images below root (image_folder)."""
    val_folder: Optional[str] = key(None, was=None, read_by=("name", "image_folder"))
    """The folder of validation images, in the place of val_fraction (image_folder): by default one
    of val, valid, validation, dev; `none` for none of them."""
    test_fraction: Optional[float] = key(
        None, was=None, above=0, below=1, read_by=("name", "image_folder")
    )
    """Share of each class set aside for the test where there is no test folder (image_folder); by
    default 0.2 where the class folders lie in root itself."""
    image_size: int = key(
        32, above=0, most=4096, read_by=("name", "digits", "image_folder", "synthetic")
    )
    """Images become squares of this many pixels (digits, image_folder, synthetic)."""
    seed: int = key(0, **SEED, read_by=("name", "synthetic"))
    """What synthetic images are made from (synthetic)."""
    train_images: int = key(10000, above=0, read_by=("name", "synthetic"))
    """How many training images to make (synthetic)."""
    test_images: int = key(2000, above=0, read_by=("name", "synthetic"))
    """How many test images to make (synthetic)."""
    val_fraction: float = key(0.1, **FRACTION)
    """Share of the training images kept for validation; 0 for none."""
    split_seed: int = key(0, **SEED)
    """What splits and the subset are drawn from; the same for all runs of a comparison."""
    train_size: Optional[int] = key(None, above=0)
    """Train on a fixed, class-balanced subset of this many images."""
    test_size: Optional[int] = key(None, was=None, above=0)
    """Test on a fixed, class-balanced subset of this many images."""
    flip: bool = True
    """Mirror training images at random."""
    crop_padding: int = key(4, least=0, most=512)
    """Crop training images at random after zero-padding by this many pixels; 0 for none."""
    resized_crop: Optional[list[float]] = key(None, was=None)
    """Crop training images at random to a share of their area in this range, such as [0.08,1], with
    sides at most 3:4, and resize the crop to the whole; null for none."""
    rotation: float = key(0.0, was=0.0, least=0, most=180)
    """Turn training images at random by up to this many degrees either way."""
    normalize: bool = True
    """Subtract the mean and divide by the std of each colour channel; false leaves 0..1."""
    mean: Optional[list[float]] = key(None, was=None, length=3, least=0, most=1)
    """Of the colour channels, on the scale 0..1, as pretrained weights want it; by default that of
    the training images."""
    std: Optional[list[float]] = key(None, was=None, length=3, above=0, most=1)
    """Of the colour channels, on the scale 0..1; by default that of the training images."""


@dataclass
class OptimizerConfig:
    name: OptimizerName = MISSING
    """The rule of a step; optimizer= chooses it."""
    lr: float = key(above=0)
    """Learning rate at the reference batch."""
    weight_decay: float = key(0.0, least=0)
    """Decay of weights; norms' parameters and biases are left alone, but for decay_norms."""
    head_lr_factor: float = key(1.0, was=1.0, above=0)
    """Factor of the learning rate of the layers that take their size from the number of classes."""
    decay_norms: bool = key(False, was=False)
    """Decay norms' parameters and biases too, as He et al. (2015) and most early code do."""
    betas: list[float] = key(
        lambda: [0.9, 0.999], length=2, **FRACTION, read_by=("name", "adam", "adamw")
    )
    """Decay rates of the moments (adam, adamw)."""
    eps: float = key(1e-8, above=0, read_by=("name", "adam", "adamw"))
    """Added to the denominator (adam, adamw)."""
    momentum: float = key(0.9, **FRACTION, read_by=("name", "sgd"))
    """Momentum (sgd)."""
    nesterov: bool = key(False, read_by=("name", "sgd"))
    """Nesterov momentum (sgd)."""
    lr_rule: LrRule = LrRule.none
    """How the rate follows the batch size B: none, linear (B/reference), sqrt."""
    reference_batch: int = key(32, above=0, read_by=("lr_rule", "linear", "sqrt"))
    """The batch size at which the rate is `lr` (linear, sqrt)."""


@dataclass
class SchedulerConfig:
    name: SchedulerName = MISSING
    """How the rate goes on over training; scheduler= chooses it."""
    warmup: float = key(0.0, **FRACTION)
    """Fraction of training over which the rate rises."""
    warmup_start: float = key(0.0, least=0, most=1)
    """Factor of the rate at the start of the rise."""
    milestones: list[float] = key(list, read_by=("name", "step"))
    """Fractions of training at which the rate is multiplied by gamma (step)."""
    gamma: float = key(0.1, above=0, read_by=("name", "step"))
    """What the rate is multiplied by at each milestone (step)."""
    final: float = key(0.0, least=0, read_by=("name", "cosine", "one_cycle"))
    """Factor of the rate at the end (cosine, one_cycle)."""


@dataclass
class EvaluateConfig:
    batch_size: int = key(128, above=0, identity=False)
    """Images at a time in validation and test; does not change results where bn_stats=running."""
    checkpoint: Checkpoint = Checkpoint.best
    """Which weights meet the test set: best on validation, or last."""
    bn_stats: Any = key(lambda: ["running"], was=["running"])
    """Statistics that norms with running averages (bn and its relatives) use in evaluation:
    `running` averages, `precise` ones of training images, those of the evaluation `batch`; of a
    list the first gives the run's accuracies, the others are recorded beside them."""
    precise_samples: int = key(10000, above=0, was=10000)
    """Training images, augmented as in training, behind precise statistics."""


@dataclass
class LogConfig:
    every: int = key(100, above=0)
    """Steps in a reporting interval: loss and accuracy are read from the device once in each."""
    progress: bool = True
    """A progress bar, on terminals only."""
    quiet: bool = key(False, identity=False)
    """Nothing on the screen but what goes wrong; train.log has all."""
    tensorboard: bool = True
    """Write event files for TensorBoard."""
    histograms: bool = False
    """Histograms of weights and gradients each epoch."""
    images: int = key(0, least=0)
    """How many images of the first batch to log as the network sees them."""


@dataclass
class ReportConfig:
    time: bool = True
    """At the end of a sweep of some length, time each cell's network by itself, in turn, for the
    costs in the report; it takes a tenth of the sweep's time at most."""


@dataclass
class PublishedFigure:
    what: Measure = MISSING
    """Which figure of result.json it stands beside; `test_error` is 1 - test_acc."""
    value: float = MISSING
    """Accuracies and errors as fractions 0..1."""
    source: str = MISSING
    """Who published it, and how it was measured."""
    where: dict[str, str] = field(default_factory=dict)
    """Of which runs: settings such as `norm: bn`, `batch_size: 2`."""


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    log: LogConfig = key(LogConfig, identity=False)
    report: ReportConfig = key(ReportConfig, identity=False)
    name: str = key("default", identity=False)
    """Runs are kept in <output>/<name>/<run_id>."""
    output: str = key("outputs", identity=False)
    """The folder of all runs."""
    batch_size: int = key(64, above=0)
    """Images that pass the network at a time: what norms with batch statistics see."""
    accumulate_steps: int = key(1, above=0, was=1)
    """Batches in a step: the optimizer steps on their mean gradient, once for batch_size times
    accumulate_steps images. Steps and learning-rate rules go by these, running averages by
    batches."""
    epochs: Optional[int] = key(10, above=0, most=10**6)
    """How often training passes through the training images."""
    max_steps: Optional[int] = key(None, above=0, most=10**9)
    """Train this many steps instead of a number of epochs."""
    seed: int = key(0, **SEED)
    """Sets the initial weights, the order of the images and their augmentation, each on its own."""
    seeds: Any = key(None, identity=False)
    """Instead of one seed a list of them, or how many (8 is 0 to 7): each a run of its own."""
    rates: Any = key(None, identity=False)
    """Instead of one optimizer.lr a list of them, each with every seed: a run of its own."""
    fuse: str = key("auto", identity=False)
    """How many runs (of seeds and rates) to train as one network of grouped layers: auto measures
    what is fastest and fits memory; a number; 1 trains them in turn."""
    label_smoothing: float = key(0.0, **FRACTION)
    """Share of the target that is spread over all classes."""
    grad_clip: Optional[float] = key(None, above=0)
    """Largest norm of the gradient."""
    precision: Precision = Precision.fp32
    """Of the arithmetic, fp32 or bf16; weights and statistics of norms stay fp32."""
    device: Device = key(Device.auto, identity=False)
    """Where to train; auto takes a GPU where there is one."""
    threads: Optional[int] = key(None, above=0, most=512, identity=False)
    """CPU threads; by default torch's choice."""
    channels_last: bool = key(True, identity=False)
    """Memory layout of images in convolutions; a matter of speed."""
    compile: bool = key(False, identity=False)
    """Compile the training step of the network (torch.compile)."""
    deterministic: bool = key(False, identity=False)
    """Refuse operations that are not repeatable bit for bit."""
    diagnostics: bool = key(False, identity=False)
    """Once an epoch, what each layer does with 64 fixed images and how smooth the loss is, into
    diagnostics.csv and TensorBoard; the run stays bit for bit the same. It costs each seed, in each
    epoch, the time of seven to eleven steps of 64 images."""
    checkpoint_minutes: float = key(1.0, above=0, identity=False)
    """A checkpoint within an epoch after this many minutes: what a crash can cost at most."""
    resume: bool = key(True, identity=False)
    """Go on from the last checkpoint of the same run."""
    force: bool = key(False, identity=False)
    """Train again even if the run is complete."""
    on_error: OnError = key(OnError.go_on, identity=False)
    """What a sweep does when a run fails: go on with the others, or stop."""
    published: list[PublishedFigure] = key(list, identity=False)
    """What others measured with such runs; the report shows it beside what these runs measured."""

    @property
    def layout_last(self) -> bool:
        """Whether channels lie last in memory: linear layers on flattened images want rows of
        channels; only convolutions gain."""
        return self.channels_last and self.model.architecture is not Architecture.mlp

    @property
    def images_per_step(self) -> int:
        """Images whose gradients a step of the optimizer averages, those of all processes."""
        return self.batch_size * self.accumulate_steps


KEYS = dict(keys(Config))
"""Every dotted key, groups too, with its field."""
READ_BY = read_by(Config)
OUTSIDE_IDENTITY = frozenset(
    name for name, item in KEYS.items() if not item.metadata.get("identity", True)
)
ADDED_SINCE = {name: item.metadata["was"] for name, item in KEYS.items() if "was" in item.metadata}


def outside_identity(config: Config) -> frozenset[str]:
    """The keys of this configuration that cannot change its result."""
    if config.evaluate.bn_stats == ["running"]:
        return OUTSIDE_IDENTITY
    # Statistics of batches depend on how large those are.
    return OUTSIDE_IDENTITY - {"evaluate.batch_size"}


def conf_dir() -> Path:
    """The folder of YAML files: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def to_dict(config: Any) -> Any:
    """Plain dicts, lists and strings: what is written to YAML, JSON and checkpoints."""
    if is_dataclass(config):
        return {item.name: to_dict(getattr(config, item.name)) for item in fields(config)}
    if isinstance(config, list):
        return [to_dict(item) for item in config]
    if isinstance(config, dict):
        return {key: to_dict(value) for key, value in config.items()}
    return config.value if isinstance(config, Enum) else config


def get(config: Config, key: str) -> Any:
    """The value of a dotted key: ``get(config, "norm.eps")``."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
