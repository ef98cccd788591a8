"""A gRPC receiver that understands nothing and takes everything: what it was sent, as bytes in a file.

usage: any.py PORT FILE
"""

import sys
from concurrent import futures

import grpc

file = open(sys.argv[2], "ab", buffering=0)


class Any(grpc.GenericRpcHandler):
    def service(self, details):
        def take(message, _context):
            file.write(details.method.encode() + b"\n" + message + b"\n")
            return b""

        return grpc.unary_unary_rpc_method_handler(take)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers((Any(),))
assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
