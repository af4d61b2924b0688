"""Methods: each turns a support set into a predictor.  One file each; registered ones can be named in a recipe."""

from handful.methods.anil import ANIL
from handful.methods.baseline import Baseline, BaselinePlusPlus
from handful.methods.frn import FRN
from handful.methods.glofa import GLoFA
from handful.methods.glofa_frn import GLoFAFRN
from handful.methods.gradient_based import GradientBased
from handful.methods.logistic import Logistic
from handful.methods.maml import MAML
from handful.methods.maml_plus_plus import MAMLPlusPlus
from handful.methods.matching import MatchingNet
from handful.methods.meta_sgd import MetaSGD
from handful.methods.method import Method, Outcome
from handful.methods.metric import Metric
from handful.methods.pretraining import Pretraining, Supervised, Trained, pretraining
from handful.methods.proto_maml import ProtoMAML
from handful.methods.protonet import MetaBaseline, ProtoNet
from handful.methods.relation import RelationNet
from handful.methods.reptile import Reptile
from handful.methods.ridge import R2D2, Ridge
from handful.methods.simpleshot import SimpleShot
from handful.registry import METHODS

__all__ = [
    "ANIL",
    "FRN",
    "MAML",
    "METHODS",
    "R2D2",
    "Baseline",
    "BaselinePlusPlus",
    "GLoFA",
    "GLoFAFRN",
    "GradientBased",
    "Logistic",
    "MAMLPlusPlus",
    "MatchingNet",
    "MetaBaseline",
    "MetaSGD",
    "Method",
    "Metric",
    "Outcome",
    "Pretraining",
    "ProtoMAML",
    "ProtoNet",
    "RelationNet",
    "Reptile",
    "Ridge",
    "SimpleShot",
    "Supervised",
    "Trained",
    "pretraining",
]
