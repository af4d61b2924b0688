"""Rendered views from a cab: a pinhole camera over flat ground, tracks as clothoids, and their exact rail lines."""

from handful.data.scenes.camera import Camera, draw_camera
from handful.data.scenes.render import Rendered, render
from handful.data.scenes.scene import GROUNDS, LIGHTS, Scene, draw_scene
from handful.data.scenes.source import render_frame

__all__ = [
    "GROUNDS",
    "LIGHTS",
    "Camera",
    "Rendered",
    "Scene",
    "draw_camera",
    "draw_scene",
    "render",
    "render_frame",
]
