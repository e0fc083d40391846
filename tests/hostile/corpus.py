"""What strangers may send: no requests, requests to be read in two ways, paths that lead out of the house."""

from tests.hostile.wire import request

POST = b"POST /v1/datasets HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"points": [[1.0]]}'
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
HIDDEN = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"

MALFORMED = {
    "random bytes": bytes(range(256)) * 4,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2.0": request(b"/livez", version=b"HTTP/2.0"),
    "a version from the future": request(b"/livez", version=b"HTTP/9.9"),
    "an unknown method": request(b"/livez", method=b"FETCH"),
    "a small method": request(b"/livez", method=b"get"),
    "a method with NUL": request(b"/livez", method=b"G\x00T"),
    "a long method": request(b"/livez", method=b"G" * 70_000),
    "CONNECT": request(b"example.org:443", method=b"CONNECT"),
    "OPTIONS *": request(b"*", method=b"OPTIONS"),
    "a path without a slash": request(b"livez"),
    "a path with NUL": request(b"/livez\x00"),
    "a path with a blank": request(b"/li vez"),
    "a path with raw bytes": request(b"/\xff\xfe"),
    "bare LF": b"GET /livez HTTP/1.1\nHost: a\n\n",
    "bare CR": b"GET /livez HTTP/1.1\rHost: a\r\r",
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": request(b"/livez", b"Host: b"),
    "a blank before the colon": request(b"/livez", b"Content-Length : 5"),
    "a folded header": request(b"/livez", b"X-A: b\r\n c"),
    "a header of no name": request(b"/livez", b": b"),
    "a header without a colon": request(b"/livez", b"Nonsense"),
    "NUL in a header": request(b"/livez", b"X-A: \x00"),
    "NUL in a header's name": request(b"/livez", b"X-\x00A: b"),
    "CR in a header": request(b"/livez", b"X-A: b\rX-B: c"),
    "LF in a header": request(b"/livez", b"X-A: b\nX-B: c"),
    "a length below zero": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +19\r\n\r\n" + BODY,
    "a length in hexadecimal": POST + b"Content-Length: 0x13\r\n\r\n" + BODY,
    "a length that is a list": POST + b"Content-Length: 19, 19\r\n\r\n" + BODY,
    "a length of nothing": POST + b"Content-Length: \r\n\r\n" + BODY,
    "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\n" + BODY,
    "two lengths": POST + b"Content-Length: 19\r\nContent-Length: 5\r\n\r\n" + BODY + HIDDEN,
    "twice the same length": POST + b"Content-Length: 19\r\nContent-Length: 19\r\n\r\n" + BODY,
    "a length and chunks": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "chunks and a length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "an unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked before another": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two encodings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an encoding behind a tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an encoding with a blank": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an encoding that is folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a chunk below zero": CHUNKED + b"-1\r\n" + HIDDEN,
    "a chunk with a sign": CHUNKED + b"+5\r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "a chunk in 0x": CHUNKED + b"0x5\r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "a chunk of no length": CHUNKED + b"\r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "a chunk of letters": CHUNKED + b"xyz\r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "a chunk beyond 64 bits": CHUNKED + b"1" + b"0" * 16 + b"\r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that is too long": CHUNKED + b"3\r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that ends in LF": CHUNKED + b"5\n12345\n0\n\n" + HIDDEN,
    "a chunk behind a blank": CHUNKED + b"5 \r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "NUL in a chunk's extension": CHUNKED + b"5;a=\x00\r\n12345\r\n0\r\n\r\n" + HIDDEN,
    "a trailer without a colon": CHUNKED + b"0\r\nNonsense\r\n\r\n" + HIDDEN,
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"xyz\r\n" + HIDDEN,
}
"""What is refused at once, with one answer at most; `HIDDEN` is never asked for."""

