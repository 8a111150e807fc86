#!/usr/bin/env python3
"""What the controller answers, against its OpenAPI description.

usage: rest_schema.py SOCKET
       rest_schema.py SOCKET SCHEMA <ANSWER

Alone: the description holds together; what every GET answers, and some refusals,
are as it says, without a member that it does not name; so is what is exported.
With SCHEMA: a JSON text, or one a line, is as that schema says.
"""
import http.client
import json
import re
import socket
import sys
import urllib.parse

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(sys.argv[1])


def ask(method, path, body=None):
    c = Unix("localhost")
    text = None if body is None else json.dumps(body)
    c.request(method, path, text, {"Content-Type": "application/json"} if text else {})
    r = c.getresponse()
    return r.status, json.loads(r.read())


def fail(why):
    sys.exit(why)


class Description:
    def __init__(self):
        self.all = ask("GET", "/v1/openapi.json")[1]

    def at(self, ref):
        where = self.all
        for part in ref.removeprefix("#/").split("/"):
            where = where[part]
        return where

    def wrong(self, value, schema, where):
        """Why the value is none of the schema's; None: it is one."""
        if "$ref" in schema:
            return self.wrong(value, self.at(schema["$ref"]), where)
        if "oneOf" in schema:
            whys = [self.wrong(value, s, where) for s in schema["oneOf"]]
            return None if whys.count(None) == 1 else f"{where} is not one of its forms: {whys}"
        if value is None:
            return None if schema.get("nullable") else f"{where} is null"
        kind = TYPES[schema["type"]]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return f"{where} is no {schema['type']}: {value!r}"
        if "enum" in schema and value not in schema["enum"]:
            return f"{where} is none of {schema['enum']}: {value!r}"
        if kind is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return f"{where} is out of range: {value}"
        if kind is list:
            whys = (self.wrong(v, schema["items"], f"{where}[{i}]") for i, v in enumerate(value))
            return next((w for w in whys if w), None)
        if kind is dict and "properties" in schema:
            return self.wrong_object(value, schema, where)
        return None

    def wrong_object(self, value, schema, where):
        members = schema["properties"]
        for name in schema.get("required", []):
            if name not in value:
                return f"{where}.{name} is missing"
        for name, v in value.items():
            if name not in members:
                return f"{where}.{name} is not described"
            why = self.wrong(v, members[name], f"{where}.{name}")
            if why:
                return why
        return None

    def check(self, value, schema, where):
        why = self.wrong(value, schema, where)
        if why:
            fail(why)


def refs(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for v in node.values():
            yield from refs(v)
    elif isinstance(node, list):
        for v in node:
            yield from refs(v)


def check_description(d):
    used = set(refs(d.all))
    for ref in used:
        d.at(ref)
    for name in d.all["components"]["schemas"]:
        if f"#/components/schemas/{name}" not in used:
            fail(f"schema {name} is of no use")
    for path, methods in d.all["paths"].items():
        for method, op in methods.items():
            stated = {p["name"] for p in op["parameters"] if p["in"] == "path"}
            if stated != set(re.findall("{(.*?)}", path)):
                fail(f"{method} {path}: parameters {stated}")
            for body in [r for r in op["responses"].values()] + [op.get("requestBody")]:
                if body and not body["content"]["application/json"]["schema"]:
                    fail(f"{method} {path}: a body without a schema")


def check_answers(d):
    n = 0
    for path, methods in d.all["paths"].items():
        schema = methods.get("get", {}).get("responses", {}).get("200", {})
        schema = schema.get("content", {}).get("application/json", {}).get("schema")
        if not schema:
            continue
        names = [""]
        if path.endswith("{object}"):
            plural = path.split("/")[2]
            objects = ask("GET", f"/v1/{plural}")[1][plural]
            names = [f"{o['policy']}/{o['name']}" if plural == "rules" else o["name"] for o in objects]
        for name in names:
            at = path.replace("{object}", urllib.parse.quote(name, safe=""))
            at = at.replace("{cookie}", "0xd505000000000001")
            status, answer = ask("GET", at)
            if status != 200:
                fail(f"GET {at}: {status} {answer}")
            d.check(answer, schema, at)
            n += 1
    return n


def check_refusals(d):
    error = {"$ref": "#/components/schemas/error"}
    for method, path, body in (
        ("GET", "/v1/networks/none", None),
        ("POST", "/v1/networks", {"name": "x", "type": "vlan", "tag": 5000}),
        ("PATCH", "/v1/pool", {"generation": 1}),
        ("POST", "/v1/import", {"version": 1, "vms": [{"name": "/"}, {"name": ""}]}),
        ("POST", "/v1/trace", {"from": 7}),
        ("POST", "/v1/confirm", None),
    ):
        status, answer = ask(method, path, body)
        if status < 400:
            fail(f"{method} {path}: {status}")
        d.check(answer, error, f"{method} {path}")


def main():
    d = Description()
    if len(sys.argv) > 2:
        text, n, decoder = sys.stdin.read().strip(), 0, json.JSONDecoder()
        while text:
            value, end = decoder.raw_decode(text)
            d.check(value, {"$ref": f"#/components/schemas/{sys.argv[2]}"}, sys.argv[2])
            text, n = text[end:].strip(), n + 1
        if not n:
            fail("nothing was answered")
        return
    check_description(d)
    n = check_answers(d)
    check_refusals(d)
    print(f"{n} answers")


main()
