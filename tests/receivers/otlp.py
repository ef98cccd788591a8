"""An OTLP receiver for the tests: traces and metrics over gRPC and HTTP, log records over gRPC.

Prints one JSON line with its ports, then one per request: how it came and the spans, the metrics or the logs in it. For traces it can
be told to fail first, and for both to refuse gzip, and to want TLS, as real receivers do.
"""

import argparse
import gzip
import json
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import any_pb2, duration_pb2, json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

parser = argparse.ArgumentParser()
parser.add_argument("--grpc-port", type=int, default=0)
parser.add_argument("--http-port", type=int, default=0)
parser.add_argument("--fail", type=int, default=0, help="so many requests fail first")
parser.add_argument("--code", default="UNAVAILABLE", help="gRPC code of the failures")
parser.add_argument("--status", type=int, default=503, help="HTTP status of the failures")
parser.add_argument("--retry-after", type=float, default=None, help="seconds that the failures ask for")
parser.add_argument("--reject", type=int, default=0, help="spans of the first request that are not accepted")
parser.add_argument("--no-gzip", action="store_true")
parser.add_argument("--silent", action="store_true", help="take requests and never answer")
parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
parser.add_argument("--client-ca", help="clients must have a certificate of this CA")
args = parser.parse_args()

lock = threading.Lock()
state = {"fail": args.fail, "reject": args.reject}


def say(**what):
    with lock:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def take(name):
    """Uses up what is left of a number of faults."""
    with lock:
        value = state[name]
        state[name] = 0 if name == "reject" else max(0, value - 1)
        return value


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(v) for v in any_value.array_value.values]
    return getattr(any_value, kind)


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def spans(request):
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                yield {
                    "resource": attributes(group.resource.attributes),
                    "resource_schema": group.schema_url,
                    "scope": [scope.scope.name, scope.scope.version],
                    "schema": scope.schema_url,
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_span_id": span.parent_span_id.hex() or None,
                    "flags": span.flags,
                    "name": span.name,
                    "kind": span.kind,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": span.status.code,
                    "status_message": span.status.message,
                    "attributes": attributes(span.attributes),
                    "events": [[e.time_unix_nano, e.name, attributes(e.attributes)] for e in span.events],
                    "links": [[k.trace_id.hex(), k.span_id.hex(), attributes(k.attributes)] for k in span.links],
                }


def accept(request, **how):
    response = trace_service_pb2.ExportTraceServiceResponse()
    rejected = take("reject")
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = "these are too old"
    say(groups=len(request.resource_spans), spans=list(spans(request)), **how)
    return response


def points(request):
    """Every data point, with what its metric and its Resource say."""
    for group in request.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                for point in data.data_points:
                    yield {
                        "resource": attributes(group.resource.attributes),
                        "name": metric.name,
                        "unit": metric.unit,
                        "description": metric.description,
                        "kind": kind,
                        "cumulative": getattr(data, "aggregation_temporality", None) == 2,
                        "monotonic": getattr(data, "is_monotonic", None),
                        "attributes": attributes(point.attributes),
                        "start": point.start_time_unix_nano,
                        "time": point.time_unix_nano,
                        **(of_histogram(point) if kind == "histogram" else of_number(point)),
                    }


def of_number(point):
    return {"value": getattr(point, point.WhichOneof("value"))}


def of_histogram(point):
    exemplars = [[e.trace_id.hex(), e.span_id.hex(), e.as_double, e.time_unix_nano] for e in point.exemplars]
    return {
        "count": point.count,
        "sum": point.sum,
        "buckets": list(point.bucket_counts),
        "bounds": list(point.explicit_bounds),
        "exemplars": exemplars,
    }


def accept_metrics(request, **how):
    say(metrics=list(points(request)), **how)
    return metrics_service_pb2.ExportMetricsServiceResponse()


class GrpcMetrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        if args.silent:
            threading.Event().wait()
        return accept_metrics(request, transport="grpc")


def records(request):
    for group in request.resource_logs:
        for scope in group.scope_logs:
            for record in scope.log_records:
                yield {
                    "resource": attributes(group.resource.attributes),
                    "severity": record.severity_text,
                    "body": value(record.body),
                    "attributes": attributes(record.attributes),
                    "trace_id": record.trace_id.hex() or None,
                    "span_id": record.span_id.hex() or None,
                }


