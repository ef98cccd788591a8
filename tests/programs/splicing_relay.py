"""A TCP relay that moves bytes inside the kernel, as docker-proxy does: nobody sees it read or write them.

    splicing_relay.py PORT UPSTREAM_PORT
"""

import os
import socket
import sys
import threading

port, upstream = int(sys.argv[1]), int(sys.argv[2])
CHUNK = 64 * 1024


def copy(source, target):
    read_end, write_end = os.pipe()
    try:
        while n := os.splice(source.fileno(), write_end, CHUNK):
            while n:
                n -= os.splice(read_end, target.fileno(), n)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # Either end is gone.
        pass
    finally:
        os.close(read_end)
        os.close(write_end)


def relay(client):
    with client, socket.create_connection(("127.0.0.1", upstream)) as server:
        back = threading.Thread(target=copy, args=(server, client))
        back.start()
        copy(client, server)
        back.join()


with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
    while True:
        threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()
