// Node's clients: fetch (undici) and http.request with a keep-alive agent (see clients.py).
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const base = process.argv[2];
const file = process.argv[3] && process.argv[3] !== "-" ? process.argv[3] : path.join(__dirname, "plan.json");
const plan = JSON.parse(fs.readFileSync(file, "utf8"));

const say = (library, target, step, status, received, port) =>
  console.log(JSON.stringify({
    path: target, method: step.method, status, sent: step.body ?? 0, received, local_port: port ?? null, group: library,
    vague: step.vague ?? false,
  }));

function* pieces(step) {
  const piece = step.piece ?? 3000;
  for (let at = 0; at < step.body; at += piece) yield Buffer.alloc(Math.min(piece, step.body - at), "b");
}

async function withFetch() {
  for (const [n, step] of plan.entries()) {
    const target = `/c/fetch/${n}/${step.path}`;
    const options = { method: step.method };
    if (step.body) options.body = Buffer.alloc(step.body, "b");
    if (step.chunked) {
      options.body = ReadableStream.from(pieces(step));
      options.duplex = "half";
    }
    const reply = await fetch(base + target, options);
    const body = await reply.arrayBuffer();
    say("fetch", target, step, reply.status, body.byteLength);
  }
}

async function withRequest() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (const [n, step] of plan.entries()) {
    const target = `/c/node/${n}/${step.path}`;
    const headers = step.body && !step.chunked ? { "content-length": step.body } : {};
    await new Promise((resolve, reject) => {
      const request = http.request(base + target, { method: step.method, agent, headers }, (reply) => {
        const port = reply.socket.localPort;
        let received = 0;
        reply.on("data", (part) => (received += part.length));
        reply.on("end", () => {
          say("node", target, step, reply.statusCode, received, port);
          resolve();
        });
      });
      request.on("error", reject);
      if (step.chunked) for (const piece of pieces(step)) request.write(piece);
      else if (step.body) request.write(Buffer.alloc(step.body, "b"));
      request.end();
    });
  }
  agent.destroy();
}

withFetch().then(withRequest);
