"""What makes a union of choices take classes of the user's too: one line beside its members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from raypipe.config import Config, ConfigError
from raypipe.names import shortened
from raypipe.plugins.loading import NAME_PATTERN, PlugIn, is_plugin_name, plugin_class

REFUSED = "plug_in"
"""pydantic's kind of the error of a name whose class cannot be had."""
FORM = "my_package.module:Class"
"""How the `type` of a plug-in looks, for people."""


@dataclass(frozen=True)
class OrPlugIn:
    """In the `Annotated` of a union: `type` may also be `my_package.module:Class`.

    Loss = Annotated[InfoNCE | KL, Field(discriminator="type"), OrPlugIn("loss", LossBase)]
    """

    kind: str
    """What the union's members are, for errors."""
    base: type[Config]
    """What a class of the user's must extend."""
    verbs: tuple[str, ...] = ()
    """Methods of which it must have one of its own, where the base has no abstract ones."""
    only: bool = False
    """The base is abstract and has no members: every one is a plug-in, whose bare name will do."""

    def load(self, name: str) -> Any:
        """The class of that name.

        Raises:
            ConfigError: see `plugin_class`.
        """
        return plugin_class(name, self.base, self.kind, self.verbs)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        own = handler(source)
        return core_schema.no_info_wrap_validator_function(
            self._validated,
            own,
            serialization=core_schema.wrap_serializer_function_ser_schema(
                _serialised, info_arg=True, schema=own
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        known = handler(schema)
        meaning = f"A {self.kind} of your own, {FORM}; see docs/plug-ins.md."
        name = {"type": "string", "pattern": NAME_PATTERN, "description": meaning}
        plugin = {"type": "object", "properties": {"type": name}, "required": ["type"]}
        return {"anyOf": [name, plugin] if self.only else [known, plugin]}

    def _validated(self, value: Any, handler: Callable[[Any], Any]) -> Any:
        if isinstance(value, PlugIn) and isinstance(value, self.base):
            return value
        if self.only and isinstance(value, str):
            value = {"type": value}
        if is_plugin_name(value):
            text = f"expected a mapping such as {{type: {shortened(value)}}}, found the name alone"
            raise _below("", [_custom(text, value)])
        name = value.get("type") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not (self.only or is_plugin_name(name)):
            return handler(value)
        try:
            cls = self.load(str(name))
        except ConfigError as error:
            raise _below("type", [_custom(str(error), name)]) from None
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            raise _below(str(name), [dict(item) for item in error.errors()]) from None


def _custom(message: Any, value: Any) -> dict[str, Any]:
    return {"type": PydanticCustomError(REFUSED, message), "loc": (), "input": value}


def _below(name: str, items: list[dict[str, Any]]) -> ValidationError:
    """The errors with one more step, if it has a name, at the beginning of their paths."""
    details = [
        InitErrorDetails(
            type=item["type"],
            loc=(*filter(None, [name]), *item["loc"]),
            input=item["input"],
            ctx=item.get("ctx", {}),
        )
        for item in items
    ]
    return ValidationError.from_exception_data(name, details, hide_input=True)


def _serialised(value: Any, handler: Any, info: SerializationInfo) -> Any:
    return value.model_dump(mode=info.mode) if isinstance(value, PlugIn) else handler(value)


def plugins_of(part: FieldInfo | Any) -> tuple[OrPlugIn, ...]:
    """The kinds of plug-ins that a field or an annotation takes, at any depth; mostly one."""
    return tuple(dict.fromkeys(_plugins(part)))


def _plugins(part: Any) -> Iterator[OrPlugIn]:
    """In a field's metadata, or at any depth of its annotation."""
    if isinstance(part, OrPlugIn):
        yield part
    elif isinstance(part, FieldInfo):
        for below in (*part.metadata, part.annotation):
            yield from _plugins(below)
    else:
        for below in get_args(part):
            yield from _plugins(below)
