"""The OpenAPI 3.1 document, made from the table of routes and the shapes of their bodies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from nano_runtime import __version__
from nano_serve.http.answers import error_shape
from nano_serve.http.routes import Endpoint
from nano_serve.shapes import ErrorShape, FlatErrorShape

__all__ = ["document_of"]

_PLACE: Final = "#/components/schemas/{name}"


def document_of(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the document."""
    shapes: list[Any] = [ErrorShape, FlatErrorShape]
    for one in endpoints:
        for shape in (one.request, one.response):
            if shape is not None and not isinstance(shape, str) and shape not in shapes:
                shapes.append(shape)
    schemas, components = msgspec.json.schema_components(shapes, ref_template=_PLACE)
    schema_of = dict(zip(shapes, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "nano-serve", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],  # a server without a token wants none
    }


def _operation(one: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    """Return the description of one route."""
    answer: dict[str, Any] = {"description": one.summary}
    if isinstance(one.response, str):
        answer["content"] = {one.response: {"schema": {"type": "string"}}}
    elif one.response is not None:
        answer["content"] = {"application/json": {"schema": schema_of[one.response]}}
    if one.streams:  # without a schema: readers differ on whether that is of the text or of an event
        answer["content"]["text/event-stream"] = {}
    wrong = {"description": "An error", "content": {"application/json": {"schema": schema_of[error_shape(one.path)]}}}
    operation: dict[str, Any] = {"summary": one.summary, "responses": {str(one.status): answer, "default": wrong}}
    names = re.findall(r"{(\w+)}", one.path)
    text = {"type": "string"}
    given = [{"name": name, "in": "path", "required": True, "schema": text} for name in names]
    given += [{"name": name, "in": "query", "schema": dict(schema)} for name, schema in one.query.items()]
    if given:
        operation["parameters"] = given
    if one.request is not None:
        operation["requestBody"] = {"content": {one.media: {"schema": schema_of[one.request]}}}
    return operation
