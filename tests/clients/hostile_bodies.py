"""What hostile clients send to an endpoint of POST: each has a name, and must be refused in one line.

A value is the raw body, or an object that is sent as JSON.
"""

COMPLETIONS = "/v1/completions"
DEEP = 100_000


def deep(opening, closing, inside=b"1"):
    return opening * DEEP + inside + closing * DEEP


NOT_JSON = {
    "an empty body": b"",
    "half an object": b'{"prompt": "a',
    "a list": b"[]",
    "null": b"null",
    "a string": b'"prompt"',
    "a tail after the object": b'{"prompt": "a"} {"prompt": "b"}',
    "invalid UTF-8": b'{"prompt": "\xff\xfe\xc3("}',
    "half a surrogate pair": b'{"prompt": "\\ud83d"}',
    "a zero byte": b'{"prompt": "a"\x00}',
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "a number beyond all": b'{"prompt": "a", "temperature": 1e999}',
    "lists 100,000 deep": deep(b"[", b"]"),
    "objects 100,000 deep": deep(b'{"a":', b"}"),
    "a prompt 100,000 lists deep": b'{"prompt": ' + deep(b"[", b"]") + b"}",
    "100,000 open lists": b"[" * DEEP,
}


def request(**fields):
    return {"prompt": "Once upon a time", "max_tokens": 2} | fields


def schema(value):
    return request(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": value}})


WRONG = {
    "no prompt": {"max_tokens": 2},
    "an id beyond the vocabulary": request(prompt=[5, 3264]),
    "an id of 32 bits": request(prompt=[(1 << 32) - 1]),
    "an id of 64 bits": request(prompt=[(1 << 64) - 1]),
    "an id of 70 bits": request(prompt=[1 << 70]),
    "a negative id": request(prompt=[-1]),
    "a fraction as id": request(prompt=[1.5]),
    "a truth as id": request(prompt=[True]),
    "lists of lists of lists": request(prompt=[[[1]]]),
    "an object as prompt": request(prompt={"a": 1}),
    "a prompt of 100,000 ids": request(prompt=[7] * 100_000),
    "100,000 prompts": request(prompt=["a"] * 100_000),
    "max_tokens beyond 64 bits": request(max_tokens=1 << 70),
    "max_tokens below zero": request(max_tokens=-1),
    "max_tokens as a string": request(max_tokens="two"),
    "n of a billion": request(n=10**9),
    "logprobs of a million": request(logprobs=10**6),
    "a temperature as a list": request(temperature=[]),
    "a seed as an object": request(seed={}),
    "10,000 stop strings": request(stop=["x" * 10] * 10_000),
    "a stop of numbers": request(stop=[1, 2]),
    "a bias of no token": request(logit_bias={"dog": 1}),
    "a bias beyond the vocabulary": request(logit_bias={"999999": 1}),
    "stream_options as a list": request(stream=True, stream_options=[]),
    "exit layer 0": request(exit_layer=0),
    "an exit layer below zero": request(exit_layer=-1),
    "a speculation of words": request(speculate="6:4:2"),
    "a schema of an unknown type": schema({"type": "nothing"}),
    "a number as schema": schema(5),
    "a schema with an open reference": schema({"$ref": "#/$defs/nobody"}),
    "a schema with half a pattern": schema({"type": "string", "pattern": "("}),
    "a schema whose minimum is a word": schema({"type": "number", "minimum": "a"}),
    "an unknown response format": request(response_format={"type": "poem"}),
}
# json.dumps cannot nest deeper than Python's stack, so this one is written by hand.
WRONG["a schema 5,000 deep"] = (
    b'{"prompt": "a", "max_tokens": 2, "response_format": '
    + b'{"type": "json_schema", "json_schema": {"name": "x", "schema": '
    + b'{"type": "array", "items": ' * 5000
    + b'{"type": "string"}'
    + b"}" * 5000
    + b"}}}"
)

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: HOST\r\ncontent-type: application/json\r\n"

# Whole requests that are no good HTTP: an error status or a closed connection, soon.
NOT_HTTP = {
    "noise": bytes(range(256)) * 16 + b"\r\n\r\n",
    "TLS": bytes.fromhex("16030100f8010000f40303") + b"\x55" * 240 + b"\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\nhost: HOST\r\n\r\n",
    "a length of letters": HEAD + b"content-length: many\r\n\r\n{}",
    "a length below zero": HEAD + b"content-length: -1\r\n\r\n{}",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    "chunks of letters": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk of 2^64 bytes": HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "a header of 1 MB": b"GET /health HTTP/1.1\r\nhost: HOST\r\nx: " + b"y" * (1 << 20) + b"\r\n\r\n",
    "20,000 headers": b"GET /health HTTP/1.1\r\nhost: HOST\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    "a path of 1 MB": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: HOST\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "ten gigabytes announced": HEAD + b"content-length: 10000000000\r\n\r\n" + b'{"prompt": "' + b"a" * (1 << 16),
}
