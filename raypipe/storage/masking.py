"""What of an address is secret: user, password, query values, fragment, keys in the path, DSNs.

A mask is seen, so that nobody takes a masked address for one that opens: s3://***@bucket?key=***
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

MASK = "***"

_URI = re.compile(r"(\s*[A-Za-z][\w+.:-]*?://)(.*)", re.DOTALL)
_URI_IN_TEXT = re.compile(
    # white space is inside only where an @ ends what began like user:password
    r"([A-Za-z][\w+.-]*://)((?:[^\s/?#@:'\"]*:(?!\d{1,5}(?:\D|$))[^\n@]*@)?\S*)"
)
_PLACE = re.compile(r"([^?#]*)(\??[^#]*)(#?.*)", re.DOTALL)
_LOCAL = ("file", "sqlite")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes in which a user without a password is the name of a container."""
_SENSITIVE_PAIR = re.compile(
    r"(?i)(?<![\w-])(\w*(?:pass(?:word|wd|phrase)|pwd|secret|credential|signature"
    r"|(?:api|access|account|shared)[_-]?key|(?:access|auth|bearer)[_-]?token)\w*|token|sig)"
    r"(\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s;&,'\")\]}]+)"
)
_PAIR = re.compile(r"([\w.-]+)(\s*=\s*)(.*?)(?=[\s;]+[\w.-]+\s*=|\s*;?\s*$)", re.DOTALL)
_PLAIN = {
    *("host", "hostaddr", "server", "port", "dbname", "database", "driver", "sslmode", "scheme"),
    *("region", "endpoint_override", "api-version", "connect_timeout", "timeout"),
}
"""Names whose values may stand in a DSN, and in words of others about an address."""
_USER = re.compile(r"\A\s*(?![\s/~.])[^\s/@:]+:[^@]*@", re.DOTALL)
_PORT = re.compile(r"\A([^/:\[]*:)(?!\d{1,5}$).+", re.DOTALL)
_KEY = re.compile(
    r"(?=.*\d)(?:(?:sk|pk|rk|hf|gh[opsu]|github_pat|glpat|xox\w|gsk|nvapi)[-_][\w-]{8,}"
    r"|(?:AKIA|ASIA|AIza|eyJ)[\w-]{8,})"
)
_RANDOM = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32,}")
_LONG = re.compile("[A-Za-z0-9]{16,}")
_CHANGE = re.compile("[a-z](?=[A-Z0-9])|[A-Z](?=[0-9])|[0-9](?=[A-Za-z])")
_MOST_CHANGES = 3
"""Of letters, capitals and digits in a name; a word, a date and a version have fewer than a key."""
_ANNOUNCES = re.compile(r"(?i)(?:api[-_]?)?(?:key|token|secret|password)")


def mask(text: str) -> str:
    """The address without its secrets. The whole text is one address, white space included.

    What could be either a secret or not is masked: a password may hold `@`, `/`, `?` and `#`
    unescaped. A path of this machine stays as it is.
    """
    if uri := _URI.fullmatch(text):
        return uri[1] + _rest(uri[1].strip()[:-3].lower(), uri[2])
    if _PAIR.match(text.strip()):
        return _PAIR.sub(lambda m: m[1] + m[2] + (m[3] if m[1].lower() in _PLAIN else MASK), text)
    return _SENSITIVE_PAIR.sub(rf"\1\2{MASK}", _USER.sub(f"{MASK}@", text, count=1))


def without_secrets(text: str) -> str:
    """Words of anybody, in which every address is masked.

    Nobody knows where an address in a text ends, and raypipe's own digests stand in paths: what
    belongs to one address is better taken out by that address (`Address.clean`).
    """
    text = _URI_IN_TEXT.sub(lambda uri: uri[1] + _rest(uri[1][:-3].lower(), uri[2], False), text)
    return _SENSITIVE_PAIR.sub(rf"\1\2{MASK}", text)


def below(address: str, path: str) -> str:
    """The address of a path below, which keeps the parameters. A masked one stays masked."""
    if "://" not in address:
        return f"{address.rstrip('/')}/{path}"
    start, mark, parameters = address.partition("?")
    return f"{start.rstrip('/')}/{path}{mark}{parameters}"


def secret_parts(address: str) -> set[str]:
    """What words of others may hold of the address's secrets; also without percent signs."""
    parts = set(_parts(address))
    return {part for part in parts | set(map(unquote, parts)) if len(part) > 2}


def _parts(address: str) -> Iterator[str]:
    if (uri := _URI.fullmatch(address)) is None:
        for found in _PAIR.finditer(address):
            if found[1].lower() not in _PLAIN:
                yield found[3].strip("'\"")
        return
    user, place = _user(uri[2])
    yield from (user, *user.split(":", 1))
    path, query, fragment = _split(place)
    yield fragment[1:]
    for pair in re.split("[&;]", query[1:]):
        name, _, value = pair.partition("=")
        if name.lower() not in _PLAIN:
            yield value
    shown = _path(path, True).split("/")
    yield from (
        name for name, as_shown in zip(path.split("/"), shown, strict=True) if name != as_shown
    )


def _rest(scheme: str, rest: str, whole: bool = True) -> str:
    """What follows `://`, masked.

    Args:
        whole: whether nothing but an address's own user wrote it; else there are digests in paths.
    """
    user, place = _user(rest)
    if user:
        name, colon, _ = user.partition(":")
        user = (name + colon if scheme in _CONTAINERS else "") or MASK
        user += f"{MASK}@" if user.endswith(":") else "@"
    path, query, fragment = _split(place)
    path = path if scheme in _LOCAL else _path(path, whole)
    query = query and "?" + "&".join(map(_masked_pair, re.split("[&;]", query[1:])))
    return user + path + query + (fragment and f"#{MASK}")


def _user(rest: str) -> tuple[str, str]:
    """User and password, and what follows their `@`."""
    address = rest.partition("?")[0]
    if ":" in address and "@" not in address:  # the question mark may be the password's
        address = rest
    user, _, host = address.rpartition("@")
    if "/" in user and ":" not in user:  # the @ is in a path
        user, host = "", address
    return user, host + rest[len(address) :]


def _split(place: str) -> tuple[str, str, str]:
    """Host and path; the query with its `?`; the fragment with its `#`."""
    parts = _PLACE.fullmatch(place)
    assert parts is not None, "every text has the three parts, which may be empty"
    return parts[1], parts[2], parts[3]


def _masked_pair(pair: str) -> str:
    name, _, value = pair.partition("=")
    if value.strip("=") and re.fullmatch(r"[\w.-]{1,40}", name):
        return f"{name}={MASK}"
    return pair and MASK  # a key's own padding is no value


def _path(path: str, whole: bool) -> str:
    """Host and path without what looks like a key, follows a `key/`, or is a parameter's value."""
    host, *names = path.split("/")
    shown, announced = [_PORT.sub(rf"\1{MASK}", host)], False
    for name in names:
        long = _LONG.findall(name) if whole else ()
        random = any(len(_CHANGE.findall(run)) > _MOST_CHANGES for run in long)
        if name and (announced or random or _KEY.match(name) or (whole and _RANDOM.search(name))):
            shown.append(MASK)
        else:
            plain = re.sub(r";([\w.-]+)=[^;]*", rf";\1={MASK}", name)
            shown.append(_SENSITIVE_PAIR.sub(rf"\1\2{MASK}", plain))
        announced = whole and _ANNOUNCES.fullmatch(name) is not None
    return "/".join(shown)
