"""JSON endpoints: name pictures, say how the server is, hand out models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from handful.errors import HandfulError
from handful.model import Model
from handful.serve.gate import Gate, refusal
from handful.serve.limits import Limits, Refused
from handful.serve.teaching import Shelf, exported, packed
from handful.serve.uploads import sent_picture
from handful.serve.worker import Worker


class Answer(BaseModel):
    """The name of a picture: the most probable class, and the probabilities of all, best first.

    likeness: to the picture of the support that is most like it, from 0 to 1, where the model knows.
    """

    input: str
    label: str
    probabilities: dict[str, float]
    likeness: float | None


class Health(BaseModel):
    """What is served, and how much it was asked."""

    model: str
    classes: list[str]
    version: str
    requests: int


class Failure(BaseModel):
    """Why there is no answer, in one sentence."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Failure} for status in (400, 404, 413, 415, 422, 501, 503)}


def api(name: str, shelf: Shelf, worker: Worker, limits: Limits, uploads: Path) -> FastAPI:
    """The application with its endpoints, behind its gate; the page is mounted beside them.

    name: what the served model or run is called; uploads: the folder for what the page's clients send.
    """
    app = FastAPI(title="Handful", version=version("handful"), docs_url=None, redoc_url=None)
    app.add_middleware(Gate, limits=limits, uploads=uploads)
    decoding = asyncio.Semaphore(cpu_count() or 1)
    served = 0

    @app.post("/predict", responses={n: ERRORS[n] for n in (400, 413, 415, 422, 503)})
    async def predict(pictures: Annotated[list[UploadFile], File(description="Pictures to name.")]) -> list[Answer]:
        """Name one or several pictures, as `handful predict --json` does."""
        nonlocal served
        if shelf.served is None:
            raise Refused(404, f"{name} is a run, and no model yet; fit one, and serve it.")
        if len(pictures) > limits.pictures:
            raise Refused(
                413, f"These are {len(pictures)} pictures, and {limits.pictures} are taken at a time; send fewer."
            )
        model = shelf.served.model

        async def answer(upload: UploadFile) -> Answer:
            async with decoding:
                content = await upload.read()
                picture = await asyncio.to_thread(sent_picture, upload.filename, content, limits.pixels)
                image = (await asyncio.to_thread(model.card.preprocessing, picture))[0]
            return Answer(**(await worker.name(model, image, picture.name)).as_dict())

        answers = await asyncio.gather(*map(answer, pictures))
        served += 1
        return answers

    @app.get("/health")
    async def health() -> Health:
        """What is served: its name, its classes, the version, and the requests answered by /predict."""
        classes = shelf.served.model.card.classes if shelf.served else []
        return Health(model=name, classes=classes, version=version("handful"), requests=served)

    @app.get("/models/{key}.zip", response_class=Response, responses={n: ERRORS[n] for n in (404, 503)})
    async def folder(key: str) -> Response:
        """The served model (key `served`), or one taught on the page, as a zip archive of its folder."""
        return await download(key, packed, "application/zip", "model.zip")

    @app.get("/models/{key}.onnx", response_class=Response, responses={n: ERRORS[n] for n in (404, 501, 503)})
    async def onnx(key: str) -> Response:
        """The same as one ONNX file."""
        return await download(key, exported, "application/octet-stream", "model.onnx")

    async def download(key: str, pack: Callable[[Model], bytes], kind: str, file: str) -> Response:
        model = shelf.get(key).model
        try:
            content = await worker.run(pack, model)
        except HandfulError as error:  # a network that is no graph, or nothing that writes one
            raise Refused(501, str(error)) from error
        return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{file}"'})

    @app.exception_handler(HandfulError)
    async def refused(request: Request, error: HandfulError) -> Response:
        return refusal(error if isinstance(error, Refused) else Refused(415, str(error)))

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> Response:
        return refusal(Refused(422, "Send pictures as multipart/form-data, each in a field called 'pictures'."))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return refusal(Refused(500, "The server failed at this; its terminal says more."))

    return app