class GrpcLogs(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        if args.silent:
            threading.Event().wait()
        say(logs=list(records(request)), transport="grpc")
        return logs_service_pb2.ExportLogsServiceResponse()


class Grpc(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        if args.silent:
            threading.Event().wait()
        if take("fail"):
            say(failed=args.code)
            if args.retry_after is not None:
                # google.rpc.RetryInfo{retry_delay} inside google.rpc.Status{details}, by hand: their Python
                # classes are in a package of their own.
                delay = duration_pb2.Duration()
                delay.FromNanoseconds(int(args.retry_after * 1e9))
                delay = delay.SerializeToString()
                detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo")
                detail.value = b"\x0a" + bytes([len(delay)]) + delay
                detail = detail.SerializeToString()
                status = b"\x1a" + bytes([len(detail)]) + detail
                context.set_trailing_metadata((("grpc-status-details-bin", status),))
            context.abort(grpc.StatusCode[args.code], "told to fail")
        headers = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        return accept(request, transport="grpc", headers=headers)


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="text/plain", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        raw = body = self.rfile.read(int(self.headers["Content-Length"]))
        if args.silent:
            threading.Event().wait()
        if self.path not in ("/v1/traces", "/v1/metrics"):
            return self.answer(404, b"no such path")
        if self.headers["Content-Encoding"] == "gzip":
            if args.no_gzip:
                return self.answer(415, b"no gzip here")
            body = gzip.decompress(body)
        kind = self.headers["Content-Type"]
        is_json = kind == "application/json"
        if self.path == "/v1/metrics":
            request = parse(body, is_json, metrics_service_pb2.ExportMetricsServiceRequest)
            return self.response(accept_metrics(request, transport="http"), is_json, kind)
        if take("fail"):
            say(failed=args.status)
            asked = {} if args.retry_after is None else {"Retry_After": str(int(args.retry_after))}
            return self.answer(args.status, b"told to fail", **asked)
        request = parse(body, is_json, trace_service_pb2.ExportTraceServiceRequest)
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.response(accept(request, transport="http", headers=headers, bytes=len(raw)), is_json, kind)

    def response(self, response, is_json, kind):
        if is_json:
            self.answer(200, json_format.MessageToJson(response).encode(), kind)
        else:
            self.answer(200, response.SerializeToString(), kind)


def parse(body, is_json, message):
    if is_json:
        # OTLP/JSON differs from protobuf's JSON in one thing: ids are hexadecimal. The parser wants base64.
        return json_format.Parse(rewrite(json.loads(body)), message())
    return message.FromString(body)


def rewrite(message):
    import base64

    def walk(node):
        if isinstance(node, dict):
            for key, child in node.items():
                if key in ("traceId", "spanId", "parentSpanId"):
                    node[key] = base64.b64encode(bytes.fromhex(child)).decode()
                else:
                    walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(message)
    return json.dumps(message)


def read(path):
    with open(path, "rb") as file:
        return file.read()


options = [("grpc.so_reuseport", 0)]
if args.no_gzip:
    # Bit 0 is "identity".
    options.append(("grpc.compression_enabled_algorithms_bitset", 1))
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=options)
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Grpc(), server)
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(GrpcMetrics(), server)
logs_service_pb2_grpc.add_LogsServiceServicer_to_server(GrpcLogs(), server)
address = f"127.0.0.1:{args.grpc_port}"
if args.tls:
    pair = (read(args.tls[1]), read(args.tls[0]))
    ca = read(args.client_ca) if args.client_ca else None
    port = server.add_secure_port(address, grpc.ssl_server_credentials([pair], ca, bool(ca)))
else:
    port = server.add_insecure_port(address)
server.start()


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that breaks off or distrusts the certificate is what some tests are about."""


http = HttpServer(("127.0.0.1", args.http_port), Http)
if args.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*args.tls)
    if args.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(args.client_ca)
    http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
say(grpc=port, http=http.server_port)
http.serve_forever()
