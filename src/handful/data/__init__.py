"""Data sets: images, read once into an `ImageStore` and opened ever after; functions; annotated frames; clips.

import handful as hf
store = hf.data.load("glyphs")                      # the embedded default data
store = hf.data.load("omniglot", rotations=4)       # from $HANDFUL_DATA/omniglot, or a store built before
store = hf.data.folder("photos/", image_size=84)    # photos/<class>/*.jpg
store.train, store.val, store.test                  # splits of the classes
family = hf.data.load("sinusoid")                   # functions, drawn from a formula: there is nothing to read
scenes = hf.data.load("rail_scenes")                # views from a cab, rendered with their exact rail lines
frames = hf.data.load_frames("annotated/")          # pictures with lines drawn in them (docs/rails.md)
clips = hf.data.load("ped2")                        # videos of fixed cameras, decoded once
"""

from handful.data.checking import check, samples
from handful.data.dataset import Data, Split
from handful.data.findings import Report
from handful.data.folders import class_folders, list_images, load_image
from handful.data.functions import FAMILIES, FunctionFamily, FunctionSplit
from handful.data.library import DRAWN, READERS, build, cache_dir, folder, load
from handful.data.plain import write_npy
from handful.data.rails import Annotations, Frame, load_frames, survey_frames
from handful.data.rails.library import FRAMED
from handful.data.rails.store import RailFrames, RailSplit
from handful.data.reader import Reader
from handful.data.scenes import render_frame
from handful.data.store import ClassSplit, Contents, ImageStore, open_store, write_store
from handful.data.video.library import FILMED
from handful.data.video.store import ClipSplit, VideoClips

__all__ = [
    "DRAWN",
    "FAMILIES",
    "FILMED",
    "FRAMED",
    "READERS",
    "Annotations",
    "ClassSplit",
    "ClipSplit",
    "Contents",
    "Data",
    "Frame",
    "FunctionFamily",
    "FunctionSplit",
    "ImageStore",
    "RailFrames",
    "RailSplit",
    "Reader",
    "Report",
    "Split",
    "VideoClips",
    "build",
    "cache_dir",
    "check",
    "class_folders",
    "folder",
    "list_images",
    "load",
    "load_frames",
    "load_image",
    "open_store",
    "render_frame",
    "samples",
    "survey_frames",
    "write_npy",
    "write_store",
]
