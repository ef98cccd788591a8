//! Streams written by hand, one for each thing that messages do, and where we differ on purpose.
//!
//! The classes are those of llhttp's own tests (<https://github.com/nodejs/llhttp>, `test/request`, `test/response`), of
//! h11's, and of RFC 9112; the streams are ours.

use ktrdr_agent::protocol::Side;

use super::judges::Stream;

/// A difference that is meant.
pub struct Deviation {
    /// The case.
    pub case: &'static str,
    /// The judges who read it otherwise.
    pub from: &'static [&'static str],
    /// Why ours is right, or good enough.
    pub why: &'static str,
}

const OTHER_VERSION: &str =
    "no sender frames another major version so; HTTP/2's preface and RTSP look like it";

/// All of them; a test fails also where one is none any more.
pub const DEVIATIONS: &[Deviation] = &[
    Deviation {
        case: "no version",
        from: &["llhttp"],
        why: "HTTP/0.9 has no heads; inline commands of Redis look the same",
    },
    Deviation { case: "version 0.9", from: &["h11", "llhttp"], why: OTHER_VERSION },
    Deviation { case: "version 2.0", from: &["h11", "llhttp"], why: OTHER_VERSION },
    Deviation { case: "version 3.0", from: &["h11"], why: OTHER_VERSION },
    Deviation {
        case: "version of another protocol",
        from: &["llhttp"],
        why: "Node and uvicorn answer it, but it is RTSP",
    },
    Deviation { case: "HTTP/2's preface", from: &["h11"], why: OTHER_VERSION },
    Deviation {
        case: "upgrade with a body",
        from: &["llhttp"],
        why: "the request has its body before another protocol begins (RFC 9110 §7.8), if it does; h11 reads it so",
    },
    Deviation {
        case: "chunk of 64 bits",
        from: &["llhttp"],
        why: "sizes are reported as signed 64-bit numbers, and no chunk comes near",
    },
    Deviation {
        case: "more than was asked",
        from: &["llhttp"],
        why: "it knows no requests; an answer without one is counted, and belongs to no call",
    },
];

/// Behind every request, to see that we are still in step.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n";

