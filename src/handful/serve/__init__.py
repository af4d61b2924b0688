"""`handful serve`: a page in the browser and JSON endpoints for a fitted model, or for a run to teach."""

from handful.serve.limits import Limits
from handful.serve.server import serve

__all__ = ["Limits", "serve"]
