"""The description of the API in OpenAPI 3.1, for `/openapi.json` and for the page `/docs`."""

from typing import Any

from mrl_jax.search.server.limits import PICTURES, Limits
from mrl_jax.version import __version__

__all__ = ["document"]


def document(limits: Limits, top: int) -> dict[str, Any]:
    """The description, with the bounds of this server.

    Args:
        limits: bounds.
        top: number of results where a request does not say it.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mrl_jax search",
            "version": __version__,
            "description": "Searches the data of a trained run. Retrieval is by class: a result is a hit if it has the "
            "class of the query.",
        },
        "paths": {
            "/api/search": {"get": _by_text_or_row(limits, top), "post": _by_picture(limits, top)},
            "/api/rows": {"get": _rows(limits)},
            "/api/about": {"get": _operation("The run, its galleries, and what queries it takes", "About")},
            "/api/picture/{modality}/{split}/{row}": {"get": _picture()},
            "/healthz": {"get": _operation("Whether the server answers", "Health", errors=())},
        },
        "components": {"schemas": _SCHEMAS},
    }


def _by_text_or_row(limits: Limits, top: int) -> dict[str, Any]:
    text = {"type": "string", "maxLength": limits.text}
    return _operation(
        "The nearest items of a text, or of a row of the data",
        "Answer",
        _parameter("text", text, "a text; give either text or row", example="cat"),
        _parameter("row", text, "a row, as MODALITY:SPLIT:INDEX", example="image:test:7"),
        *_common(limits, top),
        errors=(400, 503),
    )


def _by_picture(limits: Limits, top: int) -> dict[str, Any]:
    what = f"A picture file of at most {limits.body:,} bytes and {limits.pixels:,} pixels"
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURES}
    operation = _operation(
        "The nearest items of a picture", "Answer", *_common(limits, top), errors=(400, 408, 413, 415, 503)
    )
    return operation | {"requestBody": {"description": what, "required": True, "content": content}}


def _common(limits: Limits, top: int) -> list[dict[str, Any]]:
    name, count = {"type": "string"}, {"type": "integer", "minimum": 1, "maximum": limits.top, "default": top}
    return [
        _parameter("gallery", name, "modality of the results; default: the first that is not the query's"),
        _parameter("modality", name, "modality that a text or picture is read as; default: the first that takes it"),
        _parameter("top", count, "number of results; a smaller gallery gives fewer"),
    ]


def _rows(limits: Limits) -> dict[str, Any]:
    return _operation(
        f"Rows of a gallery, {limits.listed} at a time",
        "Rows",
        _parameter("modality", {"type": "string"}, "the gallery; default: the first"),
        _parameter("find", {"type": "string", "maxLength": limits.text}, "a part of their name, id or class"),
        _parameter("offset", {"type": "integer", "minimum": 0, "default": 0}, "rows to leave out before the first"),
        errors=(400,),
    )


def _picture() -> dict[str, Any]:
    operation = _operation(
        "The small picture of a row, PNG; answers name its address as `picture`",
        "",
        _parameter("modality", {"type": "integer", "minimum": 0}, "number of the modality", "path"),
        _parameter("split", {"type": "string", "enum": ["train", "valid", "test"]}, "split", "path"),
        _parameter("row", {"type": "integer", "minimum": 0}, "row of the split, counted from 0", "path"),
        errors=(404,),
    )
    operation["responses"]["200"]["content"] = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    return operation


def _parameter(name: str, schema: Any, description: str, where: str = "query", example: str = "") -> dict[str, Any]:
    more = {"example": example} if example else {}
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
        **more,
    }


_MEANINGS = {
    400: "wrong query or picture",
    404: "no such row, or no picture of it",
    408: "the body came too slowly",
    413: "the picture has too many bytes or pixels",
    415: "the content type is none of those above",
    503: "too many requests at once; Retry-After says when to try again",
}


def _operation(summary: str, schema: str, *parameters: Any, errors: tuple[int, ...] = (400,)) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {"description": "done", "content": _json(schema) if schema else {}},
        **{str(code): {"description": _MEANINGS[code], "content": _json("Error")} for code in errors},
    }
    return {"summary": summary, **({"parameters": list(parameters)} if parameters else {}), "responses": responses}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": required.split()} if required else {})}


_TEXT, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_ROW = {
    "id": _TEXT,
    "label": {"type": "string", "description": "class, without injected noise"},
    "split": _TEXT,
    "row": _INTEGER,
    "name": {"type": "string", "description": "if the data have names"},
    "text": {"type": "string", "description": "if the data have texts, or texts were given"},
    "address": {"type": "string", "description": "MODALITY:SPLIT:INDEX, to ask for its neighbours"},
    "picture": {"type": "string", "description": "address of its small picture, if it has one"},
}
_SCHEMAS: dict[str, Any] = {
    "Answer": _object(
        "query gallery results",
        query=_object(
            "kind value modality", kind={"enum": ["text", "image", "row"]}, value=_TEXT, modality=_TEXT, **_ROW
        ),
        gallery=_object(
            "modality splits size epoch representation metric ties",
            **{"modality": _TEXT, "splits": {"type": "array", "items": _TEXT}, "size": _INTEGER, "epoch": _INTEGER},
            **dict.fromkeys(("representation", "metric", "ties"), _TEXT),
        ),
        results={
            "type": "array",
            "items": _object(
                "rank score label id split row",
                rank=_INTEGER,
                score={**_NUMBER, "description": "with the metric hamming a distance"},
                hit={"type": "boolean", "description": "same class as the query; only if the query is a row"},
                **_ROW,
            ),
        },
    ),
    "Rows": _object(
        "rows more", rows={"type": "array", "items": _object("id label split row", **_ROW)}, more={"type": "boolean"}
    ),
    "About": _object(
        "data method epoch ranked_by metric splits classes class_count galleries modalities rows takes top limits",
        data=_TEXT,
        method=_TEXT,
        epoch=_INTEGER,
        wrong_labels={"type": ["number", "null"], "description": "share of the training labels that were wrong"},
        ranked_by=_TEXT,
        metric=_TEXT,
        splits={"type": "array", "items": _TEXT},
        classes={"type": "array", "items": _TEXT, "description": "names, at most 200"},
        class_count=_INTEGER,
        galleries={"type": "object", "description": "modality: number of items"},
        modalities={"type": "array", "items": _TEXT},
        rows={"type": "object", "description": "split: modality: number of rows"},
        takes={"type": "object", "description": "text and image: modalities that take it, and why none does"},
        top=_INTEGER,
        limits={"type": "object", "description": "most results, characters, bytes and pixels"},
        attribution=_TEXT,
    ),
    "Health": _object("status version", status={"const": "ok"}, version=_TEXT),
    "Error": _object("error", error=_TEXT),
}