/// Requests.
const REQUESTS: &[(&str, &[u8])] = &[
    ("plain", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("query", b"GET /a/b?c=d&e=%20f HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("query with a question mark", b"GET /a?b=c?d HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("fragment", b"GET /a?b#c HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("target of odd characters", b"GET /a\"b<c>\\^`{|}~!$'()*,;:@ HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("target in UTF-8", b"GET /caf\xc3\xa9?\xe2\x82\xac HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("target in Latin-1", b"GET /caf\xe9?q=\xff HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("absolute form", b"GET http://other:81/a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("absolute form without a path", b"GET http://other HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("absolute form with a query alone", b"GET http://other?b=c HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("authority form", b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"),
    ("empty lines first", b"\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("lone line feeds first", b"\n\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("empty lines after a body", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\n"),
    ("lone line feeds", b"GET /a HTTP/1.1\nHost: h\nAccept: x\n\n"),
    ("lone line feeds and a body", b"POST /a HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc"),
    ("mixed line ends", b"GET /a HTTP/1.1\r\nHost: h\n\r\n"),
    ("two spaces before the target", b"GET  /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("two spaces before the version", b"GET /a  HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("space after the version", b"GET /a HTTP/1.1 \r\nHost: h\r\n\r\n"),
    ("tab in the request line", b"GET\t/a\tHTTP/1.1\r\nHost: h\r\n\r\n"),
    ("space in the target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("tab in the target", b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("form feed in the target", b"GET /a\x0cb HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("control character in the target", b"GET /a\x01b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("delete in the target", b"GET /a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no version", b"GET /a\r\n\r\n"),
    ("version 0.9", b"GET /a HTTP/0.9\r\nHost: h\r\n\r\n"),
    ("version 1.2", b"GET /a HTTP/1.2\r\nHost: h\r\n\r\n"),
    ("version 1.9", b"GET /a HTTP/1.9\r\nHost: h\r\n\r\n"),
    ("version 2.0", b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n"),
    ("version 3.0", b"GET /a HTTP/3.0\r\nHost: h\r\n\r\n"),
    ("version in lower case", b"GET /a http/1.1\r\nHost: h\r\n\r\n"),
    ("version of another protocol", b"OPTIONS /a RTSP/1.0\r\nHost: h\r\n\r\n"),
    ("HTTP/1.0", b"GET /a HTTP/1.0\r\n\r\n"),
    ("HTTP/1.0 keep-alive", b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    ("close", b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
    ("close and keep-alive", b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n"),
    ("no fields", b"GET /a HTTP/1.1\r\n\r\n"),
    ("upgrade not taken", b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ("upgrade without Connection", b"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"),
    ("upgrade with a body", b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"),
    ("expectation", b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"),
    ("expectation and chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("expectation without a body", b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"),
    ("expectation and a body that looks like a request", b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\nGET /b HTTP/1.1\r\n\r\n"),
    ("other expectation", b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 3\r\n\r\nabc"),
    ("body", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789"),
    ("body of GET", b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
    ("body of HEAD", b"HEAD /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
    ("no body", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
    ("POST without a length", b"POST /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("length with zeros", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 00000000000000000000003\r\n\r\nabc"),
    ("length with spaces around", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: \t 3 \t\r\n\r\nabc"),
    ("length with a plus", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc"),
    ("length with a minus", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\nabc"),
    ("length with a space inside", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1 3\r\n\r\nabc"),
    ("length in hexadecimal", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x3\r\n\r\nabc"),
    ("empty length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n"),
    ("length too large", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\nabc"),
    ("length twice, equal", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("length in a list, equal", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc"),
    ("length twice, unequal", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    ("length twice, one with zeros", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 03\r\n\r\nabc"),
    ("field with a name like the length's", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length-X: 9\r\nContent-Length: 3\r\n\r\nabc"),
    ("length in odd case", b"POST /a HTTP/1.1\r\nHost: h\r\ncOnTENT-lENgTH: 3\r\n\r\nabc"),
    ("length broken off", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc"),
    ("chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("chunks of upper case sizes", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    ("chunks with zeros", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n003\r\nabc\r\n000\r\n\r\n"),
    ("chunks with twenty digits", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000003\r\nabc\r\n00000000000000000000\r\n\r\n"),
    ("chunks with forty digits", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000000000000000000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("no chunk", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunk extensions", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a;b=c;d=\"e;f \\\"g\\\"\"\r\nabc\r\n0;z\r\n\r\n"),
    ("chunk extension after a space", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3 ;a=b\r\nabc\r\n0\r\n\r\n"),
    ("chunk extension in quotes that stay open", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\r\nabc\r\n0\r\n\r\n"),
    ("chunk extension without a name", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;\r\nabc\r\n0\r\n\r\n"),
    ("chunk size and spaces", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3 \t\r\nabc\r\n0 \r\n\r\n"),
    ("space before a chunk's size", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n"),
    ("text behind a chunk's size", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3 text\r\nabc\r\n0\r\n\r\n"),
    ("chunk size with 0x", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    ("chunk size with a sign", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n"),
    ("chunk size missing", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n"),
    ("chunk of more than 63 bits", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc"),
    ("chunk of 64 bits", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc"),
    ("chunks of lone line feeds", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n5\nhello\n0\n\n"),
    ("chunk data longer than said", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n"),
    ("chunks broken off in data", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc"),
    ("trailers", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n"),
    ("trailer folded", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer that gives a length", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 7\r\n\r\n"),
    ("trailer like a request", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nGET /b HTTP/1.1: c\r\n\r\n"),
    ("chunks and a length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"),
    ("a length behind chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"),
    ("coding before chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("coding before chunks in two fields", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("coding behind chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunks twice", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked and a comma", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked behind a comma", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: , chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked and spaces", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \tchunked \t\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked with a parameter", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked in quotes", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("unknown coding", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: pigeons\r\n\r\n"),
    ("coding that ends like chunked", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    ("identity", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc"),
    ("empty coding and a length", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc"),
    ("folded field", b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n\tc\r\n  d\r\n\r\n"),
    ("folded length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n 3\r\n\r\nabc"),
    ("folded chunked", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("folded codings", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip,\r\n chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("folded with lone line feeds", b"POST /a HTTP/1.1\nHost: h\nContent-Length:\n 3\n\nabc"),
    ("folded with an empty line of spaces", b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n \r\n\r\n"),
    ("folded before the first field", b"GET /a HTTP/1.1\r\n Host: h\r\n\r\n"),
    ("space before the colon", b"GET /a HTTP/1.1\r\nHost : h\r\n\r\n"),
    ("space before the colon of a length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length : 3\r\n\r\nabc"),
    ("field without a colon", b"GET /a HTTP/1.1\r\nHost: h\r\nNonsense\r\n\r\n"),
    ("field without a name", b"GET /a HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n"),
    ("field without a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA:\r\nB: \r\n\r\n"),
    ("colons in a value", b"GET /a HTTP/1.1\r\nHost: h:80\r\nA::b:c\r\n\r\n"),
    ("odd characters in a name", b"GET /a HTTP/1.1\r\nHost: h\r\n!#$%&'*+-.^_`|~9: a\r\n\r\n"),
    ("control character in a name", b"GET /a HTTP/1.1\r\nHost: h\r\nA\x01: b\r\n\r\n"),
    ("brackets in a name", b"GET /a HTTP/1.1\r\nHost: h\r\nA(b): c\r\n\r\n"),
    ("UTF-8 in a name", b"GET /a HTTP/1.1\r\nHost: h\r\n\xc3\xa9: b\r\n\r\n"),
    ("bytes above 0x80 in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA: \xff\x80\xc3\xa9\r\n\r\n"),
    ("bytes above 0x80 in Host", b"GET /a HTTP/1.1\r\nHost: h\xe9\r\n\r\n"),
    ("control character in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\x01c\r\n\r\n"),
    ("control character before a length", b"POST /a HTTP/1.1\r\nHost: h\r\nA: \x02\r\nContent-Length: 3\r\n\r\nabc"),
    ("escape in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA: \x1b[1m\r\n\r\n"),
    ("delete in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\x7fc\r\n\r\n"),
    ("form feed in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\x0cc\r\n\r\n"),
    ("zero byte in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n"),
    ("lone carriage return in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n"),
    ("lone carriage return before a name", b"GET /a HTTP/1.1\r\nHost: h\r\n\rA: b\r\n\r\n"),
    ("lone carriage returns for line ends", b"GET /a HTTP/1.1\rHost: h\r\r"),
    ("two carriage returns", b"GET /a HTTP/1.1\r\r\nHost: h\r\r\n\r\r\n"),
    ("host twice", b"GET /a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n"),
    ("method of the UPnP", b"M-SEARCH /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method of publishers", b"SUBSCRIBE /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method of Subversion", b"MKACTIVITY /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method of access control", b"ACL /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method of Icecast", b"SOURCE /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method unknown", b"BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method in lower case", b"get /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method of odd characters", b"A+b.c~1 /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method of a letter", b"A /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method with a bracket", b"G(T /a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method PRI", b"PRI * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("not a request at all", b"hello world\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5c\x1f\r\n\r\n"),
    ("pipelined", b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabHEAD /c HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("pipelined behind an odd one", b"GET /caf\xe9 HTTP/1.1\r\nHost: h\r\n\r\nGET /b  HTTP/1.1\r\nHost: h\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n"),
];

/// Responses, with what they answer: `g`ET, `h`EAD, `c`ONNECT.
const RESPONSES: &[(&str, &str, &[u8])] = &[
    ("length", "g", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("lengths", "gg", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    ("until close", "g", b"HTTP/1.1 200 OK\r\n\r\nabcdef"),
    ("until close, HTTP/1.0", "g", b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nabc\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("until close, empty", "g", b"HTTP/1.1 200 OK\r\n\r\n"),
    ("keep-alive without a length", "g", b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nabc"),
    ("HTTP/1.0 with a length", "gg", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\naHTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nb"),
    ("chunks", "gg", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
    ("chunks, HTTP/1.0", "g", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunks and a length", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("trailers", "gg", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
    ("coding behind chunks", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, deflate\r\n\r\n2\r\nOK\r\n0\r\n\r\n"),
    ("coding before chunks", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: deflate, chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"),
    ("identity", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nabc"),
    ("identity and a length", "gg", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\n"),
    ("unknown coding", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: pigeons\r\n\r\nabc"),
    ("empty coding", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nabc"),
    ("no content", "gg", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("no content, chunked", "gg", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("not modified", "gg", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("reset content", "gg", b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("to HEAD", "hg", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("to HEAD, chunked", "hg", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("to HEAD, without a length", "hg", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("to CONNECT, refused", "cg", b"HTTP/1.1 407 Auth\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("to CONNECT, taken", "c", b"HTTP/1.1 200 Connected\r\n\r\n\x16\x03\x01"),
    ("interim", "g", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("interims", "gg", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"),
    ("interim with a length", "g", b"HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("no reason", "g", b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\na"),
    ("no reason and no space", "g", b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na"),
    ("no reason, lone line feeds", "g", b"HTTP/1.1 200\nContent-Length: 1\n\na"),
    ("no reason and no fields", "g", b"HTTP/1.1 200\r\n\r\n"),
    ("reason of many words", "g", b"HTTP/1.1 404 It is not  here, (sorry)!\r\nContent-Length: 1\r\n\r\na"),
    ("reason in Latin-1", "g", b"HTTP/1.1 404 Trouv\xe9 nulle part\r\nContent-Length: 1\r\n\r\na"),
    ("reason with a tab", "g", b"HTTP/1.1 404 Not\tfound\r\nContent-Length: 1\r\n\r\na"),
    ("reason with a control character", "g", b"HTTP/1.1 404 Not\x01found\r\nContent-Length: 1\r\n\r\na"),
    ("reason with an escape", "g", b"HTTP/1.1 404 \x1b[1mNo\r\nContent-Length: 1\r\n\r\na"),
    ("reason with a zero byte", "g", b"HTTP/1.1 404 Not\0found\r\nContent-Length: 1\r\n\r\na"),
    ("reason with a lone carriage return", "g", b"HTTP/1.1 404 Not\rfound\r\nContent-Length: 1\r\n\r\na"),
    ("two spaces before the status", "g", b"HTTP/1.1  200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("tab before the status", "g", b"HTTP/1.1\t200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("status of two digits", "g", b"HTTP/1.1 20 OK\r\nContent-Length: 1\r\n\r\na"),
    ("status of four digits", "g", b"HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\na"),
    ("status 999", "g", b"HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\na"),
    ("status 099", "g", b"HTTP/1.1 099 Odd\r\nContent-Length: 1\r\n\r\na"),
    ("no status", "g", b"HTTP/1.1\r\nContent-Length: 1\r\n\r\na"),
    ("version 1.2", "g", b"HTTP/1.2 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("version 0.9", "g", b"HTTP/0.9 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("version 2.0", "g", b"HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("version 2", "g", b"HTTP/2 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("Icecast", "g", b"ICY 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("empty lines first", "gg", b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na\r\nHTTP/1.1 204 No\r\n\r\n"),
    ("lone line feeds", "gg", b"HTTP/1.1 200 OK\nContent-Length: 1\n\naHTTP/1.1 204 No\n\n"),
    ("two carriage returns", "g", b"HTTP/1.1 200 OK\r\r\nContent-Length: 1\r\r\n\r\r\na"),
    ("chunks of lone line feeds", "g", b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"),
    ("chunk size and spaces", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3  \r\nabc\r\n0  \r\n\r\n"),
    ("folded length", "g", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 3\r\n\r\nabc"),
    ("folded field", "gg", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\n"),
    ("folded codings", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip,\r\n\tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("folded before the first field", "g", b"HTTP/1.1 200 OK\r\n Content-Length: 1\r\n\r\na"),
    ("space before the colon of a length", "g", b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc"),
    ("field without a colon", "g", b"HTTP/1.1 200 OK\r\nNonsense\r\nContent-Length: 1\r\n\r\na"),
    ("bytes above 0x80", "g", b"HTTP/1.1 200 OK\r\nA: \xff\x80\r\nContent-Length: 1\r\n\r\na"),
    ("control character in a value", "g", b"HTTP/1.1 200 OK\r\nA: \x01\r\nContent-Length: 1\r\n\r\na"),
    ("zero byte in a value", "g", b"HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 1\r\n\r\na"),
    ("lone carriage return in a value", "g", b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 1\r\n\r\na"),
    ("length twice, equal", "gg", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\naHTTP/1.1 204 No\r\n\r\n"),
    ("length twice, unequal", "g", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("length that is none", "g", b"HTTP/1.1 200 OK\r\nContent-Length: some\r\n\r\nab"),
    ("length broken off", "g", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"),
    ("chunks broken off", "g", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nab"),
    ("switching without an upgrade", "g", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ("upgrade", "g", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01a"),
    ("close and more", "gg", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\naHTTP/1.1 204 No\r\n\r\n"),
    ("more than was asked", "g", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 204 No\r\n\r\n"),
    ("an upgrade that was not taken", "gg", b"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\naHTTP/1.1 204 No\r\n\r\n"),
];

/// Heads of many fields, and a long first line.
fn many() -> Vec<(String, Stream)> {
    let fields = "A: b\r\n".repeat(300);
    let request = format!("POST /a HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: 3\r\n\r\nabc");
    let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 3\r\n\r\nabc");
    let asked = vec!["GET".to_owned()];
    let long = format!("GET /a?{} HTTP/1.1\r\nHost: h\r\n\r\n", "b".repeat(1500));
    vec![
        ("request: long target".to_owned(), followed(long.as_bytes())),
        ("request: many fields".to_owned(), followed(request.as_bytes())),
        (
            "response: many fields".to_owned(),
            Stream { side: Side::Response, asked, bytes: response.into_bytes() },
        ),
    ]
}

fn followed(request: &[u8]) -> Stream {
    Stream { side: Side::Request, asked: Vec::new(), bytes: [request, NEXT].concat() }
}

/// All of them, by name.
pub fn all() -> Vec<(String, Stream)> {
    let requests = REQUESTS.iter().map(|(name, bytes)| (format!("request: {name}"), followed(bytes)));
    // Odd things may come on a connection known to speak HTTP, where less is asked of a message.
    let later = REQUESTS
        .iter()
        .map(|(name, bytes)| (format!("request, later: {name}"), followed(&[NEXT, bytes].concat())));
    let responses = RESPONSES.iter().map(|(name, asked, bytes)| {
        let asked = asked.chars().map(|c| match c {
            'h' => "HEAD".to_owned(),
            'c' => "CONNECT".to_owned(),
            _ => "GET".to_owned(),
        });
        let stream = Stream { side: Side::Response, asked: asked.collect(), bytes: bytes.to_vec() };
        (format!("response: {name}"), stream)
    });
    requests.chain(later).chain(responses).chain(many()).collect()
}