PATHS = [
    *rb"""
    //livez  ///  /livez/  /livez//  /./livez  /v1/../livez  /%2e%2e/livez  /v1/%2e%2e/livez
    /../../../../etc/passwd  /%2e%2e/%2e%2e/%2e%2e/etc/passwd  /..%2f..%2f..%2fetc/passwd
    /static/../app.py  /static/%2e%2e/app.py  /static/..%2fapp.py  /static/%2e%2e%2f%2e%2e%2fpyproject.toml
    /static/..%5c..%5capp.py  /static//etc/passwd  /static/%2fetc%2fpasswd  /static/.  /static/..
    /static/%00  /static/page/%00.js  /static/%ff  /static/%ed%a0%80
    /v1/fits/..  /v1/fits/%2e%2e  /v1/fits/..%2f..%2flivez  /v1/fits/%252e%252e  /v1/fits/%0d%0aX-A:b
    /v1/fits/%00  /v1/fits/a%00b  /v1/fits/%ff  /v1/fits/%ed%a0%80  /v1/fits/%  /v1/fits/%zz
    /v1/datasets/../points  /v1/datasets/%2e%2e/points  /v1/datasets//points  /v1/datasets/%00/points
    /v1/mixtures/%00/plot.svg  /v1/mixtures/..%2fx/plot.png  /v1/mixtures/<script>
    /v1/mixtures/'%20OR%201=1--
    /v1/fits?status=%00  /v1/fits?dataset_id=%00  /v1/fits?page_token=%00  /v1/fits?page_token=../x
    /v1/fits?page_size=%00  /v1/fits?page_size=1e9  /v1/fits?page_size=-1  /v1/fits?page_size=1&page_size=x
    /v1/fits?%00=1  /v1/fits?..=1  /v1/fits?a[]=1  /v1/fits?%ff=%ff
    /v1/fits;a=b  /v1\fits  /V1/fits  /v1/fits%3fpage_size=1  /v1%2ffits%2fx  /openapi.json/..  /docs/%2e%2e
    http://evil.example/v1/fits/x  http://evil.example:99999/  https://[::1/
    """.split(),
    b"/static/" + b"a" * 5000,
    b"/static/" + b"a/" * 5000,
    b"/v1/fits/" + b"a" * 50_000,
    b"/v1/fits?page_size=" + b"9" * 5000,
    b"/v1/fits?" + b"a&" * 20_000,
]
"""Paths and queries that lead nowhere."""

HALVES = {
    "nothing": b"",
    "half a first line": b"GET /liv",
    "half a head": b"GET /livez HTTP/1.1\r\nHost",
    "half a body": POST + b"Content-Length: 400\r\n\r\n" + BODY,
    "half a chunk": CHUNKED + b"ff\r\n{",
    "no last chunk": CHUNKED + b"13\r\n" + BODY + b"\r\n",
    "half of the trailers": CHUNKED + b"13\r\n" + BODY + b"\r\n0\r\nX-A: ",
}
"""What is broken off; nothing comes of it."""

HEADERS = {
    "two types": [b"Content-Type: application/json", b"Content-Type: text/csv"],
    "a type of nothing": [b"Content-Type: "],
    "a type of raw bytes": [b"Content-Type: \xff\xfe"],
    "a type with parameters": [b"Content-Type: text/csv; header=" + b"a" * 5000],
    "two Accepts": [b"Accept: application/json;q=0", b"Accept: text/html"],
    "a wild Accept": [b"Accept: " + b"a/b;q=x," * 3000],
    "an Accept of raw bytes": [b"Accept: \xff/\xfe;q=\xb2"],
    "two encodings": [b"Content-Encoding: gzip", b"Content-Encoding: zstd"],
    "an encoding within another": [b"Content-Encoding: gzip, gzip"],
    "two keys": [b"Idempotency-Key: a", b"Idempotency-Key: b"],
    "a key of raw bytes": [b"Idempotency-Key: \xff"],
    "an endless key": [b"Idempotency-Key: " + b"k" * 5000],
    "two owners' keys": [b"Authorization: Bearer a", b"Authorization: Bearer b"],
    "two request ids": [b"X-Request-Id: a b", b"X-Request-Id: ../../x"],
    "a wild preference": [b"Prefer: wait=" + b"9" * 5000, b"Prefer: wait=-1, wait=\xb2"],
    "a wild event id": [b"Last-Event-ID: " + b"9" * 5000, b"Accept: text/event-stream"],
    "an event id of raw digits": [b"Last-Event-ID: \xb2\xb3", b"Accept: text/event-stream"],
    "an event id beyond 64 bits": [b"Last-Event-ID: " + b"9" * 30, b"Accept: text/event-stream"],
    "wild tags": [b"If-None-Match: " + b'W/"x",' * 3000 + b"\xff"],
    "an upgrade": [
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: a",
        b"Sec-WebSocket-Version: 13",
    ],
    "an upgrade to HTTP/2": [
        b"Connection: upgrade, http2-settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
    ],
    "a range": [b"Range: bytes=0-" + b"9" * 5000 + b",5-2"],
    "an expectation": [b"Expect: 200-maybe"],
    "another host": [b"X-Forwarded-Host: evil.example", b"X-Original-URL: /metrics", b"Forwarded: host=evil"],
    "a wild traceparent": [b"Traceparent: 00-" + b"f" * 5000 + b"-\xff"],
}
"""Headers that are read by no rule, or by two."""
