"""The request of the playground as code: for a terminal, for OpenAI's SDK in Python, and for the one in Node."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.console.form import BOOLEANS, MEDIA_FIELDS, NOT_OF_REQUEST, PLAIN_FIELDS, SIZE_FIELDS, Given, extra_fields

SDK_FIELDS = ("model", "prompt", "seconds", "size")
"""Arguments of `videos.create` in OpenAI's SDK for Python; others go into `extra_body`."""
WIRE_NAMES = {"first_frame": "input_reference"}
"""Names of OpenAI's API for fields of the form, where they differ."""


@dataclass(frozen=True)
class Call:
    """A call of OpenAI's API."""

    path: str
    body: dict[str, Any]
    files: Mapping[str, list[str]]
    """Names of chosen files, by field of the API."""


def call_of(given: Given) -> Call:
    """The call that makes the request of a form. Raises `InvalidRequest` for `extra` that is no JSON."""
    mode, source = given.values.get("mode", "generate"), given.values.get("from", "")
    body: dict[str, Any] = {"prompt": given.values.get("prompt", "")}
    if mode == "remix":
        return Call(f"/videos/{source}/remix", body, {})
    if mode in ("edit", "extend"):
        body["video"] = {"id": source}
        if mode == "extend" and "seconds" in given.values:
            body["seconds"] = given.values["seconds"]
        return Call("/videos/edits" if mode == "edit" else "/videos/extensions", body, {})
    body = {"model": given.values.get("model", ""), **body}
    for name in (*SIZE_FIELDS, *PLAIN_FIELDS):
        if name in given.values and (name, given.values[name]) != ("n", "1"):
            body[name] = _value(name, given.values[name])
    files = {}
    for name in MEDIA_FIELDS:
        wire_name, addresses = WIRE_NAMES.get(name, name), given.values.get(name, "").split()
        if addresses:
            body[wire_name] = addresses if name == "reference_images" else addresses[0]
        if chosen := _chosen(given, name):
            files[wire_name] = [f"{name}-{number + 1}" for number in range(chosen)] if chosen > 1 else [name]
    if "characters" in given.values:
        body["characters"] = [{"id": name} for name in given.values["characters"].split()]
    return Call("/videos", {**body, **extra_fields(given)}, files)


def _chosen(given: Given, name: str) -> int:
    chosen = given.values.get(f"{name}_chosen", "")
    return len(given.files.get(f"{name}_file", ())) or (min(int(chosen[:3]), 20) if chosen.isdecimal() else 0)


def _value(name: str, text: str) -> Any:
    """A value as JSON has it; `seconds` stays text, as OpenAI's SDK sends it."""
    if name in BOOLEANS:
        return text == "true"
    if name in ("n", "seed"):
        try:
            return int(text)
        except ValueError:  # the price beside it says so
            return text
    return text


def is_of_request(name: str) -> bool:
    """True for a field of the form that is part of the request."""
    return name not in NOT_OF_REQUEST and not name.endswith("_chosen")


def snippets_of(given: Given, origin: str) -> dict[str, str]:
    """The code for each of `curl`, `Python` and `Node`; the key is in OPENAI_API_KEY."""
    call = call_of(given)
    return {"curl": _curl(call, origin), "Python": _python(call, origin), "Node": _node(call, origin)}


def _curl(call: Call, origin: str) -> str:
    lines = [f"curl {shlex.quote(f'{origin}/v1{call.path}')}", '-H "Authorization: Bearer $OPENAI_API_KEY"']
    if call.files:
        lines += [f"--form-string {shlex.quote(f'{name}={_as_text(value)}')}" for name, value in call.body.items()]
        lines += [f"-F {name}=@{file}" for name, files in call.files.items() for file in files]
    else:
        body = json.dumps(call.body, ensure_ascii=False)
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(body)}"]
    return " \\\n  ".join(lines)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _python(call: Call, origin: str) -> str:
    if set(call.files) - {"input_reference"}:
        return "# OpenAI's SDK for Python sends no other file than the first frame: use curl, or give addresses."
    body, arguments = dict(call.body), []
    if call.path.endswith("/remix"):
        method, arguments = "remix", [repr(call.path.split("/")[2])]
    else:
        method = {"/videos/edits": "edit", "/videos/extensions": "extend"}.get(call.path, "create")
    arguments += [f"{name}={body.pop(name)!r}" for name in SDK_FIELDS if name in body]
    for names in call.files.values():
        arguments.append(f'input_reference=open("{names[0]}", "rb")')
    if method in ("edit", "extend"):
        arguments.append("video=omit")
    if body:
        arguments.append(f"extra_body={body!r}")
    imported = "OpenAI, omit" if method in ("edit", "extend") else "OpenAI"
    listed = "".join(f"    {argument},\n" for argument in arguments)
    return (
        f"import time\n\nfrom openai import {imported}\n\n"
        f'client = OpenAI(base_url="{origin}/v1")  # the key is in OPENAI_API_KEY\n'
        f"video = client.videos.{method}(\n{listed})\n"
        'while video.status in ("queued", "in_progress"):\n'
        "    time.sleep(2)\n"
        "    video = client.videos.retrieve(video.id)\n"
        'client.videos.download_content(video.id).write_to_file("video.mp4")'
    )


def _one_or_list(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"[{', '.join(values)}]"


def _node(call: Call, origin: str) -> str:
    body = json.dumps(call.body, indent=2, ensure_ascii=False)
    opened = {name: [f'fs.createReadStream("{file}")' for file in files] for name, files in call.files.items()}
    for name, files in opened.items():
        body = body.removesuffix("\n}") + f",\n  {name}: {_one_or_list(files)}\n}}"
    if call.path == "/videos":
        made = f"client.videos.create({body})"
    elif call.path.endswith("/remix"):
        made = f'client.videos.remix("{call.path.split("/")[2]}", {body})'
    else:
        made = f'client.post("{call.path}", {{ body: {body} }})'
    files_import = 'import fs from "node:fs";\n' if call.files else ""
    return (
        f'{files_import}import OpenAI from "openai";\n\n'
        f'const client = new OpenAI({{ baseURL: "{origin}/v1" }}); // the key is in OPENAI_API_KEY\n'
        f"let video = await {made};\n"
        'while (video.status === "queued" || video.status === "in_progress") {\n'
        "  await new Promise((resolve) => setTimeout(resolve, 2_000));\n"
        "  video = await client.videos.retrieve(video.id);\n"
        "}\n"
        "const file = await client.videos.downloadContent(video.id);"
    )
