"""JSON endpoints: name pictures, say how the server is, hand out models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Request, Response, UploadFile
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse

from handful.errors import HandfulError
from handful.serve.gate import PAGE, Gate, refusal
from handful.serve.limits import Limits, Refused
from handful.serve.teaching import Shelf
from handful.serve.uploads import base_name, sent_picture
from handful.serve.worker import Worker

PIECE = 2**16  # bytes of a download that are sent at a time; no more waits for a slow reader
WAYS = "/predict, /health, /models/served.zip, /models/served.onnx, /openapi.json, and the page at /"


class Answer(BaseModel):
    """The name of a picture: the most probable class, and the probabilities of all, best first.

    label: `none of these` of a model fitted with an open set, where the likeness is too low.  likeness: to the picture
    of the support that is most like it, from 0 to 1, where the model knows.
    """

    input: str
    label: str
    probabilities: dict[str, float]
    likeness: float | None


class Unread(BaseModel):
    """A picture among others that could not be named, and why, in one sentence."""

    input: str
    error: str


class Health(BaseModel):
    """What is served, and how much it was asked."""

    model: str
    classes: list[str]
    version: str
    requests: int


class Failure(BaseModel):
    """Why there is no answer, in one sentence."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure} for status in (400, 404, 405, 413, 415, 422, 500, 501, 503)
}


def api(name: str, shelf: Shelf, worker: Worker, limits: Limits, uploads: Path, hosts: Collection[str] = ()) -> FastAPI:
    """The application with its endpoints, behind its gate; the page is mounted beside them.

    name: what the served model or run is called; worker: packs models; uploads: the folder for what the page's clients
    send; hosts: the names that the server is asked by, if not by any.
    """
    app = FastAPI(title="Handful", version=version("handful"), docs_url=None, redoc_url=None)
    app.add_middleware(Gate, limits=limits, uploads=uploads, hosts=hosts)
    # Of a request that was given up, a picture may still be under way; its thread is not free before it is done.
    decoding = ThreadPoolExecutor(cpu_count(), "decoding")
    naming = Worker()  # /predict waits for no fit: the served model is only read
    served = 0

    @app.post("/predict", responses={n: ERRORS[n] for n in (400, 404, 405, 413, 415, 422, 500, 503)})
    async def predict(
        pictures: Annotated[list[UploadFile], File(description="Pictures to name.")],
    ) -> list[Answer | Unread]:
        """Name one or several pictures, as `handful predict --skip-bad --json` does.

        A picture that cannot be named is answered with its `error`; if none can, the request is refused for the first.
        """
        nonlocal served
        if shelf.served is None:
            raise Refused(404, f"{name} is a run, and no model yet; fit one, and serve it.")
        if len(pictures) > limits.pictures:
            raise Refused(
                413, f"These are {len(pictures)} pictures, and {limits.pictures} are taken at a time; send fewer."
            )
        model = shelf.served.model

        def decoded(upload: UploadFile) -> tuple[NDArray[np.uint8], str]:
            picture, _ = sent_picture(upload.filename, upload.file.read(), limits.pixels)
            try:
                return model.card.preprocessing(picture)[0], picture.name
            except HandfulError as error:
                raise Refused(415, str(error)) from error

        async def answer(upload: UploadFile) -> Answer | Refused:
            try:
                image, name = await asyncio.get_running_loop().run_in_executor(decoding, decoded, upload)
            except Refused as refused:
                return refused
            return Answer(**(await naming.name(model, image, name)).as_dict())

        answers = await asyncio.gather(*map(answer, pictures))
        refused = [found for found in answers if isinstance(found, Refused)]
        if len(refused) == len(answers):
            raise refused[0]
        served += 1
        return [
            Unread(input=base_name(upload.filename), error=str(found)) if isinstance(found, Refused) else found
            for upload, found in zip(pictures, answers)
        ]

    @app.get("/health", responses={n: ERRORS[n] for n in (400, 500)})
    async def health() -> Health:
        """What is served: its name, its classes, the version, and the requests answered by /predict."""
        classes = shelf.served.model.card.classes if shelf.served else []
        return Health(model=name, classes=classes, version=version("handful"), requests=served)

    @app.get("/models/{key}.zip", response_class=Response, responses={n: ERRORS[n] for n in (400, 404, 500, 503)})
    async def folder(key: str) -> Response:
        """The served model (key `served`), or one taught on the page, as a zip archive of its folder."""
        return await download(key, "zip", "application/zip")

    @app.get("/models/{key}.onnx", response_class=Response, responses={n: ERRORS[n] for n in (400, 404, 500, 501, 503)})
    async def onnx(key: str) -> Response:
        """The same as one ONNX file."""
        return await download(key, "onnx", "application/octet-stream")

    async def download(key: str, kind: str, media: str) -> Response:
        shelf.get(key)  # what is not there waits for no turn
        content = await worker.run(shelf.file, key, kind)
        headers = {"Content-Disposition": f'attachment; filename="model.{kind}"', "Content-Length": str(len(content))}
        return StreamingResponse(pieces(content), media_type=media, headers=headers)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return refusal(error)

    app.add_exception_handler(HTTPException, failed)

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> Response:
        return refusal(Refused(422, "Send pictures as multipart/form-data, each in a field called 'pictures'."))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return refusal(Refused(500, "The server failed at this; its terminal says more."))

    return app


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """What is sent, some at a time."""
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


async def failed(request: Request, error: Exception) -> Response:
    """What the framework refuses, in a sentence of its own; the page's own calls are answered as its scripts expect."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if path.startswith(PAGE):
        return await http_exception_handler(request, error)
    said = {404: f"There is nothing at {path}; there are {WAYS}.", 405: f"{path} cannot be asked by {request.method}."}
    return JSONResponse({"error": said.get(error.status_code, str(error.detail))}, error.status_code, error.headers)
